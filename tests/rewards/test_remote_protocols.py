"""Every protocol over a real socket: what is sent, and what is read from replies in the shape that servers give."""

import pytest
from fake_service import Service, honest, ok, score_of
from tiny import tiny_tokenizer
from tiny_classifier import classifier, prompts, said

from surefoot.rewards import ModelReward, RemoteReward, RewardError, make_reward
from surefoot.types import Prompt

ANSWERS = said("yes", "no", "perhaps")
TEXTS = ["Q: yes", "Q: no", "Q: perhaps"]
SCORES = [score_of(text) for text in TEXTS]
USAGE = {"prompt_tokens": 9, "total_tokens": 9, "completion_tokens": 0, "prompt_tokens_details": None}


def asked(protocol, behave, path="", rows=None, answers=ANSWERS, **options):
    """The output for three answers and the requests that came."""
    with Service(behave) as service:
        reward = RemoteReward(f"{protocol}+{service.url}{path}", **({"deadline": 5.0} | options))
        return reward(rows or prompts(n=3), answers), service.requests


def test_openrlhf_sends_texts_prompts_and_labels_and_reads_rewards_and_logs():
    def behave(request):
        scores = [score_of(text) for text in request.body["query"]]
        return ok({"rewards": scores, "scores": [0.0] * 3, "extra_logs": {"length": [1, 2, 6], "note": "x"}})

    rows = [Prompt("Q: ", (1,), (), {"label": f"l{i}"}, i) for i in range(2)]
    rows.append(Prompt("Q: ", (1,), (), {"reward_model": {"ground_truth": 7}}, 2))
    output, (request,) = asked("openrlhf", behave, rows=rows)
    assert output.scores == SCORES
    assert output.metrics == {"length": 3.0, "retries": 0.0}
    assert request.path == "/get_reward"
    assert request.body == {"query": TEXTS, "prompts": ["Q: "] * 3, "labels": ["l0", "l1", 7]}
    assert request.headers["content-type"] == "application/json"
    assert "authorization" not in request.headers


def test_llamafactory_sends_texts_as_messages():
    output, (request,) = asked(
        "llamafactory",
        lambda r: ok({"id": "scoreeval-1", "object": "score.evaluation", "model": "rm",
                      "scores": [score_of(t) for t in r.body["messages"]]}), model="rm",
    )  # fmt: skip
    assert output.scores == SCORES
    assert request.path == "/v1/score/evaluation"
    assert request.body == {"model": "rm", "messages": TEXTS}


def vllm(request):
    data = [{"index": i, "label": "LABEL_0", "probs": [score_of(t)], "num_classes": 1}
            for i, t in enumerate(request.body["input"])]  # fmt: skip
    return ok({"id": "classify-1", "object": "list", "created": 1, "model": "rm", "data": data, "usage": USAGE})


def test_vllm_classify_asks_for_raw_scores():
    output, (request,) = asked("vllm", vllm)
    assert output.scores == SCORES
    assert request.path == "/classify"
    assert request.body == {"input": TEXTS, "use_activation": False}


def test_vllm_is_told_not_to_add_special_tokens_to_what_a_template_wrote():
    rows = [prompts(n=1)[0], *prompts(n=2, chat=True)]
    output, requests = asked("vllm", vllm, rows=rows, model="org/rm")
    assert output.scores == SCORES
    bodies = sorted((request.body for request in requests), key=lambda body: len(body["input"]))
    assert bodies == [
        {"model": "org/rm", "input": TEXTS[:1], "use_activation": False},
        {"model": "org/rm", "input": TEXTS[1:], "use_activation": False, "add_special_tokens": False},
    ]


@pytest.mark.parametrize("shape", [lambda s: [s], lambda s: [[9.0], [8.0], [s]]], ids=["sequence", "token"])
def test_vllm_pooling_reads_the_score_of_a_sequence_or_of_its_last_token(shape):
    def behave(request):
        data = [{"index": i, "object": "pooling", "data": shape(score_of(t))}
                for i, t in enumerate(request.body["input"])]  # fmt: skip
        return ok({"id": "pool-1", "object": "list", "created": 1, "model": "rm", "data": data, "usage": USAGE})

    output, (request,) = asked("vllm-pooling", behave)
    assert output.scores == SCORES
    assert request.path == "/pooling"
    assert request.body == {"input": TEXTS, "use_activation": False}


def test_sglang_embeddings_are_put_in_order_by_their_index():
    def behave(request):
        data = [{"object": "embedding", "embedding": [score_of(t)], "index": i}
                for i, t in enumerate(request.body["input"])]  # fmt: skip
        return ok({"object": "list", "data": data[::-1], "model": "rm", "usage": USAGE})

    output, (request,) = asked("sglang", behave, model="rm")
    assert output.scores == SCORES
    assert (request.path, request.body) == ("/v1/embeddings", {"model": "rm", "input": TEXTS})


def test_sglang_classify_reads_its_native_list():
    output, (request,) = asked(
        "sglang-classify",
        lambda r: ok([{"embedding": [score_of(t)], "meta_info": {"id": "1"}} for t in r.body["text"]]),
    )
    assert output.scores == SCORES
    assert (request.path, request.body) == ("/classify", {"text": TEXTS})


def test_tei_asks_for_raw_scores_and_cuts_long_inputs_at_the_left():
    output, (request,) = asked(
        "tei", lambda r: ok([[{"score": score_of(text), "label": "LABEL_0"}] for (text,) in r.body["inputs"]])
    )
    assert output.scores == SCORES
    assert request.path == "/predict"
    assert request.body == {
        "inputs": [[text] for text in TEXTS],
        "raw_scores": True, "truncate": True, "truncation_direction": "Left",
    }  # fmt: skip


def chat(text):
    return ok({"id": "c", "object": "chat.completion", "created": 1, "model": "judge", "usage": USAGE,
               "choices": [{"index": 0, "finish_reason": "stop",
                            "message": {"role": "assistant", "content": text}}]})  # fmt: skip


def test_a_judge_is_asked_for_one_answer_at_a_time_and_its_last_line_is_the_score(tmp_path):
    template = tmp_path / "judge.txt"
    template.write_text("Q={prompt}; A={response}; rate it")
    verdicts = {"yes": "Good.\nScore: 8", "{prompt}": "**score = -2.5**\n", "perhaps": "7"}

    def behave(request):
        answer = request.body["messages"][0]["content"].split("A=")[1].split(";")[0]
        return chat(verdicts[answer])

    answers = said("yes", "{prompt}", "perhaps")
    output, requests = asked("openai-judge", behave, answers=answers, model="judge", template=str(template))
    assert output.scores == [8.0, -2.5, 7.0]
    assert {request.path for request in requests} == {"/v1/chat/completions"}
    bodies = sorted((request.body for request in requests), key=str)
    assert bodies == sorted(({"model": "judge", "temperature": 0, "messages": [
        {"role": "user", "content": f"Q=Q: ; A={a}; rate it"}]} for a in answers), key=str)  # fmt: skip


def test_a_judge_reads_a_conversation_as_roles_and_contents_with_the_template_that_comes_along():
    messages = ({"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi"})
    rows = [Prompt("<rendered>", (1,), messages, index=0)]
    output, (request,) = asked("openai-judge", lambda r: chat("Score: 3"), rows=rows, answers=said("Hello"), model="j")
    assert output.scores == [3.0]
    (message,) = request.body["messages"]
    assert "system: Be kind.\n\nuser: Hi" in message["content"]
    assert "<answer>\nHello\n</answer>" in message["content"]
    assert "{prompt}" not in message["content"]


@pytest.mark.parametrize(("protocol", "reply", "reason"), [
    ("openrlhf", {"scores": [1, 2, 3]}, "has no 'rewards'; it has 'scores'"),
    ("openrlhf", [1, 2, 3], "is a list where an object is needed"),
    ("openrlhf", {"rewards": [1, 2]}, "has 2 entries in 'rewards' for 3 answers"),
    ("openrlhf", {"rewards": [1, 2, 3, 4]}, "has 4 entries in 'rewards' for 3 answers"),
    ("openrlhf", {"rewards": {"0": 1}}, "a dict in 'rewards' where a list"),
    ("openrlhf", {"rewards": [1, "2", 3]}, "where a number is needed"),
    ("openrlhf", {"rewards": [1, True, 3]}, "gives True where a number is needed"),
    ("openrlhf", {"rewards": [1, 1e39, 3]}, "float32 cannot hold"),
    ("openrlhf", {"rewards": [1, 2, 3], "extra_logs": [1]}, "extra_logs that are no object"),
    ("llamafactory", {"scores": 1.0}, "a float in 'scores'"),
    ("vllm", {"data": [{"index": 0, "probs": [0.1, 0.9]}]}, "2 numbers in 'probs'.* exactly one"),
    ("vllm", {"data": [{"index": 0, "probs": [1.0]}, {"index": 0, "probs": [1.0]}]}, "two entries with index 0"),
    ("vllm", {"data": [{"index": 3, "probs": [1.0]}]}, "index 3, but there are 3 answers"),
    ("vllm", {"data": [{"index": True, "probs": [1.0]}]}, "index True"),
    ("vllm", {"data": [{"probs": [1.0]}]}, "has no 'index'"),
    ("vllm", {"data": None}, "a NoneType in 'data'"),
    ("vllm-pooling", {"data": [{"index": 0, "data": "AACAPw=="}]}, "str in 'data'"),
    ("vllm-pooling", {"data": [{"index": 0, "data": []}]}, "0 numbers in 'data'"),
    ("sglang", {"data": [{"index": 0, "embedding": [0.1] * 8}]}, "8 numbers in 'embedding'"),
    ("sglang-classify", {"error": "no"}, "a dict in the reply where a list"),
    ("tei", [[{"label": "a", "score": 1.0}, {"label": "b", "score": 0.0}]] * 3, "several labels"),
    ("openai-judge", {"choices": []}, "has no choices"),
    ("openai-judge", {"choices": [{"message": {"content": [1]}}]}, "a list for content"),
])  # fmt: skip
def test_a_reply_that_breaks_its_protocol_stops_at_once(protocol, reply, reason):
    with Service(lambda request: ok(reply)) as service:
        reward = RemoteReward(f"{protocol}+{service.url}", model="m", deadline=20.0, concurrency=1)
        with pytest.raises(RewardError, match=reason) as caught:
            reward(prompts(n=3), ANSWERS)
    assert len(service.requests) == 1
    assert f"{service.url}{reward.wire.path}" in str(caught.value)


def test_a_score_that_is_no_number_is_shown_with_its_row():
    with pytest.raises(RewardError, match="at row 1") as caught:
        asked("openrlhf", lambda request: ok({"rewards": [1, "high", 3]}))
    assert caught.value.row == 1
    assert '"no"' in str(caught.value)


def test_many_answers_go_in_batches_and_come_back_in_their_order():
    answers = said(*(f"answer {i}" for i in range(50)))
    output, requests = asked("openrlhf", honest, rows=prompts(n=50), answers=answers, batch_size=8, concurrency=4)
    assert output.scores == [score_of(f"Q: {a}") for a in answers]
    assert sorted(len(request.body["query"]) for request in requests) == [2, 8, 8, 8, 8, 8, 8]


def test_no_more_requests_are_under_way_than_allowed():
    import threading

    under_way, most, lock, gate = [0], [0], threading.Lock(), threading.Barrier(3, timeout=5)

    def behave(request):
        with lock:
            under_way[0] += 1
            most[0] = max(most[0], under_way[0])
        gate.wait()  # opens for exactly three at a time
        with lock:
            under_way[0] -= 1
        return honest(request)

    output, _ = asked("openrlhf", behave, rows=prompts(n=12), answers=said(*"abcdefghijkl"), batch_size=1,
                      concurrency=3)  # fmt: skip
    assert output.scores == [score_of(f"Q: {a}") for a in "abcdefghijkl"]
    assert most == [3]


def test_the_policys_special_tokens_are_taken_off_plain_prompts():
    with Service(honest) as service:
        reward = make_reward(f"openrlhf+{service.url}#name=rm", special_tokens=["<s>", "</s>"])
        mixed = reward([Prompt("<s>Q: ", (1,))], said("yes"))
    assert service.requests[0].body["query"] == ["Q: yes"]
    assert mixed.parts == {"rm": [score_of("Q: yes")]}
    assert mixed.metrics["rewards/rm/retries"] == 0


def test_a_named_tokenizer_renders_conversations_as_the_local_model_would(tmp_path):
    tokenizer = tiny_tokenizer(bos=True, chat=True)
    tokenizer.save_pretrained(tmp_path)
    rows = prompts("Hi", 3, chat=True)
    local = ModelReward(classifier(), tokenizer, name="rm")
    expected = [local.render(p, a) for p, a in zip(rows, ANSWERS, strict=True)]
    assert expected[0].startswith("<|bos|>")
    _, (request,) = asked("openrlhf", honest, rows=rows, tokenizer=str(tmp_path))
    assert request.body["query"] == [text.removeprefix("<|bos|>") for text in expected]  # the service puts its own
    assert "messages" not in request.body
    _, (request,) = asked("vllm", vllm, rows=rows, tokenizer=str(tmp_path))
    assert request.body["input"] == expected
    assert request.body["add_special_tokens"] is False


def test_a_tokenizer_without_a_template_is_of_no_use_and_refused(tmp_path):
    tiny_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="has no chat template"):
        RemoteReward("tei+http://127.0.0.1:1", tokenizer=str(tmp_path))


def test_texts_of_any_language_arrive_as_they_are():
    answers = said("schön 你好 🎈", "\x00\x1b[31m", "a\u2028b")
    output, (request,) = asked("openrlhf", honest, answers=answers)
    assert request.body["query"] == [f"Q: {a}" for a in answers]
    assert output.scores == [score_of(f"Q: {a}") for a in answers]
