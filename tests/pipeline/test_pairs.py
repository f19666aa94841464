"""The stand-in rater: probabilities by hand, and choices that occur as often as they should."""

import math
import random

import pytest

from surefoot.pipeline.options import RateOptions
from surefoot.pipeline.pairs import choose, preference
from surefoot.pipeline.rate import rated
from surefoot.types import Completion, Prompt


@pytest.mark.parametrize(
    ("first", "second", "noise", "expected"),
    [
        (math.log(3), 0.0, 1.0, 0.75),  # odds of 3 to 1
        (0.0, math.log(3), 1.0, 0.25),
        (2 * math.log(3), 0.0, 2.0, 0.75),  # twice the difference under twice the noise
        (5.0, 5.0, 1.0, 0.5),
        (1.0, 0.0, 0.0, 1.0),  # no noise: the better one
        (0.0, 1.0, 0.0, 0.0),
        (1.0, 1.0, 0.0, 0.5),
        (1e6, -1e6, 1.0, 1.0),
        (-1e6, 1e6, 1.0, 0.0),
    ],
)
def test_the_better_answer_is_preferred_with_the_odds_of_bradley_and_terry(first, second, noise, expected):
    assert preference(first, second, noise) == pytest.approx(expected)


def test_choices_occur_as_often_as_their_probability_says():
    drawn = random.Random(0)
    chosen = [choose(math.log(3), 0.0, 1.0, drawn.random()) for _ in range(20_000)]
    assert sum(c.first for c in chosen) / len(chosen) == pytest.approx(0.75, abs=0.01)
    assert {round(c.probability, 6) for c in chosen if c.first} == {0.75}
    assert {round(c.probability, 6) for c in chosen if not c.first} == {0.25}


def said(text):
    return Completion(text, (1,), (0.0,), "stop")


def test_answers_become_pairs_with_everything_that_says_they_are_no_persons_choice():
    options = RateOptions(rater=("judge.py:f",), rater_noise=0.0)
    prompts = [Prompt(f"<s>Q{i // 2}", (1,)) for i in range(2, 8)]
    answers = [said(" good"), said(" bad"), said(" same"), said(" same"), said(" one"), said(" two")]
    rows, equal = rated(options, prompts, answers, [1.0, -1.0, 0.5, 0.5, 0.0, 0.0], ["<s>"])
    assert equal == 2  # the same answer twice, and two that the rater finds as good as each other
    assert rows == [
        {"prompt": "Q1", "chosen": " good", "rejected": " bad", "chosen_score": 1.0, "rejected_score": -1.0,
         "probability": 1.0, "rater": "stand-in: judge.py:f"}
    ]  # fmt: skip


def test_a_conversation_stays_one():
    asked = ({"role": "user", "content": "Hi"},)
    prompts = [Prompt("<s>Hi", (1,), asked)] * 2
    rows, _ = rated(RateOptions(rater=("f",), rater_noise=0.0), prompts, [said("no"), said("yes")], [0.0, 1.0], [])
    assert rows[0]["prompt"] == [{"role": "user", "content": "Hi"}]
    assert rows[0]["chosen"] == [{"role": "assistant", "content": "yes"}]
    assert rows[0]["rejected"] == [{"role": "assistant", "content": "no"}]


def test_the_choices_depend_on_the_seed_and_on_nothing_else():
    prompts = [Prompt(f"Q{i // 2}", (1,)) for i in range(200)]
    answers = [said(f" {i}") for i in range(200)]
    scores = [0.01 * (i % 2) for i in range(200)]

    def chosen(seed):
        rows, _ = rated(RateOptions(rater=("f",), seed=seed), prompts, answers, scores, [])
        return [row["chosen"] for row in rows]

    assert chosen(0) == chosen(0) != chosen(1)
