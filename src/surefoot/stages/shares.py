"""How far chance reaches when pairs are judged: shares, differences and rank correlations with their intervals.

Pure functions of NumPy arrays. Pairs of one prompt are not independent of each other: every interval counts prompts
(`groups`, a number for each pair), not pairs.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from surefoot.evaluate.ratings.proportions import wilson
from surefoot.evaluate.statistics import Estimate
from surefoot.ranks import ranks

DRAWS = 2000
_PICKS_AT_ONCE = 1_000_000


@dataclass(frozen=True, slots=True)
class Share:
    """A share with its 95 % interval, and of how many pairs it is one."""

    value: float
    low: float
    high: float
    count: int

    def __str__(self) -> str:
        return f"{self.value:.1%} ({self.low * 100:.1f} to {self.high * 100:.1f})"


def share_of(right: np.ndarray, groups: np.ndarray) -> Share:
    """The mean of 0, 1 (and 1/2 for ties) with Wilson's interval for as many pairs as they are worth."""
    value = float(right.mean())
    worth = effective_count(right, groups)
    reach = wilson(value * worth, worth)
    return Share(value, reach.low, reach.high, count=len(right))


def effective_count(right: np.ndarray, groups: np.ndarray) -> float:
    """How many independent pairs tell as much: n / design effect.

    The design effect is the variance of the mean with whole groups as units over p (1 - p) / n, and at least 1:
    G / (G - 1) sum over groups of (sum of (x - p))^2 / n^2  over  p (1 - p) / n.
    """
    n, p = len(right), float(right.mean())
    _, which = np.unique(groups, return_inverse=True)
    count = int(which.max()) + 1
    if count == n or count < 2 or not 0 < p < 1:  # pairs of one prompt that are all right: they may be one fact
        return float(count)
    sums = np.bincount(which, right - p)
    clustered = count / (count - 1) * float(np.square(sums).sum()) / n**2
    return n / max(1.0, clustered / (p * (1 - p) / n))


def mean_with_interval(values: np.ndarray, groups: np.ndarray, seed: int = 0) -> Estimate:
    """The mean, and the 2.5 and 97.5 percentiles of means when groups are drawn again with all their values.

    Drawing a single group again says nothing: of one prompt, the interval has no width and means nothing.
    """
    sums = _group_sums(np.stack([values, np.ones(len(values))]), groups)
    means = _drawn(sums, lambda s: s[:, 0] / s[:, 1], seed)
    return _interval(float(values.mean()), means)


def rank_correlation(x: np.ndarray, y: np.ndarray, groups: np.ndarray, seed: int = 0) -> Estimate | None:
    """Spearman's correlation, ties at their mean rank; its interval draws groups again and leaves the ranks alone.

    None where one side never changes.
    """
    a, b = ranks(x), ranks(y)
    if len(a) < 3 or a.std() == 0 or b.std() == 0:
        return None
    a, b = (a - a.mean()) / a.std(), (b - b.mean()) / b.std()
    sums = _group_sums(np.stack([np.ones(len(a)), a, b, a * a, b * b, a * b]), groups)
    return _interval(float((a * b).mean()), _drawn(sums, _correlation, seed))


def group_numbers(keys: Sequence[object]) -> np.ndarray:
    """The same number for equal keys."""
    numbers: dict[object, int] = {}
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], dtype=int)


def _interval(value: float, drawn: np.ndarray) -> Estimate:
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Estimate(value, float(low), float(high))


def _correlation(s: np.ndarray) -> np.ndarray:
    n, a, b, aa, bb, ab = s.T
    spread = np.sqrt(np.maximum((aa / n - (a / n) ** 2) * (bb / n - (b / n) ** 2), 1e-300))
    found: np.ndarray = np.clip((ab / n - a * b / n**2) / spread, -1.0, 1.0)
    return found


def _group_sums(columns: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """[K, N] -> [G, K]: sums within each group."""
    _, which = np.unique(groups, return_inverse=True)
    return np.stack([np.bincount(which, column) for column in columns], 1)


def _drawn(sums: np.ndarray, statistic: Callable[[np.ndarray], np.ndarray], seed: int) -> np.ndarray:
    """The statistic of the sums over groups drawn with replacement, `DRAWS` times."""
    generator = np.random.default_rng(seed)
    count = len(sums)
    at_once = max(1, min(DRAWS, _PICKS_AT_ONCE // count))
    found = [
        statistic(sums[generator.integers(count, size=(min(at_once, DRAWS - done), count))].sum(1))
        for done in range(0, DRAWS, at_once)
    ]
    return np.concatenate(found)
