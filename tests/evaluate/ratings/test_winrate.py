"""Win rates by hand, and what becomes of a difference that is only length, or only the side of the screen."""

import math

import numpy as np
import pytest
from made_votes import vote, votes

from surefoot.evaluate.ratings.winrate import Counts, length_controlled, position_check, win_rate


def test_the_counts_and_rates_of_a_session_by_hand():
    found = win_rate(votes("aaab++-"))
    assert found.counts == Counts(win=3, tie=2, loss=1, both_bad=1)
    assert (found.counts.decided, found.counts.all) == (4, 7)
    assert found.wilson.value == found.of_decided.value == found.by_prompt.value == 0.75
    assert found.score.value == (3 + 0.5 * 3) / 7


def test_with_one_vote_a_prompt_the_interval_is_wilsons():
    found = win_rate(votes("a" * 62 + "b" * 38))
    assert (found.of_decided.low, found.of_decided.high) == pytest.approx((0.52209755, 0.70902401), abs=1e-8)


def test_winning_every_time_leaves_doubt():
    assert win_rate(votes("a" * 20)).of_decided.low == pytest.approx(1 - 0.16112516, abs=1e-8)


def test_two_raters_who_always_agree_are_no_more_sure_than_one():
    one = votes("a" * 36 + "b" * 24)
    two = one + votes("a" * 36 + "b" * 24, rater="bob")
    alone, both = win_rate(one), win_rate(two)
    assert both.wilson.high - both.wilson.low < 0.75 * (alone.wilson.high - alone.wilson.low)  # what it would seem
    width = both.of_decided.high - both.of_decided.low
    assert width == pytest.approx(alone.of_decided.high - alone.of_decided.low, rel=0.08)


def test_two_raters_who_disagree_make_the_interval_wider_than_chance_among_prompts():
    cast = votes("a" * 50 + "b" * 10) + votes("b" * 50 + "a" * 10, rater="bob")
    found = win_rate(cast)
    assert found.of_decided.value == 0.5
    assert found.of_decided.low < 0.25
    assert found.of_decided.high > 0.75


def test_without_a_preference_there_is_a_score_and_no_win_rate():
    found = win_rate(votes("+-"))
    assert found.score.value == 0.5
    assert math.isnan(found.of_decided.value)


# ---------------------------------------------------------------------------------------------- sides
def test_the_left_side_is_counted_whichever_answer_stood_there():
    cast = votes("aaa") + votes("b", prefix="j", left="b") + votes("b+", prefix="k")
    found = position_check(cast)
    assert found.left.value == 4 / 5  # three a on the left, one b on the left, one b on the right
    assert found.left.count == 5


def test_a_rater_who_always_takes_the_left_is_found_out_and_wins_nothing():
    cast = [vote(f"i{n}", side, left=side) for n, side in enumerate("ab" * 10)]
    assert position_check(cast).p_value == 2 / 2**20
    assert win_rate(cast).wilson.value == 0.5


def test_of_no_decided_votes_the_position_says_nothing():
    assert math.isnan(position_check(votes("++")).p_value)


# ---------------------------------------------------------------------------------------------- length
def voters_of_length(count, *, quality, per_length, seed=0):
    """Answer `a` is usually twice as long; who wins depends on length and on a quality of its own, in log-odds."""
    g = np.random.default_rng(seed)
    ratio = np.exp(g.normal(np.log(2.0), 0.7, size=count))
    won = g.random(count) < 1 / (1 + np.exp(-(quality + per_length * np.log(ratio))))
    cast = votes("".join("a" if w else "b" for w in won))
    return cast, {v.item: (100.0 * r, 100.0) for v, r in zip(cast, ratio, strict=True)}


def test_a_win_that_is_only_length_is_gone_at_equal_length():
    cast, lengths = voters_of_length(3000, quality=0.0, per_length=1.0)
    assert win_rate(cast).of_decided.low > 0.6
    found = length_controlled(cast, lengths)
    assert found.win_rate.low < 0.5 < found.win_rate.high
    assert found.slope.low > 0


def test_a_win_that_is_not_length_stays():
    cast, lengths = voters_of_length(3000, quality=0.5, per_length=0.0)
    found = length_controlled(cast, lengths)
    assert found.win_rate.low <= 1 / (1 + math.exp(-0.5)) <= found.win_rate.high
    assert found.win_rate.low > 0.5
    assert found.slope.low < 0 < found.slope.high


def test_the_slope_is_in_units_of_the_typical_ratio_and_the_rate_does_not_depend_on_the_unit_of_length():
    cast, lengths = voters_of_length(500, quality=0.2, per_length=1.0)
    words = length_controlled(cast, lengths)
    letters = length_controlled(cast, {item: (5.0 * a, 5.0 * b) for item, (a, b) in lengths.items()})
    assert letters.win_rate.value == pytest.approx(words.win_rate.value)
    assert words.slope.value / words.unit == pytest.approx(1.0, abs=0.3)


def test_the_interval_at_equal_length_covers_the_truth():
    held = 0
    for seed in range(200):
        found = length_controlled(*voters_of_length(120, quality=0.4, per_length=0.8, seed=seed))
        held += found.win_rate.low <= 1 / (1 + math.exp(-0.4)) <= found.win_rate.high
    assert 0.91 <= held / 200 <= 0.99


def test_where_the_longer_always_wins_it_says_that_it_cannot_tell():
    cast = votes("aab")
    found = length_controlled(cast, {"i0": (20, 10), "i1": (30, 10), "i2": (5, 10)})
    assert math.isnan(found.win_rate.value)
    assert found.why_not == "the length difference alone tells who wins in every pair"


def test_of_no_decided_votes_or_equal_lengths_it_says_why_there_is_no_rate():
    assert length_controlled(votes("+"), {}).why_not == "no vote has a preference"
    assert "same in all pairs" in length_controlled(votes("ab"), {"i0": (5, 5), "i1": (5, 5)}).why_not


def test_lengths_that_are_missing_are_named():
    with pytest.raises(ValueError, match="lengths has nothing for item 'i1'"):
        length_controlled(votes("ab"), {"i0": (1, 2)})
