"""Answers as the pages show them: one prompt through the training, the answers of one step, and token by token."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from surefoot.report.numbers import Run, Sample, number

MOST = 6
COLOURS = {"kl": "KL per token", "advantage": "advantage", "none": "no colour"}
"""What the tokens of an answer can be coloured by -> how it is called."""
KL_LEVELS, ADVANTAGE_LEVELS = (0.05, 0.2, 0.5, 1.0, 2.0), (0.25, 0.75, 1.5)
"""From each of these nats, and of these standard deviations, on a token has a stronger colour."""


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


# ---------------------------------------------------------------------------------------------- token by token
@dataclass(frozen=True, slots=True)
class Token:
    """A token as it is shown: its text, its number in words, and the class that colours it ("" for none)."""

    text: str
    said: str
    look: str


def tokens_of(sample: Sample, colour: str) -> list[Token]:
    """The tokens of an answer by their KL or their advantage; empty where that is not on record.

    The text of an answer that is longer than what was kept of its tokens ends with a token that says so.
    """
    kept = sample.get("tokens") or {}
    texts, numbers = kept.get("texts"), kept.get(colour)
    if not texts or not numbers:
        return []
    shown = [Token(str(text), *_looks(colour, number(value))) for text, value in zip(texts, numbers, strict=False)]
    more = int(number(sample.get("length"))) - len(shown) if sample.get("length") else 0
    return [*shown, Token(f" … and {more} more tokens", "", "")] if more > 0 else shown


def colours_of(samples: Sequence[Sample]) -> list[str]:
    """What the tokens of these answers can be coloured by."""
    known = {name for sample in samples for name in sample.get("tokens") or {}}
    return [name for name in COLOURS if name in known]


def _looks(colour: str, value: float) -> tuple[str, str]:
    if not math.isfinite(value):
        return f"{COLOURS[colour]} not known", ""
    levels = KL_LEVELS if colour == "kl" else ADVANTAGE_LEVELS
    strength = sum(abs(value) >= level for level in levels)
    kind = ("k" if value > 0 else "m") if colour == "kl" else "p" if value > 0 else "m"
    unit = " nats" if colour == "kl" else ""
    said = f"{COLOURS[colour]} {value:.3g}{unit}".replace("-", "\u2212")
    return said, f"{kind}{min(strength, 3 if kind == 'm' else strength)}" if strength else ""
