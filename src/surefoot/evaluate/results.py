"""Answers and scores -> what a comparison says, with its intervals. Nothing here loads, samples, draws or writes.

Legend: `S` seeds of a method, `P` prompts, `K` answers to each.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import combinations
from typing import Any

import numpy as np

from surefoot.evaluate.answers import Answers
from surefoot.evaluate.duel import Duel
from surefoot.evaluate.runs import BEST_OF
from surefoot.evaluate.statistics import (
    Estimate,
    Matrix,
    best_of_kl,
    best_of_weights,
    crossing,
    difference_of,
    mean_of,
    per_unit,
    wins,
)

Numbers = Mapping[str, np.ndarray]
"""Name of a quantity -> its values."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What one run took, the mean over its method's seeds; None where it is not on record.

    Attributes:
        answers: sampled. scores: asked of its reward. rows: learnt from, of a file. seconds: of its steps.
    """

    answers: float | None = None
    scores: float | None = None
    rows: float | None = None
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Method:
    """One row of the comparison.

    Attributes:
        values: quantity -> [S, P]: "kl", "length", "ended", "proxy", "gold/<name>", and "wins/gold/<name>" against
            the baseline.
        seeds: of its runs, None where not known. folders: theirs.
    """

    name: str
    values: Numbers
    seeds: tuple[int | None, ...] = (None,)
    folders: tuple[str, ...] = ()
    cost: Cost = field(default_factory=Cost)

    @property
    def family(self) -> str:
        """What shares one curve."""
        return self.name.partition("/")[0]

    @property
    def golds(self) -> list[str]:
        """Its gold quantities."""
        return [name for name in self.values if name.startswith("gold/")]


def trained(name: str, runs: Sequence[Answers], baseline: Answers, **facts: Any) -> Method:
    """The method of these runs, one a seed."""
    rows = [_by_prompt(_with_wins(run.values, baseline.values)) for run in runs]
    return Method(name, {quantity: np.stack([row[quantity] for row in rows]) for quantity in rows[0]}, **facts)


def best_of(n: int, pool: Answers, baseline: Answers) -> Method:
    """The baseline's best of n by the proxy, estimated from answers that are not those of the baseline's own row."""
    weights = best_of_weights(pool.values["proxy"], n)
    values = {name: (weights * x).sum(1)[None] for name, x in _with_wins(pool.values, baseline.values).items()}
    values["kl"] = np.full_like(values["kl"], best_of_kl(n))
    return Method(f"{BEST_OF}/{n}", values)


def _with_wins(values: Numbers, baseline: Numbers) -> Numbers:
    golds = [name for name in values if name.startswith("gold/")]
    return {**values, **{f"wins/{name}": wins(values[name], baseline[name]) for name in golds}}


def _by_prompt(values: Numbers) -> dict[str, np.ndarray]:
    return {name: x.mean(1) for name, x in values.items()}


# ---------------------------------------------------------------------------------------------- the table
@dataclass(frozen=True, slots=True)
class Row:
    """What is said of a method.

    Attributes:
        means: quantity -> mean, "kl_per_token" among them.
        changes: quantity -> difference from the baseline, paired by prompt; empty for the baseline itself.
        by_seed: gold -> that difference of each seed.
        win_rates: gold -> how often its answer beats one of the baseline.
    """

    method: Method
    means: Mapping[str, Estimate]
    changes: Mapping[str, Estimate]
    by_seed: Mapping[str, list[float]]
    win_rates: Mapping[str, Estimate]


@dataclass(frozen=True, slots=True)
class Pair:
    """Gold of one method less that of another, paired by prompt."""

    first: str
    second: str
    differences: Mapping[str, Estimate]


def rows_of(methods: Sequence[Method], seed: int) -> list[Row]:
    """A row for each method; the first is the baseline."""
    baseline = methods[0]
    return [_row(method, None if method is baseline else baseline, seed) for method in methods]


def _row(method: Method, baseline: Method | None, seed: int) -> Row:
    values = method.values
    named = [name for name in values if not name.startswith("wins/")]
    means = {name: mean_of(values[name], seed) for name in named}
    means["kl_per_token"] = mean_of(per_unit(values["kl"], values["length"]), seed)
    if baseline is None:
        return Row(method, means, {}, {}, {})
    compared = [name for name in named if name not in ("kl", "ended")]
    changes = {name: difference_of(values[name], baseline.values[name], seed) for name in compared}
    by_seed = {gold: (values[gold] - baseline.values[gold]).mean(1).tolist() for gold in method.golds}
    win_rates = {gold: mean_of(values[f"wins/{gold}"], seed) for gold in method.golds}
    return Row(method, means, changes, by_seed, win_rates)


def pairs_of(methods: Sequence[Method], seed: int) -> list[Pair]:
    """Every pair of methods but those with the baseline, which are in the rows already, and of two best of n."""
    chosen = [pair for pair in combinations(methods[1:], 2) if not all(m.family == BEST_OF for m in pair)]
    return [
        Pair(a.name, b.name, {gold: difference_of(a.values[gold], b.values[gold], seed) for gold in a.golds})
        for a, b in chosen
    ]


# ---------------------------------------------------------------------------------------------- the frontier
@dataclass(frozen=True, slots=True)
class Point:
    """Where a policy was: its KL in nats per answer, and quantity -> [P]."""

    label: str
    kl: float
    values: Numbers

    def mean(self, quantity: str) -> float:
        """Over the prompts; NaN where it was not measured."""
        return float(self.values[quantity].mean()) if quantity in self.values else float("nan")


@dataclass(frozen=True, slots=True)
class Path:
    """The way of one seed of a family, from the baseline on."""

    family: str
    points: tuple[Point, ...]

    @property
    def reach(self) -> float:
        """Its largest KL."""
        return max(point.kl for point in self.points)

    def at(self, kl: float, quantity: str) -> np.ndarray:
        """[P]: a quantity where the path first has this KL, between two points in proportion."""
        i, share = crossing([point.kl for point in self.points], kl)
        here = self.points[i].values[quantity]
        if share == 0:
            return here
        between: np.ndarray = (1 - share) * here + share * self.points[i + 1].values[quantity]
        return between


def paths_of(methods: Sequence[Method], recorded: Mapping[tuple[str, int], Sequence[Point]]) -> list[Path]:
    """One path a family and seed.

    A family of one method goes over what its run recorded, in the order of the steps; one of several strengths goes
    from the weakest to the strongest.

    Args:
        methods: the first is the baseline.
        recorded: (method, place of its seed) -> points of its run's evaluations.
    """
    origin = _point(methods[0], 0)
    paths = []
    for family in dict.fromkeys(method.family for method in methods[1:]):
        members = [method for method in methods[1:] if method.family == family]
        for s in range(len(members[0].seeds)):
            ends = sorted((_point(method, s) for method in members), key=lambda point: point.kl)
            before = recorded.get((members[0].name, s), ()) if len(members) == 1 else ()
            paths.append(Path(family, (origin, *before, *(end for end in ends if end.kl > 0 or len(ends) == 1))))
    return paths


def _point(method: Method, s: int) -> Point:
    values = {name: x[s] for name, x in method.values.items() if not name.startswith("wins/")}
    return Point(method.name, float(values["kl"].mean()), values)


@dataclass(frozen=True, slots=True)
class Matched:
    """The families at one KL, the largest that every seed of each reached: gold, and gold less the baseline's."""

    kl: float
    families: Mapping[str, Mapping[str, Estimate]]
    changes: Mapping[str, Mapping[str, Estimate]]
    pairs: Sequence[Pair]


def matched(paths: Sequence[Path], baseline: Method, seed: int) -> Matched | None:
    """What gold each family has at equal KL; None where there are no two families, or one never left the baseline."""
    families = list(dict.fromkeys(path.family for path in paths))
    kl = min((path.reach for path in paths), default=0.0)
    if len(families) < 2 or kl <= 0:
        return None

    def there(family: str, gold: str) -> Matrix:
        return np.stack([path.at(kl, gold) for path in paths if path.family == family])

    golds = baseline.golds
    return Matched(
        kl,
        {f: {gold: mean_of(there(f, gold), seed) for gold in golds} for f in families},
        {f: {gold: difference_of(there(f, gold), baseline.values[gold], seed) for gold in golds} for f in families},
        [
            Pair(a, b, {gold: difference_of(there(a, gold), there(b, gold), seed) for gold in golds})
            for a, b in combinations(families, 2)
        ],
    )


# ---------------------------------------------------------------------------------------------- all of it
@dataclass(frozen=True, slots=True)
class Result:
    """A whole comparison.

    Attributes:
        facts: how it was made: prompts, answers, estimator, sampling, scorers.
        notes: what to know before believing it.
        duels: answers against answers of the baseline, pair by pair, by each who judged them so.
    """

    facts: Mapping[str, Any]
    rows: Sequence[Row]
    pairs: Sequence[Pair]
    paths: Sequence[Path]
    matched: Matched | None
    notes: Sequence[str]
    duels: Sequence[Duel] = ()

    @property
    def baseline(self) -> str:
        """What all are compared with."""
        return self.rows[0].method.name

    @property
    def golds(self) -> list[str]:
        """Its gold quantities."""
        return self.rows[0].method.golds

    @property
    def has_proxy(self) -> bool:
        """Whether the trained score was asked too."""
        return "proxy" in self.rows[0].method.values

    def as_dict(self) -> dict[str, Any]:
        """For compare.json."""
        return {
            **self.facts,
            "notes": list(self.notes),
            "methods": [_as_dict(row) for row in self.rows],
            "differences": [_pair_dict(pair) for pair in self.pairs],
            "frontier": [{"family": p.family, "points": list(_points(p, [*self.golds, "proxy"]))} for p in self.paths],
            "matched": None if self.matched is None else _matched_dict(self.matched),
            **({"head_to_head": [duel.as_dict() for duel in self.duels]} if self.duels else {}),
        }


def _as_dict(row: Row) -> dict[str, Any]:
    m = row.method
    return {
        "name": m.name,
        "seeds": list(m.seeds),
        "folders": list(m.folders),
        "means": _estimates(row.means),
        "less_baseline": _estimates(row.changes),
        "win_rates": _estimates(row.win_rates),
        "cost": asdict(m.cost),
        "means_by_seed": {name: values.mean(1).tolist() for name, values in m.values.items()},
        "less_baseline_by_seed": dict(row.by_seed),
    }


def _estimates(found: Mapping[str, Estimate]) -> dict[str, dict[str, float]]:
    return {name: estimate.as_dict() for name, estimate in found.items()}


def _pair_dict(pair: Pair) -> dict[str, Any]:
    return {"first": pair.first, "second": pair.second, "differences": _estimates(pair.differences)}


def _points(path: Path, quantities: Sequence[str]) -> Iterator[dict[str, Any]]:
    for point in path.points:
        known = [q for q in quantities if q in point.values]
        yield {"label": point.label, "kl": point.kl, **{q: point.mean(q) for q in known}}


def _matched_dict(found: Matched) -> dict[str, Any]:
    return {
        "kl": found.kl,
        "families": {name: _estimates(golds) for name, golds in found.families.items()},
        "less_baseline": {name: _estimates(golds) for name, golds in found.changes.items()},
        "differences": [_pair_dict(pair) for pair in found.pairs],
    }
