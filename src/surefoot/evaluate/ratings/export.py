"""Votes as data sets: what trainers read, and everything that was said.

* `preference.jsonl`: TRL's preference rows, one a decided vote: prompt, chosen, rejected.
* `unpaired.jsonl`: TRL's unpaired preference rows, two a vote without preference: both good true, both bad false.
* `votes.jsonl`: the votes as they are.

Prompts that are text give text, conversations give messages. Planted and repeated pairs are in the votes only.
"""

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from surefoot.evaluate.ratings.reward_model import Scores
from surefoot.evaluate.ratings.votes import Pair, Vote, check_votes, counted

Row = dict[str, Any]


def export(
    folder: str | Path, votes: Iterable[Vote], pairs: Iterable[Pair], scores: Scores | None = None
) -> dict[str, int]:
    """Writes the three files, each whole or not at all, and says how many rows each has.

    A file without rows is not written, as `datasets` cannot read one; one of an earlier export is removed.
    """
    cast, known = check_votes(votes), {pair.item: pair for pair in pairs}
    files = {
        "preference.jsonl": preference_rows(cast, known, scores),
        "unpaired.jsonl": unpaired_rows(cast, known),
        "votes.jsonl": vote_rows(cast),
    }
    for name, rows in files.items():
        _write(Path(folder) / name, rows)
    return {name: len(rows) for name, rows in files.items()}


def preference_rows(votes: Iterable[Vote], pairs: Mapping[str, Pair], scores: Scores | None = None) -> list[Row]:
    """One row a decided vote: raters who differ give rows that differ.

    Beside TRL's columns: item, rater, pair_kind and, where scores are given, those of the reward model.
    """
    rows = []
    for vote in counted(votes):
        if not vote.decided:
            continue
        pair = _pair(pairs, vote)
        chosen, rejected = (pair.a, pair.b) if vote.choice == "a" else (pair.b, pair.a)
        row = {"prompt": pair.prompt, "chosen": _answer(pair, chosen), "rejected": _answer(pair, rejected)}
        rows.append(row | _origin(vote) | _scored(vote, scores))
    return rows


def unpaired_rows(votes: Iterable[Vote], pairs: Mapping[str, Pair]) -> list[Row]:
    """Two rows a vote without preference: both answers are as they should be, or neither is."""
    rows = []
    for vote in counted(votes):
        if vote.decided:
            continue
        pair = _pair(pairs, vote)
        for answer in (pair.a, pair.b):
            row = {"prompt": pair.prompt, "completion": _answer(pair, answer), "label": vote.choice == "both good"}
            rows.append(row | _origin(vote))
    return rows


def vote_rows(votes: Iterable[Vote]) -> list[Row]:
    """Every vote with all that it says; a time that is not known is null."""
    return [
        {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in row.items()}
        for row in map(dataclasses.asdict, votes)
    ]


def read_votes(path: str | Path) -> list[Vote]:
    """The votes of a `votes.jsonl`."""
    with open(path, encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    return [Vote(**row | {"seconds": math.nan if row["seconds"] is None else row["seconds"]}) for row in rows]


def _pair(pairs: Mapping[str, Pair], vote: Vote) -> Pair:
    if vote.item not in pairs:
        raise ValueError(f"there is a vote on item {vote.item!r}, but no such pair: give every pair that has votes")
    return pairs[vote.item]


def _answer(pair: Pair, text: str) -> str | list[Row]:
    return text if isinstance(pair.prompt, str) else [{"role": "assistant", "content": text}]


def _origin(vote: Vote) -> Row:
    return {"item": vote.item, "rater": vote.rater, "pair_kind": vote.kind}


def _scored(vote: Vote, scores: Scores | None) -> Row:
    if scores is None:
        return {}
    a, b = scores.get(vote.item, (None, None))
    return {"score_chosen": a, "score_rejected": b} if vote.choice == "a" else {"score_chosen": b, "score_rejected": a}


def _write(path: Path, rows: Sequence[Row]) -> None:
    if not rows:
        path.unlink(missing_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_name(path.name + ".half")
    half.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    half.replace(path)
