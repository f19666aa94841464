"""Agreement: statsmodels' kappa, krippendorff's alpha, small tables by hand, and what counts as which."""

import math

import numpy as np
import pytest
from made_votes import vote, votes
from ratings_golden import recorded

from surefoot.evaluate.ratings.agreement import (
    agreement,
    cohen_kappa,
    couples_agreement,
    krippendorff_alpha,
    raters,
    self_consistency,
)


def own_prompts(rows):
    return [str(n) for n in range(len(rows))]


@pytest.mark.parametrize("case", recorded("kappa"), ids=lambda c: f"{len(c['first'])}-items")
def test_cohens_kappa_is_statsmodels(case):
    found = cohen_kappa(case["first"], case["second"], own_prompts(case["first"]), categories=case["categories"])
    assert found.value == pytest.approx(case["kappa"], abs=1e-12)
    assert found.low < found.value < found.high


def test_cohens_kappa_by_hand():
    first, second = [0] * 25 + [1] * 25, [0] * 20 + [1] * 5 + [0] * 10 + [1] * 15
    found = cohen_kappa(first, second, own_prompts(first), categories=2)
    assert found.value == pytest.approx(0.4)  # agreement 0.7, by chance 0.5


@pytest.mark.parametrize("level", ["nominal", "ordinal"])
@pytest.mark.parametrize("case", recorded("alpha"), ids=lambda c: f"{len(c['answers'])}-items")
def test_krippendorffs_alpha_is_krippendorffs_with_votes_missing(case, level):
    answers = case["answers"]
    found = krippendorff_alpha(answers, own_prompts(answers), categories=case["categories"], level=level)
    assert found.value == pytest.approx(case[level], abs=1e-12)
    assert found.low < found.value < found.high


def test_krippendorffs_alpha_by_hand():
    answers = [[0, 0], [0, 0], [1, 1], [0, 1], [0]]  # coincidences: 00 four, 11 two, 01 and 10 one each; n = 8
    found = krippendorff_alpha(answers, own_prompts(answers), categories=2)
    observed, expected = 2 / 8, 2 * 5 * 3 / (8 * 7)
    assert found.value == pytest.approx(1 - observed / expected)
    assert found.count == 4


def test_raters_who_guess_agree_as_chance_would_and_alpha_is_zero():
    g = np.random.default_rng(0)
    answers = g.integers(4, size=(4000, 3)).tolist()
    found = krippendorff_alpha(answers, own_prompts(answers), categories=4)
    assert abs(found.value) < 0.02
    assert couples_agreement(answers, own_prompts(answers)).value == pytest.approx(0.25, abs=0.02)


@pytest.mark.slow
def test_the_interval_of_alpha_covers_the_alpha_of_many_more_items():
    g = np.random.default_rng(1)

    def rated(items):
        truth = g.integers(3, size=(items, 1))
        return np.where(g.random((items, 2)) < 0.7, truth, g.integers(3, size=(items, 2))).tolist()

    many = rated(100_000)
    true = krippendorff_alpha(many, ["all"] * len(many), categories=3).value
    held = 0
    for seed in range(200):
        few = rated(60)
        found = krippendorff_alpha(few, own_prompts(few), categories=3, seed=seed)
        held += found.low <= true <= found.high
    assert 0.9 <= held / 200 <= 0.99


def test_where_all_say_the_same_chance_is_undefined_and_so_is_alpha():
    found = krippendorff_alpha([[1, 1], [1, 1]], ["p", "q"], categories=2)
    assert math.isnan(found.value)


# ---------------------------------------------------------------------------------------------- votes
def test_the_agreement_of_two_raters_by_hand():
    cast = votes("aab+-") + votes("abb+a", rater="bob")
    found = agreement(cast)
    assert found.pairs == 5
    assert found.raw.value == 3 / 5
    assert found.of_decided.value == 2 / 3  # of i0, i1, i2
    assert list(found.kappas) == [("ann", "bob")]
    assert found.kappas["ann", "bob"].count == 5


def test_three_raters_make_three_couples_of_a_pair():
    cast = [vote(rater=r, choice=c) for r, c in (("ann", "a"), ("bob", "a"), ("cat", "b"))]
    found = agreement(cast)
    assert found.raw.value == 1 / 3
    assert found.raw.count == 3
    assert len(found.kappas) == 3


def test_in_order_a_tie_is_nearer_than_the_other_answer():
    near, far = (agreement(votes("aabb") + votes(bobs, rater="bob")) for bobs in ("a+b+", "abba"))
    assert near.raw.value == far.raw.value == 0.5
    assert near.ordinal.value > far.ordinal.value + 0.3


def test_one_rater_alone_agrees_with_nobody():
    found = agreement(votes("aab"))
    assert found.pairs == 0
    assert math.isnan(found.raw.value)
    assert math.isnan(found.nominal.value)
    assert found.kappas == {}


def test_planted_and_repeated_pairs_are_no_agreement():
    cast = [vote(rater=r, **more) for r in ("ann", "bob") for more in ({"kind": "planted"},)]
    again = [vote("j", rater=r, repeats="i") for r in ("ann", "bob")]
    assert agreement(cast + again).pairs == 0


def test_self_consistency_compares_a_rater_with_herself_only():
    cast = [vote("i", "a", rater="ann"), vote("i", "b", rater="bob"), vote("i2", "a", rater="ann", repeats="i"),
            vote("i2", "a", rater="bob", repeats="i"), vote("j2", "a", rater="ann", repeats="never-seen")]  # fmt: skip
    found = self_consistency(cast)
    assert (found.value, found.count) == (0.5, 2)


def test_self_consistency_of_decided_leaves_ties_out():
    cast = [vote("i", "a"), vote("i2", "both good", repeats="i"), vote("j", "a"), vote("j2", "a", repeats="j")]
    assert self_consistency(cast).value == 0.5
    assert self_consistency(cast, of_decided=True).value == 1.0


def test_what_is_known_of_a_rater():
    cast = [
        vote("i", "a", seconds=10.0), vote("i2", "b", repeats="i", left="b", seconds=30.0),
        vote("j", "b", seconds=20.0), vote("s", "skip", seconds=1.0), vote("p1", "a", kind="planted", left="b"),
        vote("p2", "both bad", kind="planted"), vote("p3", "skip", kind="planted"), vote("i", "a", rater="bob"),
    ]  # fmt: skip
    ann, bob = raters(cast)
    assert (ann.name, ann.votes, ann.skipped, ann.seconds) == ("ann", 5, 2, 20.0)
    assert ann.left.value == 0.5  # i on the left, j on the right; planted and repeated ones do not count
    assert ann.consistent.value == 0.0
    assert (ann.planted.value, ann.planted.count) == (0.5, 2)
    assert (bob.name, bob.votes) == ("bob", 1)
    assert math.isnan(bob.seconds)
    assert bob.planted.count == 0
