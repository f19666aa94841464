"""What a comparison says in words and tables: for a terminal, for Markdown, and for a page."""

from collections.abc import Sequence
from dataclasses import astuple, dataclass

import numpy as np
from rich import box
from rich.table import Table
from rich.text import Text

from surefoot.display import visible
from surefoot.evaluate.duel import sentences as duel_sentences
from surefoot.evaluate.results import Method, Pair, Result, Row
from surefoot.evaluate.runs import BEST_OF
from surefoot.evaluate.statistics import Estimate

_PER_TOKEN = "KL a token"
FEW = 30
"""With fewer prompts than this a bootstrap over prompts is known to be too narrow."""


@dataclass(frozen=True, slots=True)
class Cells:
    """A table in texts: its title, its column heads, and its lines."""

    title: str
    heads: Sequence[str]
    lines: Sequence[Sequence[str]]


def shown_name(name: str) -> str:
    """As people say it: "best of 4", and "best of n" of the family."""
    if name == BEST_OF:
        return f"{BEST_OF} n"
    return name.replace("/", " ") if name.startswith(f"{BEST_OF}/") else name


def tables(result: Result) -> list[Cells]:
    """One for each gold scorer, the one at equal KL, and what everything cost."""
    found = [_scores(result, gold) for gold in result.golds]
    if result.duels:
        found.append(_duels(result))
    if result.matched is not None and result.golds:
        found.append(_matched(result))
    if any(cost is not None for row in result.rows for cost in astuple(row.method.cost)):
        found.append(_costs(result))
    return found


def _scores(result: Result, gold: str) -> Cells:
    digits = _digits([row.means[gold].value for row in result.rows])
    heads = ["", "mean [95 %]", f"less {result.baseline}'s [95 %]", "wins [95 %]", "KL", _PER_TOKEN, "tokens", "seeds"]
    if result.has_proxy:
        heads.insert(4, "proxy")
    lines = []
    for row in result.rows:
        name = row.method.name
        line = [shown_name(name), _with_ends(row.means[gold], digits)]
        line += [_signed(row.changes[gold], digits), _share(row.win_rates[gold])] if row.changes else ["", ""]
        line += [_plain(row.means["proxy"])] if result.has_proxy else []
        bound = "≤ " if row.method.family == BEST_OF else ""
        line += [bound + _plain(row.means["kl"]), bound + _plain(row.means["kl_per_token"], 3),
                 _plain(row.means["length"], 1)]  # fmt: skip
        lines.append(
            [*line, "" if name == result.baseline or row.method.family == BEST_OF else str(len(row.method.seeds))]
        )
    prompts, against = result.facts["prompts"], result.baseline
    title = f"{prompts} held-out prompts, judged by {gold}; wins against {against}; KL in nats an answer"
    return Cells(title, heads, lines)


def _duels(result: Result) -> Cells:
    heads = ["", "won", "tied", "lost", "wins, ties half [95 %]", "of decided [95 %]", "at equal length [95 %]"]
    lines = [
        [duel.by, *map(str, (duel.counts.win, duel.counts.tie, duel.counts.loss)), _share(duel.score),
         duel.decided.percent(), duel.length.win_rate.percent()]
        for duel in result.duels
    ]  # fmt: skip
    return Cells(f"pair by pair against {result.baseline}", heads, lines)


def _matched(result: Result) -> Cells:
    assert result.matched is not None
    golds, found = result.golds, result.matched
    heads = ["", *(h for gold in golds for h in (f"{gold} [95 %]", f"less {result.baseline}'s [95 %]"))]
    digits = {gold: _digits([family[gold].value for family in found.families.values()]) for gold in golds}
    lines = [
        [shown_name(name)]
        + [
            text
            for gold in golds
            for text in (_with_ends(family[gold], digits[gold]), _signed(found.changes[name][gold], digits[gold]))
        ]
        for name, family in found.families.items()
    ]
    return Cells(f"at an equal KL of {found.kl:.3g} nats an answer, the largest that all reached", heads, lines)


def _costs(result: Result) -> Cells:
    lines = []
    for row in result.rows:
        cost, method = row.method.cost, row.method
        if method.family == BEST_OF:
            each = f"{method.name.rpartition('/')[2]} for every answer given"
            lines.append([shown_name(method.name), each, each, "0", "0"])
        elif method.name != result.baseline:
            lines.append([method.name, *map(_count, astuple(cost))])
    heads = ["", "answers sampled", "scores asked", "rows learnt", "seconds in steps"]
    return Cells("what a run took, as its steps recorded it", heads, lines)


def terminal(result: Result) -> list[Table]:
    """The tables as rich shows them, without the column that has the least to say."""
    shown = []
    for cells in tables(result):
        table = Table(title=Text(visible(cells.title)), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
        kept = [place for place, head in enumerate(cells.heads) if head != _PER_TOKEN]
        for place in kept:
            table.add_column(Text(visible(cells.heads[place])), justify="right" if place else "left", no_wrap=True)
        for line in cells.lines:
            table.add_row(*(Text(visible(line[place])) for place in kept))
        shown.append(table)
    return shown


def markdown(result: Result) -> str:
    """The tables and sentences for compare.md."""
    parts = ["# Evaluation" if result.duels else "# Comparison"]
    for cells in tables(result):
        lines = [cells.heads, ["---"] + ["--:"] * (len(cells.heads) - 1), *cells.lines]
        parts.append(f"{_cell(cells.title)[:1].upper()}{_cell(cells.title)[1:]}:")
        parts.append("\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines))
    parts += ["\n".join(f"- {_cell(s)}" for s in [*sentences(result), *result.notes])]
    return "\n\n".join([*parts, _SMALL_PRINT]) + "\n"


_SMALL_PRINT = (
    "Intervals are 95 %: prompts are drawn again (bootstrap, in pairs for differences); where a method has several "
    "seeds, Student's t of their spread is added. A win is a better gold score than an answer of the baseline to the "
    "same prompt; ties are half a win. KL is from the baseline, exact over the vocabulary at every token of the "
    "answers, in nats an answer; that of best of n is the bound log n - (n - 1)/n."
)


def _cell(text: str) -> str:
    return visible(text).replace("|", "\\|").replace("<", "&lt;")


# ---------------------------------------------------------------------------------------------- in words
def sentences(result: Result) -> list[str]:
    """What is beyond chance, and what is not; best of n is spoken of at equal KL, the rest is in the tables."""
    runs = [row for row in result.rows[1:] if row.method.family != BEST_OF]
    found = [
        f"{row.method.name} against {result.baseline} by {gold}: {_verdict(row.changes[gold])}{_each(row, gold)}."
        for row in runs
        for gold in result.golds
    ]
    trained = {row.method.name for row in runs}
    found += [s for duel in result.duels for s in duel_sentences(duel, runs[0].method.name, result.baseline)]
    found += [
        _pair(pair, g, "") for pair in result.pairs if {pair.first, pair.second} <= trained for g in result.golds
    ]
    if result.matched is not None:
        at = f" at a KL of {result.matched.kl:.3g}"
        found += [_pair(pair, gold, at) for pair in result.matched.pairs for gold in result.golds]
    return found


def _pair(pair: Pair, gold: str, where: str) -> str:
    first, second = map(shown_name, (pair.first, pair.second))
    return f"{first} against {second} by {gold}{where}: {_verdict(pair.differences[gold])}."


def _each(row: Row, gold: str) -> str:
    """What each seed has, where there are several: so few numbers are best seen themselves."""
    found = row.by_seed[gold]
    digits = _digits(found)
    return f" (by seed: {', '.join(f'{x:+.{digits}f}' for x in found)})" if len(found) > 1 else ""


def _verdict(change: Estimate) -> str:
    words = {1: "better", -1: "worse", 0: "no difference beyond chance"}[change.direction]
    return f"{words}, {_signed(change, _digits([change.value, change.high - change.low]))}"


def notes_of(methods: Sequence[Method]) -> list[str]:
    """What to know before believing the numbers."""
    runs = [m for m in methods[1:] if m.family != BEST_OF]
    found = []
    for m in runs:
        if len(m.seeds) == 1:
            found.append(f"{m.name} is one run: its intervals are of prompts only and say nothing of another seed.")
        elif len(m.seeds) == 2:
            found.append(
                f"{m.name} has 2 seeds, from which a spread is hardly known: its intervals are wide for that."
            )
    several = [f"{m.name} ({len(m.seeds)})" for m in runs if len(m.seeds) > 2]
    if several:
        found.append(f"The intervals of {', '.join(several)} are over prompts and over seeds.")
    if any(m.family == BEST_OF for m in methods):
        found.append(
            "The KL of best of n is a bound: the truth may lie further left, so at equal KL it is not flattered."
        )
    prompts = methods[0].values["kl"].shape[1]
    if prompts < FEW:
        found.append(f"{prompts} prompts are few: intervals of fewer than {FEW} are known to be too narrow.")
    found += [
        f"{gold} gave every answer of every model the same number: it does not tell them apart."
        for gold in methods[0].golds
        if np.ptp(np.concatenate([m.values[gold].ravel() for m in methods])) == 0
    ]
    return found


# ---------------------------------------------------------------------------------------------- numbers
def _digits(values: Sequence[float]) -> int:
    """After the point: so that the largest of the numbers has about three significant ones."""
    largest = max((abs(v) for v in values), default=0.0)
    return 3 if largest < 1 else 2 if largest < 100 else 1 if largest < 1000 else 0


def _plain(estimate: Estimate, digits: int = 2) -> str:
    return f"{estimate.value:.{digits}f}"


def _with_ends(estimate: Estimate, digits: int) -> str:
    value, low, high = (f"{x:.{digits}f}" for x in (estimate.value, estimate.low, estimate.high))
    return f"{value} [{low}, {high}]"


def _signed(estimate: Estimate, digits: int) -> str:
    value, low, high = (f"{x:+.{digits}f}" for x in (estimate.value, estimate.low, estimate.high))
    return f"{value} [{low}, {high}]"


def _share(estimate: Estimate) -> str:
    value, low, high = (f"{100 * x:.0f}" for x in (estimate.value, max(0.0, estimate.low), min(1.0, estimate.high)))
    return f"{value} % [{low}, {high}]"


def _count(value: float | None) -> str:
    return "not recorded" if value is None else f"{value:,.0f}"
