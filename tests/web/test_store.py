"""One vote for each screen of a rater, whatever happens."""

import sqlite3
import stat
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from surefoot.evaluate.rated import store as module
from surefoot.evaluate.rated.store import Showing, Store
from surefoot.evaluate.ratings.votes import Pair

ORDER = [Showing("x", "a"), Showing("y", "b"), Showing("z", "a")]
PAIRS = {name: Pair(item=name, kind="policy-sft", prompt_id=name, prompt="P", a="A", b="B") for name in "xyz"}


@pytest.fixture
def store(tmp_path):
    made = Store(tmp_path / "ratings.sqlite")
    made.join(1, "ana", ORDER)
    return made


def said(store, session=1):
    return [(vote.rater, vote.item, vote.choice) for vote in store.votes(session, PAIRS)]


def test_sides_become_answers(store):
    assert [store.vote(1, "ana", place, "left") for place in range(3)] == ["counted"] * 3
    assert said(store) == [("ana", "x", "a"), ("ana", "y", "b"), ("ana", "z", "a")]
    store.join(1, "ben", ORDER)
    for place, answer in enumerate(("right", "both bad", "skip")):
        store.vote(1, "ben", place, answer)
    assert said(store)[3:] == [("ben", "x", "b"), ("ben", "y", "both bad"), ("ben", "z", "skip")]


def test_a_second_vote_on_a_screen_is_not_counted(store):
    assert store.vote(1, "ana", 0, "left") == "counted"
    assert store.vote(1, "ana", 0, "right") == "counted before"
    assert said(store) == [("ana", "x", "a")]


def test_a_screen_cannot_be_voted_on_before_its_turn(store):
    assert store.vote(1, "ana", 2, "left") == "counted before"
    assert said(store) == []


def test_of_twenty_votes_at_the_same_moment_one_is_counted(store):
    with ThreadPoolExecutor(20) as pool:
        taken = Counter(pool.map(lambda _: store.vote(1, "ana", 0, "left"), range(20)))
    assert taken == {"counted": 1, "counted before": 19}
    assert said(store) == [("ana", "x", "a")]


def test_the_file_itself_refuses_a_second_vote_that_counts(store):
    store.vote(1, "ana", 0, "left")
    with sqlite3.connect(store.path) as db, pytest.raises(sqlite3.IntegrityError):
        db.execute("INSERT INTO votes (session, rater, place, choice, note, time) VALUES (1, 'ana', 0, 'b', '', 0)")


def test_a_vote_right_after_the_one_before_is_a_double_click(store, monkeypatch):
    monkeypatch.setattr(module, "QUICKEST", 60.0)
    assert store.vote(1, "ana", 0, "left") == "counted"
    assert store.vote(1, "ana", 1, "left") == "too quick"
    assert said(store) == [("ana", "x", "a")]


def test_votes_are_there_after_a_restart_and_an_order_once_begun_is_kept(store):
    store.vote(1, "ana", 0, "left", seconds=3.5, note="nice")
    again = Store(store.path)
    again.join(1, "ana", ORDER[::-1])
    assert again.screen(1, "ana").showing == ORDER[1]
    (vote,) = again.votes(1, PAIRS)
    assert (vote.seconds, vote.note, vote.left) == (3.5, "nice", "a")


def test_undo_takes_votes_back_one_by_one_and_forgets_none(store):
    for place in range(2):
        store.vote(1, "ana", place, "left")
    assert store.undo(1, "ana")
    assert store.screen(1, "ana").place == 1
    store.vote(1, "ana", 1, "right")
    assert said(store) == [("ana", "x", "a"), ("ana", "y", "a")]
    assert [(row["choice"], row["undone"] is None) for row in store.rows(1)] == [
        ("a", True),
        ("b", False),
        ("a", True),
    ]
    assert [store.undo(1, "ana") for _ in range(3)] == [True, True, False]


def test_undo_is_a_raters_own(store):
    store.join(1, "ben", ORDER)
    store.vote(1, "ana", 0, "left")
    assert not store.undo(1, "ben")
    assert store.standing(1) == {"ana": (1, 3), "ben": (0, 3)}


def test_after_the_end_nothing_is_counted_or_taken_back(store):
    store.vote(1, "ana", 0, "left")
    store.close(1, "the planned number was reached")
    store.close(1, "another reason")
    assert store.closed(1) == "the planned number was reached"
    assert store.vote(1, "ana", 1, "left") == "closed"
    assert not store.undo(1, "ana")
    assert said(store) == [("ana", "x", "a")]


def test_sessions_of_two_steps_do_not_mix(store):
    store.join(2, "ana", ORDER)
    store.vote(1, "ana", 0, "left")
    assert store.screen(2, "ana").place == 0
    assert said(store, 2) == []


def test_the_file_is_its_owners_and_writes_ahead(store):
    assert stat.S_IMODE(store.path.stat().st_mode) == 0o600
    with sqlite3.connect(store.path) as db:
        assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_a_note_is_a_text_and_no_command(store):
    note = "'); DROP TABLE votes; --"
    store.vote(1, "ana", 0, "left", note=note)
    assert [vote.note for vote in store.votes(1, PAIRS)] == [note]
