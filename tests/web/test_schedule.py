"""Orders and sides."""

import pytest
from surefoot.evaluate.ratings.votes import Pair

from surefoot.web.rate.schedule import APART, BLOCKS, arrange


def pair(name, kind="policy-sft", repeats=""):
    return Pair(item=name, kind=kind, prompt_id=name, prompt="P", a="A", b="B", repeats=repeats)


PAIRS = [pair(f"p{n}") for n in range(30)] + [pair(f"s{n}", "sft-sft") for n in range(10)]
AGAIN = [pair(f"r{n}", repeats=f"p{n}") for n in range(6)]


@pytest.mark.parametrize("seed", range(50))
def test_of_each_kind_each_answer_is_on_the_left_in_half_of_every_block(seed):
    order = arrange(PAIRS + AGAIN, seed=seed, rater="ana")
    for letter, count in (("p", 30), ("s", 10)):
        lefts = [showing.left for showing in order if showing.item[0] == letter]
        assert len(lefts) == count
        for seen in range(1, count + 1):  # a coin would stray: 26 % of its sessions of 20 lie outside 40 to 60 %
            assert abs(lefts[:seen].count("a") - lefts[:seen].count("b")) <= max(BLOCKS) // 2


@pytest.mark.parametrize("seed", range(50))
def test_a_pair_shown_again_is_far_from_its_first_time_and_has_its_sides_swapped(seed):
    order = arrange(PAIRS + AGAIN, seed=seed, rater="ana")
    place = {showing.item: n for n, showing in enumerate(order)}
    for again in AGAIN:
        assert place[again.item] - place[again.repeats] > APART
        assert {order[place[again.item]].left, order[place[again.repeats]].left} == {"a", "b"}


def test_everybody_sees_every_pair_once_in_an_order_of_his_own_that_stays():
    ana, ben = (arrange(PAIRS + AGAIN, seed=0, rater=rater) for rater in ("ana", "ben"))
    assert sorted(s.item for s in ana) == sorted(s.item for s in ben) == sorted(p.item for p in PAIRS + AGAIN)
    assert [s.item for s in ana] != [s.item for s in ben]
    assert ana == arrange(PAIRS + AGAIN, seed=0, rater="ana") != arrange(PAIRS + AGAIN, seed=1, rater="ana")


def test_with_few_pairs_one_that_is_shown_again_still_comes_later():
    for seed in range(20):
        order = [s.item for s in arrange([pair("p0"), pair("p1"), pair("r0", repeats="p0")], seed=seed, rater="x")]
        assert order.index("r0") > order.index("p0")
