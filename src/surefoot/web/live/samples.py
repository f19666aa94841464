"""One prompt through the training: its answers at the first evaluation, at some between, and at the last."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from surefoot.report.numbers import Run, Sample, number

MOST = 6


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt's answers.

    Attributes:
        answers: step -> what was answered then.
        place: among all prompts; before, after: the neighbours' rows, None at the ends.
    """

    row: str
    text: str
    answers: Mapping[int, Sequence[Sample]]
    place: int
    of: int
    before: str | None
    after: str | None


def prompt_of(run: Run, row: str | None) -> Prompt | None:
    """A prompt of the evaluations; the first where none is named. None where there is none of that row."""
    rows = _rows(run)
    row = rows[0] if row is None and rows else row
    if row not in rows:
        return None
    place = rows.index(row)
    chosen = spread(run.evaluations)
    answers = {int(e["step"]): [s for s in e["samples"] if _row(s) == row] for e in chosen}
    text = next((s.get("prompt") for found in answers.values() for s in found), "")
    return Prompt(
        row, str(text), {step: found for step, found in answers.items() if found}, place, len(rows),
        rows[place - 1] if place else None, rows[place + 1] if place + 1 < len(rows) else None,
    )  # fmt: skip


def spread(evaluations: Sequence[Mapping[str, Any]], most: int = MOST) -> list[Mapping[str, Any]]:
    """So many at most, evenly chosen, the first and the last among them."""
    last = len(evaluations) - 1
    if last < most:
        return list(evaluations)
    return [evaluations[round(n * last / (most - 1))] for n in range(most)]


def _rows(run: Run) -> list[str]:
    """Rows of all evaluations, in the order of the last."""
    return list(dict.fromkeys(_row(s) for e in reversed(run.evaluations) for s in e["samples"]))


def _row(sample: Sample) -> str:
    return str(sample.get("row"))


def facts(sample: Sample) -> dict[str, float]:
    """The numbers of an answer."""
    return {name: number(sample.get(name)) for name in ("score", "kl", "length")}
