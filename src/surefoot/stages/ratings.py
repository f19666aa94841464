"""What people preferred in the ratings of runs, as rows that a reward model learns from."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from surefoot.evaluate.rated.rating import Rating
from surefoot.evaluate.rated.session import read_session, sessions
from surefoot.evaluate.ratings.export import preference_rows
from surefoot.evaluate.ratings.votes import Choice, Vote, counted
from surefoot.stages.rows import Rows, load_rows

_COLUMNS = ("prompt", "chosen", "rejected")
_LEFT_OUT: dict[Choice, str] = {"both good": "both good", "both bad": "both bad", "skip": "skipped"}


def rated_rows(runs: Sequence[str]) -> Rows:
    """A row for each vote that prefers one of two answers, of every rating of these runs that is done.

    Planted pairs, and those that are shown a second time, are no rows: they are about the raters. As with an export,
    the voting of a rating that may be read is over from then on.

    Raises:
        ValueError: a run has no rating that is done, or nobody preferred anything.
    """
    votes: list[Vote] = []
    rows: list[dict[str, Any]] = []
    for run in dict.fromkeys(runs):
        for rating in _finished(run):
            pairs = {pair.item: pair for pair in rating.session.pairs}
            votes += (given := rating.votes())
            rows += [row | {"run": run} for row in preference_rows(given, pairs)]
    if not rows:
        raise ValueError(
            f"ratings={' '.join(runs)}: none of {len(votes)} votes prefers one answer to the other, so there is "
            "nothing to learn from"
        )
    found = load_rows([{name: row[name] for name in _COLUMNS} for row in rows], kind="preference")
    places = tuple(f"{row['run']}, pair {row['item']} by {row['rater']}" for row in rows)
    return replace(found, places=places, source=f"ratings of {', '.join(runs)}", form=_form(votes))


def _finished(run: str) -> Iterator[Rating]:
    """The ratings of a run whose votes may be read."""
    folder = Path(run)
    begun = sessions(folder) if (folder / "ratings.sqlite").is_file() else []
    if not begun:
        raise ValueError(
            f"ratings={run!r}: nobody has rated this run (it has no ratings.sqlite): `surefoot rate {run}` asks people"
        )
    ratings = [Rating(folder, read_session(folder, step)) for step in begun]
    done = [rating for rating in ratings if rating.open() is not None]
    if not done:
        standing = ratings[-1].store.standing(ratings[-1].session.step)
        votes = ", ".join(f"{rater} {count} of {of}" for rater, (count, of) in standing.items()) or "none"
        raise ValueError(
            f"ratings={run!r}: its rating goes on, and what people said is hidden until it is done (votes: {votes})"
        )
    yield from done


def _form(votes: Sequence[Vote]) -> str:
    """What the rows are, and what was left out of them and why."""
    first = [vote for vote in votes if vote.kind != "planted" and not vote.repeats]
    raters = len({vote.rater for vote in first})
    decided = sum(vote.decided for vote in counted(votes))
    said = Counter(vote.choice for vote in first)
    left = [f"{said[choice]} {words}" for choice, words in _LEFT_OUT.items() if said[choice]]
    about_raters = len(votes) - len(first)
    left += [f"{about_raters} on planted or repeated pairs"] if about_raters else []
    people = "1 rater" if raters == 1 else f"{raters} raters"
    return f"{decided} preferences of {people}" + (
        f"; left out, as they prefer nothing: {', '.join(left)}" if left else ""
    )
