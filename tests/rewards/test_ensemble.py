"""Several rewards as one, and a score beside a reference's, by hand."""

import math

import pytest

from surefoot.rewards import RewardMix, make_reward
from surefoot.rewards.ensemble import shaped, together
from surefoot.types import Prompt

PROMPTS = [Prompt("p", (1,)), Prompt("q", (1,))]


def test_sum_mean_and_worst_case_are_what_they_say():
    assert together([1.0, 2.0, 6.0], "sum") == 9.0
    assert together([1.0, 2.0, 6.0], "mean") == 3.0
    assert together([1.0, 2.0, 6.0], "min") == 1.0


def test_uncertainty_takes_the_variance_off_the_mean():
    """Of 1, 2, 6 the mean is 3 and the mean squared distance from it (4 + 1 + 9) / 3."""
    assert together([1.0, 2.0, 6.0], "uncertainty", 0.3) == pytest.approx(3 - 0.3 * 14 / 3)
    assert together([1.0, 2.0, 6.0], "uncertainty", 0.0) == 3.0
    assert together([5.0], "uncertainty", 9.0) == 5.0


@pytest.mark.parametrize("ensemble", ["sum", "mean", "min", "uncertainty"])
def test_what_is_not_finite_stays_so(ensemble):
    for bad in (math.nan, math.inf):
        assert not math.isfinite(together([1.0, bad], ensemble, 0.5))


def test_scores_too_large_for_their_squares_are_no_crash():
    assert together([1e200, -1e200], "uncertainty", 0.5) == -math.inf


def test_a_centred_score_is_the_distance_and_a_sigmoid_the_chance_of_being_preferred():
    assert shaped(2.0, 0.5, "none") == 2.0
    assert shaped(2.0, 0.5, "center") == 1.5
    assert shaped(2.0, 2.0, "sigmoid") == 0.5
    assert shaped(2.0 + math.log(3), 2.0, "sigmoid") == pytest.approx(0.75)  # odds of three to one
    assert shaped(2.0 - math.log(3), 2.0, "sigmoid") == pytest.approx(0.25)
    assert (shaped(1e9, 0.0, "sigmoid"), shaped(-1e9, 0.0, "sigmoid")) == (1.0, 0.0)


def lengths(completions, **_):
    return [float(len(c)) for c in completions]


def first_only(completions, **_):
    return [1.0, None]


def test_a_mix_puts_the_weighted_scores_together_and_leaves_out_who_says_nothing():
    def scores(ensemble, coefficient=0.0):
        mix = make_reward([lengths, first_only], (2.0, 4.0), ensemble=ensemble, uncertainty_coef=coefficient)
        found = mix(PROMPTS, ["abc", "abcde"])
        assert found.parts == {"lengths": [3.0, 5.0], "first_only": [1.0, None]}
        return found.scores

    assert scores("sum") == [10.0, 10.0]
    assert scores("mean") == [5.0, 10.0]
    assert scores("min") == [4.0, 10.0]
    assert scores("uncertainty", 0.5) == [5.0 - 0.5 * 1.0, 10.0]


def test_an_ensemble_of_one_and_an_unknown_one_are_refused():
    with pytest.raises(ValueError, match="reward_ensemble='min' needs several rewards"):
        make_reward(lengths, ensemble="min")
    with pytest.raises(ValueError, match="ensemble='median' is none of sum, mean, min, uncertainty"):
        RewardMix(list(make_reward([lengths, first_only]).rewards.values()), ensemble="median")
    with pytest.raises(ValueError, match="leave reward_ensemble out"):
        make_reward(make_reward([lengths, first_only]), ensemble="mean")
