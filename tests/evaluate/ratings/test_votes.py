"""Votes: what they say of an answer whatever its side, which of them count, and what is refused."""

import importlib.util
import sys

import pytest
from made_votes import pair, vote, votes

from surefoot.evaluate.ratings import votes as module
from surefoot.evaluate.ratings.votes import check_votes, counted


@pytest.fixture
def plain_vote(monkeypatch):
    """`Vote` without the type checks of the tests, which would refuse a wrong word before it does."""
    spec = importlib.util.spec_from_file_location("plain_votes", module.__file__)
    plain = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "plain_votes", plain)
    spec.loader.exec_module(plain)
    return plain.Vote


@pytest.mark.parametrize(
    ("choice", "outcome"), [("a", "win"), ("b", "loss"), ("both good", "tie"), ("both bad", "both bad")]
)
@pytest.mark.parametrize("left", ["a", "b"])
def test_the_side_does_not_change_what_a_vote_says(choice, outcome, left):
    assert vote(choice=choice, left=left).outcome == outcome


def test_a_skipped_pair_has_no_outcome():
    with pytest.raises(ValueError, match="'i' was skipped by 'ann'"):
        vote(choice="skip").outcome  # noqa: B018


def test_left_is_chosen_where_the_chosen_answer_stood_there():
    assert vote(choice="b", left="b").chose_left
    assert not vote(choice="a", left="b").chose_left
    assert not vote(choice="both good", left="b").chose_left


def test_what_counts_is_judged_of_a_real_pair_and_seen_a_first_time():
    cast = [
        vote("kept"), vote("skipped", "skip"), vote("planted", kind="planted"), vote("again", repeats="kept"),
        vote("within", kind="sft-sft"),
    ]  # fmt: skip
    assert [v.item for v in counted(cast)] == ["kept", "within"]
    assert [v.item for v in counted(cast, "sft-sft")] == ["within"]
    assert [v.item for v in counted(cast, "planted")] == ["planted"]


def test_votes_come_in_the_order_of_time():
    cast = votes("aab")
    assert check_votes(reversed(cast)) == cast


def test_two_votes_of_one_rater_on_one_item_are_refused_and_of_two_raters_are_not():
    assert len(check_votes([vote(rater="ann"), vote(rater="bob")])) == 2
    with pytest.raises(ValueError, match=r"two votes of rater 'ann' on item 'i'.*`repeats` the first"):
        check_votes([vote(choice="a"), vote(choice="b")])


def test_an_item_that_is_two_pairs_is_refused():
    with pytest.raises(ValueError, match="item 'i' has votes as"):
        check_votes([vote(rater="ann"), vote(rater="bob", prompt_id="other")])


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"choice": "c"}, "choice is 'c': it is one of 'a', 'b', 'both good'"),
        ({"left": "right"}, "left is 'right'"),
        ({"kind": "policy"}, "kind is 'policy': it is one of 'policy-sft'"),
        ({"rater": ""}, "rater of item 'i' is empty"),
        ({"item": ""}, "item is empty"),
        ({"repeats": "i"}, "item 'i' repeats itself"),
    ],
)
def test_a_vote_that_cannot_be_is_refused_by_name(more, message, plain_vote):
    given = {"item": "i", "kind": "policy-sft", "prompt_id": "p", "rater": "ann", "left": "a", "choice": "a"}
    with pytest.raises(ValueError, match=message):
        plain_vote(**given | more)


def test_a_pair_is_checked_as_a_vote_is():
    with pytest.raises(ValueError, match="item 'i' repeats itself"):
        pair(repeats="i")
