"""Votes in ratings.sqlite: what was answered stays answered through double clicks, second tabs, restarts and crashes.

Nothing is ever changed but to say that it was taken back: an undone vote stays, with the time of the undoing. A
partial index lets a screen of a rater have one vote that counts, whoever else writes at the same moment.
"""

import os
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from surefoot.evaluate.ratings.votes import CHOICES, Choice, Pair, Side, Vote

Answer = Literal["left", "right", "both good", "both bad", "skip"]
"""What a rater can say: of sides, as that is what a rater sees."""
Taken = Literal["counted", "counted before", "too quick", "closed"]
"""What became of a vote."""

QUICKEST = 0.3
"""Seconds. Nobody reads two answers sooner: such a vote is the second half of a double click on the vote before."""

_SCHEMA = f"""
CREATE TABLE IF NOT EXISTS sessions (session INTEGER PRIMARY KEY, closed REAL, why TEXT);
CREATE TABLE IF NOT EXISTS showings (
    session INTEGER NOT NULL, rater TEXT NOT NULL, place INTEGER NOT NULL, item TEXT NOT NULL, side TEXT NOT NULL,
    PRIMARY KEY (session, rater, place), UNIQUE (session, rater, item), CHECK (side IN ('a', 'b'))
);
CREATE TABLE IF NOT EXISTS votes (
    id INTEGER PRIMARY KEY, session INTEGER NOT NULL, rater TEXT NOT NULL, place INTEGER NOT NULL,
    choice TEXT NOT NULL, seconds REAL, note TEXT NOT NULL, time REAL NOT NULL, undone REAL,
    FOREIGN KEY (session, rater, place) REFERENCES showings, CHECK (choice IN ({", ".join(f"'{c}'" for c in CHOICES)}))
);
CREATE UNIQUE INDEX IF NOT EXISTS one_vote ON votes (session, rater, place) WHERE undone IS NULL;
"""


@dataclass(frozen=True, slots=True)
class Showing:
    """A pair by its name, and which of its answers stands on the left."""

    item: str
    left: Side


@dataclass(frozen=True, slots=True)
class Screen:
    """What a rater sees next: which place of how many, and the pair that is shown there."""

    place: int
    showing: Showing


class Store:
    """The votes of a run.

    Args:
        path: the file; made, readable by its owner alone, where there is none.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.exists():
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
        with self._open() as db:
            db.execute("PRAGMA journal_mode = WAL")
            db.executescript(_SCHEMA)

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """A connection for one thing to do; waits for others up to 10 seconds."""
        db = sqlite3.connect(self.path, timeout=10, isolation_level=None)
        try:
            db.execute("PRAGMA foreign_keys = ON")
            db.execute("PRAGMA synchronous = FULL")  # a vote that was answered for survives a power cut
            yield db
        finally:
            db.close()

    @contextmanager
    def _alone(self) -> Iterator[sqlite3.Connection]:
        """A connection that nobody else writes beside, until it is left: then everything, or nothing, is written."""
        with self._open() as db:
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
            except BaseException:
                db.execute("ROLLBACK")
                raise
            db.execute("COMMIT")

    # ------------------------------------------------------------------------------------------ raters
    def join(self, session: int, rater: str, order: Sequence[Showing]) -> None:
        """Writes down a rater's screens, unless he has some: an order once begun is kept."""
        with self._alone() as db:
            if not db.execute("SELECT 1 FROM showings WHERE session = ? AND rater = ?", (session, rater)).fetchone():
                rows = [(session, rater, n, showing.item, showing.left) for n, showing in enumerate(order)]
                db.executemany("INSERT INTO showings VALUES (?, ?, ?, ?, ?)", rows)

    def screen(self, session: int, rater: str) -> Screen | None:
        """The first screen of a rater without a vote that counts; None when there is none left."""
        with self._open() as db:
            return _screen(db, session, rater)

    def standing(self, session: int) -> dict[str, tuple[int, int]]:
        """Rater -> screens with a vote, screens in all."""
        with self._open() as db:
            rows = db.execute(
                "SELECT rater, COUNT(counting.id), COUNT(*) FROM showings LEFT JOIN "
                "(SELECT * FROM votes WHERE undone IS NULL) AS counting "
                "USING (session, rater, place) WHERE session = ? GROUP BY rater ORDER BY rater",
                (session,),
            )
            return {rater: (done, of) for rater, done, of in rows}

    # ------------------------------------------------------------------------------------------ votes
    def vote(
        self, session: int, rater: str, place: int, answer: Answer, *, seconds: float | None = None, note: str = ""
    ) -> Taken:
        """Counts a vote, if it is for the screen that the rater is at, and in earnest."""
        with self._alone() as db:
            now, at = time.time(), _screen(db, session, rater)
            if _closed(db, session):
                return "closed"
            if at is None or at.place != place:
                return "counted before"
            last = db.execute("SELECT MAX(time) FROM votes WHERE session = ? AND rater = ?", (session, rater))
            if 0 <= now - (last.fetchone()[0] or 0.0) < QUICKEST:
                return "too quick"
            db.execute(
                "INSERT INTO votes (session, rater, place, choice, seconds, note, time) VALUES (?, ?, ?, ?, ?, ?, ?)",
                (session, rater, place, _choice(answer, at.showing.left), seconds, note, now),
            )
            return "counted"

    def undo(self, session: int, rater: str) -> bool:
        """Takes a rater's last vote back; whether there was one, and results are not open yet."""
        with self._alone() as db:
            if _closed(db, session):
                return False
            taken_back = db.execute(
                "UPDATE votes SET undone = ? WHERE id = (SELECT id FROM votes WHERE session = ? AND rater = ? "
                "AND undone IS NULL ORDER BY place DESC LIMIT 1)",
                (time.time(), session, rater),
            )
            return taken_back.rowcount == 1

    def seconds(self, session: int, rater: str) -> list[float]:
        """How long a rater looked at each pair, where that is known."""
        asked = "SELECT seconds FROM votes WHERE session = ? AND rater = ? AND undone IS NULL AND seconds IS NOT NULL"
        with self._open() as db:
            return [seconds for (seconds,) in db.execute(asked, (session, rater))]

    def votes(self, session: int, pairs: Mapping[str, Pair]) -> list[Vote]:
        """The votes that count, in the order of time."""
        return [_vote(row, pairs[row["item"]]) for row in self.rows(session) if row["undone"] is None]

    def rows(self, session: int) -> list[dict[str, Any]]:
        """Everything that was ever answered, undone or not, in the order of time."""
        with self._open() as db:
            db.row_factory = sqlite3.Row
            rows = db.execute(
                "SELECT item, rater, side, choice, seconds, time, note, undone FROM votes "
                "JOIN showings USING (session, rater, place) WHERE session = ? ORDER BY votes.id",
                (session,),
            )
            return [dict(row) for row in rows]

    # ------------------------------------------------------------------------------------------ the end
    def close(self, session: int, why: str) -> None:
        """Ends the voting, for good: results are seen from now on. The first reason stays."""
        with self._alone() as db:
            db.execute("INSERT OR IGNORE INTO sessions VALUES (?, ?, ?)", (session, time.time(), why))

    def closed(self, session: int) -> str | None:
        """Why the voting ended; None while it goes on."""
        with self._open() as db:
            return _closed(db, session)


def _screen(db: sqlite3.Connection, session: int, rater: str) -> Screen | None:
    row = db.execute(
        "SELECT place, item, side FROM showings WHERE session = ? AND rater = ? AND NOT EXISTS (SELECT 1 FROM votes "
        "WHERE votes.session = showings.session AND votes.rater = showings.rater AND votes.place = showings.place "
        "AND undone IS NULL) ORDER BY place LIMIT 1",
        (session, rater),
    ).fetchone()
    return None if row is None else Screen(row[0], Showing(row[1], row[2]))


def _closed(db: sqlite3.Connection, session: int) -> str | None:
    row = db.execute("SELECT why FROM sessions WHERE session = ? AND closed IS NOT NULL", (session,)).fetchone()
    return None if row is None else str(row[0])


def _choice(answer: Answer, left: Side) -> Choice:
    """What a rater said of a side, said of an answer."""
    if answer == "left":
        return left
    if answer == "right":
        return "b" if left == "a" else "a"
    return answer


def _vote(row: Mapping[str, Any], pair: Pair) -> Vote:
    seconds = float("nan") if row["seconds"] is None else row["seconds"]
    return Vote(
        item=pair.item, kind=pair.kind, prompt_id=pair.prompt_id, repeats=pair.repeats, rater=row["rater"],
        left=row["side"], choice=row["choice"], seconds=seconds, time=row["time"], note=row["note"],
    )  # fmt: skip
