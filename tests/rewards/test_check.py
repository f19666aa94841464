"""What reward-test reports."""

import pytest
import torch
from fake_service import Service, honest, ok
from tiny import tiny_tokenizer
from tiny_classifier import classifier, prompts, said

from surefoot.rewards import ModelReward, RewardError
from surefoot.rewards.check import answer_column, answers_from_columns, check_reward
from surefoot.types import Prompt

ANSWERS = said("a", "bb", "cccc")


def test_the_spread_is_reported():
    check = check_reward([len, lambda texts: [None, None, 5.0]], prompts(n=3), ANSWERS, (1.0, 2.0))
    first, second = check.rewards
    assert (first.name, first.n, first.min, first.max, first.none_share) == ("len", 3, 1.0, 4.0, 0.0)
    assert first.mean == pytest.approx(7 / 3)
    assert first.std == pytest.approx((14 / 9) ** 0.5)
    assert first.milliseconds >= 0
    assert second.none_share == pytest.approx(2 / 3)
    assert check.scores == [1.0, 2.0, 14.0]


def test_a_healthy_function_has_no_warnings():
    assert check_reward(len, prompts(n=3), ANSWERS).warnings == []


def test_a_constant_is_reported():
    assert "every answer gets 1" in check_reward(lambda text: 1, prompts(n=3), ANSWERS).warnings[0]


def test_scores_that_depend_on_the_order_are_reported():
    (warning,) = check_reward(lambda texts: list(range(len(texts))), prompts(n=3), ANSWERS).warnings
    assert "reversed" in warning


def test_a_model_squashed_into_zero_to_one_is_reported():
    model = classifier()
    torch.nn.init.normal_(model.score.weight, std=1e-3)
    model.score.register_forward_hook(lambda module, args, out: out.sigmoid())
    warnings = check_reward(ModelReward(model, tiny_tokenizer(), name="rm"), prompts(n=3), ANSWERS).warnings
    assert any("within 0 and 1" in w for w in warnings)


def test_truncation_and_a_missing_template_are_reported():
    reward = ModelReward(classifier(), tiny_tokenizer(), name="rm", max_length=4)
    warnings = check_reward(reward, prompts("hello", 3, chat=True), ANSWERS).warnings
    assert any("100% of the inputs are too long" in w for w in warnings)
    assert any("no chat template" in w for w in warnings)


def test_a_service_is_tried_like_any_reward_and_conversations_without_its_template_are_reported():
    with Service(honest) as service:
        reward = f"openrlhf+{service.url}#name=far"
        assert check_reward(reward, prompts(n=3), ANSWERS).warnings == []
        (warning,) = check_reward(reward, prompts("hello", 3, chat=True), ANSWERS).warnings
        assert "far: conversations go to it as the policy's chat template writes them" in warning
    assert service.requests[1].body["query"] == [f"Q: {a}" for a in reversed(ANSWERS)]
    with Service(lambda r: ok({"rewards": [0.1 * len(t) % 1 for t in r.body["query"]]})) as service:
        (warning,) = check_reward(f"openrlhf+{service.url}", prompts(n=3), ANSWERS).warnings
        assert "within 0 and 1" in warning


def test_a_doubled_bos_is_reported():
    (warning,) = check_reward(len, [Prompt("<s><s>hi", (1,))] * 2, said("a", "bb")).warnings
    assert "2 of 2 inputs begin with the same special token twice" in warning


def test_what_would_stop_a_run_stops_the_check():
    with pytest.raises(RewardError, match="no reward has a score"):
        check_reward(lambda text: None, prompts(n=3), ANSWERS)


@pytest.mark.parametrize(("columns", "name", "answer"), [
    ({"completion": "c", "answer": "a"}, "completion", "c"), ({"answer": "a", "chosen": "d"}, "answer", "a"),
    ({"chosen": "Q: d"}, "chosen", "d"), ({"chosen": [{"role": "assistant", "content": "m"}]}, "chosen", "m"),
    ({"other": "o"}, None, "Q: "),
])  # fmt: skip
def test_answers_come_from_the_first_column_that_has_them_or_are_the_prompts(columns, name, answer):
    rows = [Prompt("Q: ", (1,), columns=columns)] * 2
    assert answer_column(rows) == name
    assert answers_from_columns(rows) == [answer, answer]
