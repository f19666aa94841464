"""What a request of OpenRLHF's protocol says, and which ones are refused."""

import json

import pytest

from surefoot.serve.request import MAX_ROWS, RefusalError, read_request


def read(**request):
    return read_request(json.dumps(request).encode())


def test_an_answer_is_what_comes_behind_its_prompt():
    prompts, answers = read(query=["Q: yes", "<pad><pad><s>Q: no</s>", "Q: Q: "], prompts=["Q: "] * 3)
    assert answers == ["yes", "no</s>", "Q: "]
    assert [(p.text, p.index, dict(p.columns)) for p in prompts] == [("Q: ", i, {}) for i in range(3)]


def test_without_prompts_the_whole_text_is_the_answer():
    prompts, answers = read(query=["Q: yes"], prompts=None)
    assert (prompts[0].text, answers) == ("", ["Q: yes"])


def test_labels_are_where_reward_functions_look_for_them():
    prompts, _ = read(query=["a", "b"], labels=["42", None])
    assert [dict(p.columns) for p in prompts] == [{"label": "42", "ground_truth": "42"}, {}]


def test_conversations_come_as_messages():
    talk = [{"role": "user", "content": "Hi"}]
    prompts, answers = read(query=["<user>Hi<end>Hello", "plain"], prompts=["<user>Hi<end>", ""], messages=[talk, []])
    assert [p.messages for p in prompts] == [tuple(talk), ()]
    assert answers == ["Hello", "plain"]


@pytest.mark.parametrize(("request_body", "status", "reason"), [
    ({}, 400, '"query"'), ([], 400, '"query"'), ({"query": "text"}, 400, "query must be a list"),
    ({"query": []}, 400, "at least one entry"), ({"query": ["a", 1]}, 400, "query must hold texts only"),
    ({"query": ["a"] * (MAX_ROWS + 1)}, 413, "1025 texts; at most 1024"),
    ({"query": ["a"], "prompts": []}, 400, "prompts must be a list with 1 entries"),
    ({"query": ["a"], "prompts": [None]}, 400, "prompts must hold texts only"),
    ({"query": ["a"], "labels": "x"}, 400, "labels must be a list"),
    ({"query": ["a", "b"], "prompts": ["a", "c"]}, 422, r"query\[1\] does not hold prompts\[1\]"),
    ({"query": ["a"], "messages": [[{"role": "user"}]]}, 400, r"messages\[0\] must be"),
    ({"query": ["a"], "messages": ["hi"]}, 400, r"messages\[0\] must be"),
])  # fmt: skip
def test_a_wrong_request_is_refused(request_body, status, reason):
    with pytest.raises(RefusalError, match=reason) as caught:
        read_request(json.dumps(request_body).encode())
    assert caught.value.status == status


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b'{"query": [NaN]}', b'{"query": ["a"], "query": ["b"]}',
                                  b"[" * 100_000])  # fmt: skip
def test_what_is_not_strict_json_is_refused(body):
    with pytest.raises(RefusalError) as caught:
        read_request(body)
    assert caught.value.status == 400
