"""What `surefoot evaluate` found out about a run, read from the run's folder."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from surefoot.report.numbers import number
from surefoot.report.svg import shown

FILE = Path("evaluation") / "evaluation.json"
"""Where it is, in the run's folder."""
_HEADS = ("Judged by", "Won", "Tied", "Lost", "Wins, ties as half", "At equal length")


@dataclass(frozen=True, slots=True)
class Verdict:
    """One judge's word: pairs won, tied and lost; shares with their intervals, as texts."""

    by: str
    won: int
    tied: int
    lost: int
    score: str
    equal_length: str


@dataclass(frozen=True, slots=True)
class Evaluated:
    """A run against another model: on how many prompts, what each judge says, and what to know before believing it."""

    against: str
    prompts: int
    verdicts: tuple[Verdict, ...]
    notes: tuple[str, ...]


def read_evaluated(run: Path) -> Evaluated | None:
    """The evaluation of a run; None where there is none that can be read."""
    path = run / FILE
    if not path.is_file():
        return None
    found = json.loads(path.read_bytes())
    return Evaluated(
        str(found["methods"][0]["name"]),
        int(found["prompts"]),
        tuple(_verdict(duel) for duel in found.get("head_to_head", ())),
        tuple(map(str, found.get("notes", ()))),
    )


def _verdict(duel: Mapping[str, Any]) -> Verdict:
    counts = duel["counts"]
    return Verdict(
        str(duel["by"]).removeprefix("gold/"), int(counts["win"]), int(counts["tie"]), int(counts["loss"]),
        _share(duel["score"]), _share(duel["length"]["win_rate"]),
    )  # fmt: skip


def _share(estimate: Mapping[str, Any]) -> str:
    value, low, high = (100 * number(estimate.get(name)) for name in ("value", "low", "high"))
    if math.isnan(value):
        return "not known"
    return f"{value:.0f} % ({max(0.0, low):.0f} to {min(100.0, high):.0f} %)"


def evaluated_table(found: Evaluated | None) -> str:
    """The same as markup; "" where there is none."""
    if found is None or not found.verdicts:
        return ""
    head = "".join(f"<th scope=col>{name}</th>" for name in _HEADS)
    lines = "".join(
        f"<tr><td>{shown(v.by)}</td><td>{v.won:,}</td><td>{v.tied:,}</td><td>{v.lost:,}</td><td>{shown(v.score)}</td>"
        f"<td>{shown(v.equal_length)}</td></tr>"
        for v in found.verdicts
    )
    table = f"<table class=even><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table>"
    note = f"On {found.prompts} held-out prompts, by who did not train it; 95 % intervals over prompts."
    return (
        f"<div class=scroll tabindex=0 role=region aria-label='Win rates'>{table}</div><p class=note>{shown(note)}</p>"
    )
