"""The number of votes: the exact test then has the power that was asked for."""

import math

import pytest
import scipy.stats

from surefoot.evaluate.ratings.plan import detectable_win_rate, duration, plan_votes


def exact_power(win_rate, n, alpha=0.05):
    """Of the exact two-sided sign test, from SciPy's binomial distribution."""
    k = range(n + 1)
    fair = scipy.stats.binom(n, 0.5)
    least = min((i for i in k if i > n / 2 and 2 * fair.sf(i - 1) <= alpha), default=n + 1)
    true = scipy.stats.binom(n, win_rate)
    return true.sf(least - 1) + true.cdf(n - least)


@pytest.mark.parametrize("power", [0.7, 0.8, 0.9])
@pytest.mark.parametrize("win_rate", [0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.3])
def test_the_exact_test_has_the_power_that_was_asked_for(win_rate, power):
    n = plan_votes(win_rate, power=power).decided
    assert exact_power(win_rate, n) == pytest.approx(power, abs=0.03 if n > 80 else 0.055)  # n is whole: it jumps


@pytest.mark.parametrize(("win_rate", "least"), [(0.55, 786), (0.6, 199), (0.65, 90), (0.7, 49), (0.75, 33)])
def test_it_is_near_the_least_number_that_an_exact_search_finds(win_rate, least):
    assert least - 2 <= plan_votes(win_rate).decided <= least * 1.05 + 2


def test_a_rate_below_one_half_takes_as_many_votes_as_its_mirror():
    assert plan_votes(0.4).decided == plan_votes(0.6).decided


def test_undecided_votes_are_added_and_time_is_reckoned():
    plan = plan_votes(0.65, undecided=0.5, seconds_a_vote=10)
    assert plan.votes == 2 * plan.decided
    assert plan.seconds == 10 * plan.votes


def test_what_so_many_votes_can_show_is_the_way_back():
    for n in (20, 50, 200, 1000):
        rate = detectable_win_rate(n)
        assert plan_votes(rate + 1e-9).decided <= n < plan_votes(rate - 0.01).decided
    assert detectable_win_rate(50) == pytest.approx(0.70, abs=0.01)
    assert detectable_win_rate(1) == 1.0


def test_the_plan_in_words():
    text = plan_votes(0.6, undecided=0.1, seconds_a_vote=37).text()
    plan = plan_votes(0.6)
    assert "60 %" in text
    assert f"takes {plan.decided} votes with a preference" in text
    assert f"{math.ceil(plan.decided / 0.9)} votes, about 2 h" in text


def test_durations_are_in_a_persons_units():
    assert [duration(s) for s in (5, 600, 3600, 7500)] == ["1 min", "10 min", "1 h 0 min", "2 h 5 min"]


@pytest.mark.parametrize(
    "more", [{"win_rate": 0.5}, {"win_rate": 1.0}, {"power": 0.4}, {"alpha": 0.0}, {"undecided": 1.0}]
)
def test_what_cannot_be_planned_is_refused_by_name(more):
    with pytest.raises(ValueError, match=f"{next(iter(more))} is {next(iter(more.values()))}"):
        plan_votes(**{"win_rate": 0.6} | more)


def test_no_votes_can_show_nothing():
    with pytest.raises(ValueError, match="decided is 0"):
        detectable_win_rate(0)
