"""Which column is the prompt, and what of it: every format people bring."""

import pytest
import tiny

from surefoot.prompts import load_prompts

USER = {"role": "user", "content": "2+2?"}
ANSWER = {"role": "assistant", "content": "4"}
OTHER = {"role": "assistant", "content": "5"}
RENDERED = "<|im_start|>user\n2+2?<|im_end|>\n<|im_start|>assistant\n"
HH = "\n\nHuman: Hi\n\nAssistant: Hello.\n\nHuman: 2+2?\n\nAssistant:"


@pytest.fixture
def chat_tokenizer():
    return tiny.tiny_tokenizer(chat=True)


def load_row(row, tokenizer, **options):
    found = load_prompts([row], tokenizer, **options)
    return found.prompts[0], found.report


@pytest.mark.parametrize(
    ("row", "text", "columns"),
    [
        ({"prompt": "Hi", "answer": 4}, "Hi", {"answer": 4}),
        ({"query": "Hi"}, "Hi", {}),
        ({"Question": "Hi", "answer": "x"}, "Hi", {"answer": "x"}),
        ({"instruction": "Hi", "level": 1}, "Hi", {"level": 1}),
        ({"text": "Hi", "label": 1}, "Hi", {"label": 1}),
        ({"review": "Hi"}, "Hi", {}),  # the only column there is
        ({"prompt": "Hi", "query": "no", "text": "no"}, "Hi", {"query": "no", "text": "no"}),
        ({"prompt": "Hi", "completion": " there"}, "Hi", {"completion": " there"}),
        ({"prompt": "Hi", "chosen": "a", "rejected": "b"}, "Hi", {"chosen": "a", "rejected": "b"}),
        ({"question": "Hi", "chosen": "a", "rejected": "b"}, "Hi", {"chosen": "a", "rejected": "b"}),
    ],
)
def test_text_is_found_under_its_usual_names_and_the_other_columns_are_kept(row, text, columns, tiny_tokenizer):
    prompt, _ = load_row(row, tiny_tokenizer)
    assert prompt.text == text
    assert prompt.token_ids == tuple(tiny.byte_id(c) for c in text)
    assert prompt.columns == columns
    assert prompt.messages == ()


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": [USER]},
        {"messages": [USER, ANSWER]},
        {"messages": [USER, ANSWER, {"role": "assistant", "content": "Really."}]},
        {"messages": [USER]},
        {"conversations": [{"from": "human", "value": "2+2?"}, {"from": "gpt", "value": "4"}]},
        {"conversations": [USER, ANSWER]},
        {"prompt": [USER], "chosen": [ANSWER], "rejected": [OTHER]},
        {"chosen": [USER, ANSWER], "rejected": [USER, OTHER], "margin": 1.0},
        {"chosen": [USER, ANSWER], "rejected": [USER, ANSWER]},
    ],
)
def test_conversations_are_rendered_open_for_the_assistant(row, chat_tokenizer):
    prompt, _ = load_row(row, chat_tokenizer)
    assert prompt.text == RENDERED
    assert prompt.messages == (USER,)
    assert chat_tokenizer.decode(list(prompt.token_ids)) == RENDERED
    assert prompt.token_ids[0] == tiny.IM_START_ID


def test_an_earlier_assistant_turn_stays(chat_tokenizer):
    talk = [USER, ANSWER, {"role": "user", "content": "And 3+3?"}, {"role": "assistant", "content": "6"}]
    prompt, _ = load_row({"messages": talk}, chat_tokenizer)
    assert prompt.messages == tuple(talk[:3])


def test_a_prompt_that_ends_within_an_assistant_turn_is_gone_on_with(chat_tokenizer):
    prompt, _ = load_row({"prompt": [USER, {"role": "assistant", "content": "It is"}]}, chat_tokenizer)
    assert prompt.text == RENDERED + "It is"


def test_roles_of_sharegpt_are_translated(chat_tokenizer):
    talk = [
        {"from": "system", "value": "Be brief."},
        {"from": "human", "value": "2+2?"},
        {"from": "gpt", "value": "4"},
    ]
    prompt, report = load_row({"conversations": talk}, chat_tokenizer)
    assert prompt.messages == ({"role": "system", "content": "Be brief."}, USER)
    assert report.prompt_column == "conversations"


def test_a_verl_row_keeps_what_its_rewards_need(chat_tokenizer):
    rest = {"data_source": "openai/gsm8k", "ability": "math", "extra_info": {"index": 0},
            "reward_model": {"style": "rule", "ground_truth": "4"}}  # fmt: skip
    prompt, report = load_row({"prompt": [USER], **rest}, chat_tokenizer)
    assert prompt.text == RENDERED
    assert prompt.columns == rest
    assert "verl" in report.format


@pytest.mark.parametrize(
    ("chosen", "rejected", "text"),
    [
        (HH + " It is 4.", HH + " No idea.", HH),
        (HH + " It is 4.", HH + " It is 5.", HH),  # answers that begin alike
        (HH + " 4", HH + " 4", HH),
        ("Q: 2+2? A: The sum is 4", "Q: 2+2? A: That is 5", "Q: 2+2? A:"),  # no half word "Th"
        ("Q: 2+2? A: 4", "Q: 2+2? A: 5", "Q: 2+2? A:"),
        ("Q\nyes!", "Q\nno", "Q\n"),
    ],
)
def test_the_prompt_of_a_text_preference_is_what_both_begin_with(chosen, rejected, text, tiny_tokenizer):
    row = {"chosen": chosen, "rejected": rejected}
    prompt, report = load_row(row, tiny_tokenizer)
    assert prompt.text == text
    assert prompt.columns == row
    assert "preference" in report.format


def test_the_input_of_an_alpaca_row_stands_under_its_instruction(tiny_tokenizer):
    rows = [
        {"instruction": "Add.", "input": "2, 2", "output": "4"},
        {"instruction": "Sing.", "input": "", "output": ""},
    ]
    found = load_prompts(rows, tiny_tokenizer)
    assert [p.text for p in found.prompts] == ["Add.\n\n2, 2", "Sing."]
    assert found.prompts[0].columns == rows[0]


def test_ids_are_taken_as_they_are_and_beat_the_text_they_were_made_from(tiny_tokenizer):
    ids = [tiny.EOS_ID, tiny.byte_id("a"), tiny.EOS_ID]
    prompt, _ = load_row({"input_ids": ids, "query": "a", "text": "a b"}, tiny_tokenizer)
    assert prompt.token_ids == tuple(ids)
    assert prompt.text == "<|eos|>a<|eos|>"
    assert prompt.columns == {"query": "a", "text": "a b"}


@pytest.mark.parametrize("bad", [-1, tiny.VOCAB_SIZE])
def test_ids_outside_the_vocabulary_are_refused(bad, tiny_tokenizer):
    rows = [{"input_ids": [7]}, {"input_ids": [7, bad]}]
    with pytest.raises(ValueError, match=rf"row 2 of the list: token id {bad} at position 1 .*0 to 261"):
        load_prompts(rows, tiny_tokenizer)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"query": "a", "question": "b"}, ["several columns", "'query', 'question'", "prompt_column='query'"]),
        ({"prompt": "a", "messages": [USER]}, ["several columns", "'messages', 'prompt'"]),
        ({"prompt": "a", "chosen": [USER, ANSWER], "rejected": [USER, OTHER]}, ["'chosen', 'prompt'"]),
        ({"instruction": "a", "output": "b", "question": "c"}, ["'instruction', 'question'"]),
        ({"title": "a", "body": "b"}, ["no column is recognised", "'title' (text), 'body' (text)", "prompt_column"]),
        ({"prompt": 3.5, "score": True}, ["no column is recognised", "'prompt' (a number), 'score' (true or false)"]),
    ],
)
def test_what_cannot_be_decided_is_an_error_that_lists_the_columns(row, words, chat_tokenizer):
    with pytest.raises(ValueError, match="prompt_column") as error:
        load_prompts([row], chat_tokenizer)
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize(
    ("column", "text"),
    [("query", "a"), ("question", "b"), ("messages", RENDERED), ("chosen", "Q"), ("ids", "<|eos|>")],
)
def test_prompt_column_decides(column, text, chat_tokenizer):
    row = {"query": "a", "question": "b", "messages": [USER, ANSWER], "chosen": "Q x", "rejected": "Q y", "ids": [2]}
    assert load_row(row, chat_tokenizer, prompt_column=column)[0].text == text


def test_a_misspelt_prompt_column_is_named_with_the_nearest(tiny_tokenizer):
    with pytest.raises(
        ValueError, match="'qestion' is not among the columns 'question', 'n'; did you mean 'question'"
    ):
        load_prompts([{"question": "a", "n": 1}], tiny_tokenizer, prompt_column="qestion")
    with pytest.raises(ValueError, match="prompt_column='n' holds a number"):
        load_prompts([{"question": "a", "n": 1}], tiny_tokenizer, prompt_column="n")


@pytest.mark.parametrize(
    ("good", "bad", "reason"),
    [
        ({"prompt": "a"}, {"promt": "b"}, "no column 'prompt'; this row has 'promt'"),
        ({"prompt": "a"}, {"prompt": 5}, "'prompt' must be a text, found 5"),
        ({"prompt": [USER]}, {"prompt": "b"}, "must be a list of messages"),
        ({"prompt": [USER]}, {"prompt": ["b"]}, "message 1 of 'prompt' must be an object"),
        ({"prompt": [USER]}, {"prompt": [USER, {"role": "user"}]}, "message 2 of 'prompt' needs a role and a content"),
        ({"prompt": [USER]}, {"prompt": [{"role": "user", "content": None}]}, "must have a text as its content"),
        ({"conversations": [{"from": "human", "value": "a"}]}, {"conversations": [{"from": "cat", "value": "a"}]},
         "is from 'cat'; known are human"),
        ({"input_ids": [7]}, {"input_ids": [7, 1.5]}, "token ids must be a list of whole numbers"),
        ({"prompt": "a"}, {"prompt": "b\ud800"}, "character 2 is '\\ud800', half of a character"),
    ],
)  # fmt: skip
def test_a_malformed_row_is_named_by_its_number(good, bad, reason, chat_tokenizer):
    with pytest.raises(ValueError, match="row 3 of the list: ") as error:
        load_prompts([good, good, bad], chat_tokenizer)
    assert reason in str(error.value)


def test_a_conversation_without_a_chat_template_is_an_error_with_advice(tiny_tokenizer):
    with pytest.raises(ValueError, match="the tokenizer has no chat template: give chat_template"):
        load_prompts([{"prompt": [USER]}], tiny_tokenizer)


def test_the_chat_template_can_be_given_as_a_file_or_as_text(tmp_path, tiny_tokenizer):
    template = "{% for m in messages %}[{{ m['content'] }}]{% endfor %}{% if add_generation_prompt %}>{% endif %}"
    file = tmp_path / "chat.jinja"
    file.write_text(template)
    for given in (template, file, str(file)):
        assert load_row({"prompt": [USER]}, tiny_tokenizer, chat_template=given)[0].text == "[2+2?]>"
    assert tiny_tokenizer.chat_template is None
    with pytest.raises(ValueError, match="no such file"):
        load_row({"prompt": [USER]}, tiny_tokenizer, chat_template=tmp_path / "none.jinja")


def test_what_a_chat_template_refuses_is_said_with_the_row(tiny_tokenizer):
    refuses = "{{ raise_exception('roles must alternate') }}"
    with pytest.raises(ValueError, match=r"row 1 of the list: the chat template refuses .* roles must alternate"):
        load_prompts([{"prompt": [USER]}], tiny_tokenizer, chat_template=refuses)


def test_keys_that_a_table_filled_up_with_none_are_not_shown_to_the_template(tiny_tokenizer):
    template = "{% for m in messages %}{{ 'tools' if 'tool_calls' in m else m['content'] }}{% endfor %}"
    row = {"prompt": [{"role": "user", "content": "Hi", "tool_calls": None}]}
    prompt, _ = load_row(row, tiny_tokenizer, chat_template=template)
    assert prompt.text == "Hi"
    assert prompt.messages == ({"role": "user", "content": "Hi"},)


def test_a_prompt_template_frames_the_prompt_with_other_columns(tiny_tokenizer):
    row = {"question": "2+2?", "level": 3, "my note": None}
    template = "{{{level:02d}}} Q: {prompt}{my note} A:"
    assert load_row(row, tiny_tokenizer, prompt_template=template)[0].text == "{03} Q: 2+2? A:"


def test_a_prompt_template_of_columns_needs_no_prompt_column(tiny_tokenizer):
    rows = [{"title": "Ants", "body": "They walk."}, {"title": "", "body": " "}]
    found = load_prompts(rows, tiny_tokenizer, prompt_template="{title} {body}")
    assert [p.text for p in found.prompts] == ["Ants They walk."]
    assert found.prompts[0].columns == rows[0]
    assert found.report.empty.count == 1


@pytest.mark.parametrize(
    ("template", "reason"),
    [("{promt}", r"names {promt}; there are {prompt} and the columns"), ("Hi {", "prompt_template='Hi {'"),
     ("Hi", "no {prompt} in it"), ("{}", r"names {}")],
)  # fmt: skip
def test_a_prompt_template_that_cannot_work_is_refused(template, reason, tiny_tokenizer):
    with pytest.raises(ValueError, match="prompt_template") as error:
        load_prompts([{"prompt": "a", "n": 1}], tiny_tokenizer, prompt_template=template)
    assert reason in str(error.value)


def test_a_prompt_template_on_conversations_is_refused(chat_tokenizer):
    with pytest.raises(ValueError, match="plain-text prompts"):
        load_prompts([{"prompt": [USER]}], chat_tokenizer, prompt_template="Q: {prompt}")
