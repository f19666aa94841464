"""Before and after on the same prompts, with intervals that say how far chance reaches."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 4000


@dataclass(frozen=True, slots=True)
class Measure:
    """One quantity over the same prompts, before and after: a ratio of sums, so that pooled shares can be resampled.

    Attributes:
        name: as the table shows it. digits: after the point.
        before, after: one number a prompt, in the same order of prompts.
        before_weights, after_weights: what each number is divided by in sum, for instance tokens; ones give a mean.
    """

    name: str
    before: Sequence[float]
    after: Sequence[float]
    before_weights: Sequence[float] = ()
    after_weights: Sequence[float] = ()
    digits: int = 2


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value and its 95 % interval."""

    value: float
    low: float
    high: float

    @property
    def direction(self) -> int:
        """1 or -1 where the interval lies on one side of zero, else 0: chance alone may explain it."""
        return int(self.low > 0) - int(self.high < 0)


@dataclass(frozen=True, slots=True)
class Comparison:
    """The estimates of one measure; the change is resampled in pairs, prompt by prompt."""

    before: Estimate
    after: Estimate
    change: Estimate


def compare(measure: Measure, seed: int = 0) -> Comparison:
    """Bootstrap over prompts: the 2.5 and 97.5 percentiles of `RESAMPLES` drawings with replacement.

    Raises:
        ValueError: lists of different lengths, or none at all.
    """
    count = len(measure.before)
    if count == 0 or len(measure.after) != count:
        raise ValueError(
            f"{measure.name}: {count} values before and {len(measure.after)} after; give one of each for every prompt"
        )
    drawn = np.random.default_rng(seed).integers(0, count, size=(RESAMPLES, count))
    rows = np.vstack([np.arange(count), drawn])  # the first row is the sample itself
    before = _ratio(measure.before, measure.before_weights, rows)
    after = _ratio(measure.after, measure.after_weights, rows)
    return Comparison(_estimate(before), _estimate(after), _estimate(after - before))


def _ratio(values: Sequence[float], weights: Sequence[float], rows: np.ndarray) -> np.ndarray:
    divisor = np.asarray(weights, dtype=float) if len(weights) else np.ones(len(values))
    total: np.ndarray = np.asarray(values, dtype=float)[rows].sum(1) / np.maximum(divisor[rows].sum(1), 1e-9)
    return total


def _estimate(values: np.ndarray) -> Estimate:
    low, high = np.quantile(values[1:], [0.025, 0.975])
    return Estimate(float(values[0]), float(low), float(high))
