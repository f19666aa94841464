"""Wilson's interval and the exact coin test, against statsmodels, SciPy, and what is known of both."""

import math

import pytest
from ratings_golden import recorded

from surefoot.evaluate.ratings.proportions import Estimate, fair_coin_p, wilson


@pytest.mark.parametrize("case", recorded("wilson"), ids=lambda c: f"{c['successes']}-{c['count']}-{c['level']}")
def test_wilsons_interval_is_statsmodels(case):
    found = wilson(case["successes"], case["count"], case["level"])
    assert (found.low, found.high) == pytest.approx(tuple(case["interval"]), abs=1e-12)
    assert found.value == case["successes"] / case["count"]


def test_fifty_votes_cannot_show_a_win_rate_of_sixty_percent():
    assert wilson(30, 50).low < 0.5 < wilson(120, 200).low


def test_each_end_of_the_interval_is_a_share_that_a_score_test_just_rejects():
    found = wilson(62, 100)
    for p in (found.low, found.high):
        assert abs(0.62 - p) / math.sqrt(p * (1 - p) / 100) == pytest.approx(1.959964, abs=1e-6)


def test_of_no_votes_nothing_is_known():
    found = wilson(0, 0)
    assert math.isnan(found.value)
    assert found.percent() == found.number() == "unknown"


@pytest.mark.parametrize("case", recorded("fair_coin"), ids=lambda c: f"{c['heads']}-{c['count']}")
def test_the_coin_test_is_scipys(case):
    assert fair_coin_p(case["heads"], case["count"]) == pytest.approx(case["p"], rel=1e-9)


def test_the_coin_test_of_three_tosses_by_hand():
    assert [fair_coin_p(k, 3) for k in range(4)] == [0.25, 1.0, 1.0, 0.25]  # 2·(1/8), then 2·(4/8)


def test_an_estimate_reads_as_percent_or_as_a_number():
    assert Estimate(0.634, 0.54, 0.716, 104).percent() == "63 % (54 to 72 %)"
    assert Estimate(0.634, math.nan, math.nan, 1).percent() == "63 %"
    assert Estimate(0.413, 0.2, 0.6, 9).number() == "0.41 (0.20 to 0.60)"


def test_the_wider_interval_holds_both_and_an_unknown_one_adds_nothing():
    one, other = Estimate(0.5, 0.4, 0.6, 10), Estimate(0.5, 0.45, 0.7, 10)
    assert one.wider(other) == Estimate(0.5, 0.4, 0.7, 10)
    assert one.wider(Estimate(0.5, math.nan, math.nan, 10)) == one


@pytest.mark.parametrize("call", [wilson, fair_coin_p])
def test_more_successes_than_trials_are_refused(call):
    with pytest.raises(ValueError, match=r"11 .* of 10"):
        call(11, 10)
