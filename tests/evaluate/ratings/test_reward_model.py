"""The reward model beside people: by hand, and on made-up raters whose truth is known."""

import itertools
import math

import numpy as np
import pytest
from made_votes import vote, votes

from surefoot.evaluate.ratings.reward_model import proxy_agreement, reliability


def test_agreement_by_hand_ties_of_people_left_out_and_equal_scores_half():
    cast = votes("abb+a")
    scores = {"i0": (1.0, 0.0), "i1": (1.0, 0.0), "i2": (0.0, 2.0), "i3": (0.0, 1.0), "i4": (3.0, 3.0)}
    lengths = {"i0": (9, 5), "i1": (5, 9), "i2": (5, 9), "i3": (1, 1), "i4": (9, 5)}
    found = proxy_agreement(cast, scores, lengths)
    assert (found.model.value, found.model.count) == ((1 + 0 + 1 + 0.5) / 4, 4)
    assert found.length.value == 1.0
    assert found.gain.value == pytest.approx(-0.375)


def test_the_side_of_the_screen_does_not_matter():
    assert proxy_agreement([vote(left="b")], {"i": (1.0, 0.0)}).model.value == 1.0


def test_a_model_that_only_counts_words_gains_nothing_on_length():
    g = np.random.default_rng(0)
    cast = votes("".join(g.choice(["a", "b"], size=200)))
    lengths = {v.item: (float(g.integers(1, 99)), float(g.integers(1, 99))) for v in cast}
    scores = {item: (a / 7, b / 7) for item, (a, b) in lengths.items()}
    found = proxy_agreement(cast, scores, lengths)
    assert found.model == found.length
    assert (found.gain.low, found.gain.high) == (0, 0)


def test_votes_that_share_a_prompt_make_the_interval_wider():
    letters = "a" * 30 + "b" * 10
    scores = {f"i{n}": (1.0, 0.0) for n in range(40)}
    apart = proxy_agreement(votes(letters), scores).model
    together = proxy_agreement(
        [vote(v.item, v.choice, prompt_id=f"p{n // 10}") for n, v in enumerate(votes(letters))], scores
    ).model
    assert together.value == apart.value
    assert together.high - together.low > 1.5 * (apart.high - apart.low)


def test_without_lengths_or_votes_there_is_no_baseline():
    assert math.isnan(proxy_agreement(votes("a"), {"i0": (1.0, 0.0)}).length.value)
    assert math.isnan(proxy_agreement([], {}, {}).model.value)


@pytest.mark.parametrize(
    ("scores", "message"),
    [({}, "scores has nothing for item 'i'"), ({"i": (math.nan, 0.0)}, "scores of item 'i' are nan and 0.0")],
)
def test_scores_that_are_missing_are_named(scores, message):
    with pytest.raises(ValueError, match=message):
        proxy_agreement([vote()], scores)


# ---------------------------------------------------------------------------------------------- reliability
def test_two_bins_by_hand():
    cast = votes("abaa")
    scores = {"i0": (1.0, 0.0), "i1": (1.0, 0.0), "i2": (3.0, 0.0), "i3": (0.0, -3.0)}
    found = reliability(cast, scores, bins=2)
    one, three = 1 / (1 + math.exp(-1)), 1 / (1 + math.exp(-3))
    assert [(b.low, b.high, b.agreed.value, b.agreed.count) for b in found.bins] == [(1, 1, 0.5, 2), (3, 3, 1.0, 2)]
    assert [b.promised for b in found.bins] == pytest.approx([one, three])
    assert found.error == pytest.approx(0.5 * (one - 0.5) + 0.5 * (1 - three))
    assert found.overconfidence == pytest.approx((one + three) / 2 - 0.75)


def voters(count, *, stretch, seed=0):
    """People choose as Bradley and Terry say; the reward model's margins are `stretch` times the true ones."""
    g = np.random.default_rng(seed)
    margins = g.normal(scale=1.5, size=count)
    cast = votes("".join(np.where(g.random(count) < 1 / (1 + np.exp(-margins)), "a", "b")))
    return cast, {v.item: (float(stretch * m), 0.0) for v, m in zip(cast, margins, strict=True)}


def test_a_bradley_terry_model_keeps_its_promises():
    found = reliability(*voters(8000, stretch=1.0))
    assert found.error < 0.02
    assert abs(found.overconfidence) < 0.02
    assert all(b.agreed.low - 0.01 <= b.promised <= b.agreed.high + 0.01 for b in found.bins)


def test_margins_twice_too_large_promise_too_much():
    found = reliability(*voters(8000, stretch=2.0))
    assert found.overconfidence > 0.08
    assert found.error == pytest.approx(found.overconfidence, abs=0.01)


def test_bins_hold_about_as_many_votes_each_and_all_of_them():
    found = reliability(*voters(103, stretch=1.0))
    assert [b.agreed.count for b in found.bins] == [21, 21, 20, 21, 20]
    assert all(a.high <= b.low for a, b in itertools.pairwise(found.bins))


def test_votes_of_one_margin_stay_together():
    found = reliability(votes("aaaab"), {f"i{n}": (1.0, 0.0) for n in range(5)})
    assert len(found.bins) == 1
    assert found.bins[0].agreed.value == 0.8


def test_of_no_decided_votes_there_is_no_curve():
    found = reliability(votes("+"), {})
    assert found.bins == ()
    assert math.isnan(found.error)
