"""Broken rewards stop the run with the sample shown; nothing is replaced."""

import asyncio
import math

import pytest
import torch

from surefoot.rewards import FunctionReward, RewardError, make_reward
from surefoot.rewards.failure import shown
from surefoot.types import Completion, Prompt

PROMPTS = [Prompt(f"question {i}", (1,), index=40 + i) for i in range(3)]
ANSWERS = [Completion(f"reply\n{i}\x1b[31m", (1,), (0.0,), "stop") for i in range(3)]


@pytest.mark.parametrize(("values", "reason", "row"), [
    ([1.0, 2.0], "2 scores for 3 answers", 40), ([1.0] * 4, "4 scores for 3 answers", 40), ([], "0 scores", 40),
    ([1.0, math.nan, 2.0], "nan, which is not a finite", 41), ([1.0, 2.0, math.inf], "inf, which is not", 42),
    ([1.0, -math.inf, 0.0], "-inf", 41), (torch.tensor([0.0, 1.0, math.nan]), "nan", 42), ([0, "0.5", 1], "str", 41),
    ("1.0", "returned str", 40), (None, "returned NoneType", 40), (0.5, "returned float", 40),
    ({"a": [1, 2, 3]}, "returned dict", 40), ([1.0, 1e39, 2.0], "float32 cannot hold", 41),
    ([10**400, 0, 0], "too large for a float", 40), ([0, [1, 2], 0], "a number is needed", 41),
    ([0, 1j, 0], "complex", 41), ([{"score": 1}, {"value": 2}, {"score": 1}], "a dict without 'score'", 41),
    ([{"label": "POSITIVE", "score": 0.9}] * 3, "score belongs to whichever label won", 40),
    (torch.zeros(3, 2), "a number is needed", 40), (torch.tensor(1.0), "returned float", 40),
])  # fmt: skip
def test_a_batch_that_is_no_list_of_finite_numbers_is_refused(values, reason, row):
    with pytest.raises(RewardError, match=reason) as caught:
        FunctionReward(lambda texts: values, name="mine")(PROMPTS, ANSWERS)
    text = str(caught.value)
    assert caught.value.reward == "mine"
    assert caught.value.row == row
    assert f"reward 'mine' at row {row}" in text
    assert f'"question {row - 40}"' in text
    assert f'"reply\\n{row - 40}\\x1b[31m"' in text
    assert "\x1b" not in text


def test_an_exception_is_chained_and_names_its_row():
    def f(text):
        return 1 / (0 if "1" in text.split("\x1b")[0] else 1)

    with pytest.raises(RewardError, match=r"row 41: raised ZeroDivisionError: division by zero") as caught:
        FunctionReward(f)(PROMPTS, ANSWERS)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_an_exception_in_an_async_function_names_its_row_too():
    async def f(completion):
        await asyncio.sleep(0)
        raise KeyError("gone") if "2" in completion else OSError("down")

    with pytest.raises(RewardError, match=r"row 40: raised OSError: down") as caught:
        FunctionReward(f)(PROMPTS, ANSWERS)
    assert isinstance(caught.value.__cause__, OSError)


def test_an_exception_of_a_whole_batch_is_chained():
    def f(completions, **kwargs):
        raise RuntimeError("no grader")

    with pytest.raises(RewardError, match=r"raised RuntimeError: no grader .called once for 3 answers") as caught:
        FunctionReward(f)(PROMPTS, ANSWERS)
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_an_interrupt_is_not_turned_into_a_reward_error():
    def f(text):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        FunctionReward(f)(PROMPTS, ANSWERS)


@pytest.mark.parametrize("function", [
    lambda solution_str, ground_truth: 0, lambda completions, ground_truth, **kw: [0], lambda completion, parser: 0,
])  # fmt: skip
def test_a_column_that_no_row_has_is_named_instead_of_invented(function):
    with pytest.raises(RewardError, match=r"asks for (ground_truth|parser).*columns are none"):
        FunctionReward(function)(PROMPTS, ANSWERS)


def test_completion_ids_of_bare_texts_are_not_invented():
    with pytest.raises(RewardError, match="given as text only"):
        FunctionReward(lambda completion_ids, **kw: [0])(PROMPTS[:1], ["text"])


def test_none_for_every_answer_is_an_error_of_the_mix():
    with pytest.raises(RewardError, match="no reward has a score for this answer") as caught:
        make_reward([lambda text: None, lambda texts: [None, 1.0, 1.0]])(PROMPTS, ANSWERS)
    assert caught.value.row == 40


def test_counts_of_prompts_and_answers_must_agree():
    with pytest.raises(ValueError, match="3 prompts but 2 completions"):
        FunctionReward(len)(PROMPTS, ANSWERS[:2])
    with pytest.raises(ValueError, match="no answers"):
        FunctionReward(len)([], [])


def test_long_texts_are_shortened_to_both_ends():
    text = shown("a" * 1000 + "z" * 1000)
    assert len(text) < 300
    assert text.startswith('"aaa')
    assert text.endswith('zzz"')
    assert "1760 characters" in text


def test_text_of_any_language_stays_readable_while_controls_are_escaped():
    assert shown("schön 你好\u202e\x00") == '"schön 你好\\u202e\\x00"'


def test_completion_ids_that_nobody_asked_for_by_name_do_not_stop_bare_texts():
    assert list(FunctionReward(lambda completions, **kw: [len(kw)])(PROMPTS[:1], ["text"]).scores) == [4.0]
