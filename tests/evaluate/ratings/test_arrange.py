"""Order and sides: balanced, a rater's own, the same again, and repetitions swapped and not too soon."""

import itertools
from collections import Counter

import pytest
from made_votes import pair

from surefoot.evaluate.ratings.arrange import APART, arrange, counts_by_kind, planted, repetitions


def pairs(count):
    return [pair(f"i{n}") for n in range(count)]


@pytest.mark.parametrize("seed", range(20))
def test_sides_are_balanced_at_every_moment_of_a_session(seed):
    shown = arrange(pairs(50), rater="ann", seed=seed)
    ahead = list(itertools.accumulate(1 if s.left == "a" else -1 for s in shown))
    assert max(map(abs, ahead)) <= 4  # half of the largest block
    assert abs(ahead[-1]) <= 4


@pytest.mark.parametrize("seed", range(20))
def test_sides_are_balanced_within_each_kind_at_every_moment(seed):
    """A coin for each would leave 26 % of all sessions of 20 pairs with less than 40 % of them on one side."""
    mixed = [pair(f"{kind}{n}", kind=kind) for kind in ("policy-sft", "sft-sft", "planted") for n in range(20)]
    shown = arrange(mixed, rater="ann", seed=seed)
    for kind in ("policy-sft", "sft-sft", "planted"):
        ahead = itertools.accumulate(1 if s.left == "a" else -1 for s in shown if s.pair.kind == kind)
        assert max(map(abs, ahead)) <= 4


def test_either_side_is_as_likely_at_each_place():
    at_first = Counter(arrange(pairs(1), rater="ann", seed=seed)[0].left for seed in range(400))
    assert 150 < at_first["a"] < 250


def test_every_pair_is_shown_once_in_an_order_of_the_raters_own_and_the_same_again():
    ann, bob, again = (arrange(pairs(40), rater=r, seed=3) for r in ("ann", "bob", "ann"))
    assert ann == again
    assert [s.pair.item for s in ann] != [s.pair.item for s in bob]
    assert [s.left for s in ann] != [s.left for s in bob]
    assert sorted(s.pair.item for s in ann) == sorted(p.item for p in pairs(40))


def test_a_repetition_has_its_sides_swapped_and_comes_later():
    given = pairs(60)
    shown = arrange(given + repetitions(given), rater="ann")
    places = {s.pair.item: n for n, s in enumerate(shown)}
    sides = {s.pair.item: s.left for s in shown}
    again = [s.pair for s in shown if s.pair.repeats]
    assert len(again) == 9
    for p in again:
        assert sides[p.item] != sides[p.repeats]
        assert places[p.item] - places[p.repeats] > APART


def test_with_few_pairs_a_repetition_still_comes_later():
    for seed in range(20):
        shown = arrange([pair("i"), pair("j"), pair("k", repeats="i")], rater="ann", seed=seed)
        order = [s.pair.item for s in shown]
        assert order.index("k") > order.index("i")


def test_at_least_the_share_is_repeated():
    assert len(repetitions(pairs(16))) == 3  # 2.4 would be enough


def test_planted_pairs_and_repetitions_are_not_repeated():
    given = [pair("i", kind="planted"), pair("j", repeats="i")]
    assert repetitions(given, 1.0) == []


def test_a_repetition_of_what_is_not_shown_is_refused():
    with pytest.raises(ValueError, match="'j' repeats 'i', which is not among the pairs"):
        arrange([pair("j", repeats="i")], rater="ann")


@pytest.mark.parametrize(("count", "found"), [(50, (30, 10, 10)), (7, (4, 2, 1)), (1, (1, 0, 0)), (0, (0, 0, 0))])
def test_kinds_share_the_pairs_in_whole_numbers(count, found):
    assert tuple(counts_by_kind(count).values()) == found


def test_a_planted_pair_has_the_sound_answer_first_and_the_same_words_in_another_order():
    made = planted(pair(b="one two three four five six seven"))
    assert (made.kind, made.a) == ("planted", "one two three four five six seven")
    assert sorted(made.b.split()) == sorted(made.a.split())
    assert made.b != made.a
    assert made.item == "i-planted"


@pytest.mark.parametrize("text", ["one two", "no no no no no no", ""])
def test_an_answer_that_cannot_be_spoiled_is_refused(text):
    with pytest.raises(ValueError, match="answer b of item 'i' cannot be spoiled"):
        planted(pair(b=text))
