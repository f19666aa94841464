"""How far chance reaches: means, differences and win rates with intervals, best of n, and the place of equal KL.

Pure functions of NumPy arrays. Legend: `S` seeds (runs of one method), `P` prompts, `K` answers to a prompt. What a
method did is a matrix [S, P], each entry the mean over the answers of one run to one prompt. All methods answer the
same prompts, so prompts are drawn again for all of them at once, and what is compared is compared prompt by prompt.
"""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from math import comb

import numpy as np

RESAMPLES = 4000
Matrix = np.ndarray


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

    def as_dict(self) -> dict[str, float]:
        """For a file."""
        return {"value": self.value, "low": self.low, "high": self.high}


# ---------------------------------------------------------------------------------------------- seeds and prompts
def mean_of(values: Matrix, seed: int = 0) -> Estimate:
    """The mean of a [S, P] matrix over seeds and prompts."""
    return _contrast(((1.0, values),), seed)


def difference_of(values: Matrix, other: Matrix, seed: int = 0) -> Estimate:
    """The mean of `values` less that of `other`, paired by prompt; their seeds are independent of each other.

    Raises:
        ValueError: they are of different prompts.
    """
    if np.shape(values)[1] != np.shape(other)[1]:
        raise ValueError(f"{np.shape(values)[1]} and {np.shape(other)[1]} prompts: a difference is paired by prompt")
    return _contrast(((1.0, values), (-1.0, other)), seed)


def _contrast(parts: Sequence[tuple[float, Matrix]], seed: int) -> Estimate:
    """The sum of sign x mean over [S, P] matrices of the same prompts.

    Its interval: the prompts drawn again, plus, for each matrix, the standard error of its seeds x Student's t.

    A bootstrap of three seeds is far too narrow: it knows neither that their spread is smaller than that of all
    seeds, by (S - 1) / S, nor how little three numbers say about a spread. Student's t with S - 1 degrees knows both.
    What differs between prompts because each run was sampled anew is in the spread of the seeds already; it is taken
    out of the spread of the prompts, so that it is counted once. A matrix of one seed has no spread of seeds: the
    interval then speaks of that run alone.
    """
    matrices = [(sign, np.asarray(values, dtype=float)) for sign, values in parts]
    of_prompt: np.ndarray = sum(sign * x.mean(0) for sign, x in matrices)
    value = float(of_prompt.mean())
    drawn = _drawn_again(len(of_prompt), seed)
    deviation = (of_prompt[drawn].mean(1) - value) * _share_of_prompts(of_prompt, [x for _, x in matrices])
    generator = np.random.default_rng([seed, len(of_prompt)])
    for _, x in matrices:
        if len(x) > 1:
            error = x.mean(1).std(ddof=1) / math.sqrt(len(x))
            deviation = deviation + error * generator.permutation(_students_t(len(x) - 1))
    low, high = np.quantile(deviation, [0.025, 0.975])
    return Estimate(value, value + float(low), value + float(high))


@functools.lru_cache(maxsize=8)
def _drawn_again(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, count, size=(RESAMPLES, count))


@functools.lru_cache(maxsize=8)
def _students_t(degrees: int) -> np.ndarray:
    """`RESAMPLES` quantiles of Student's t, evenly in probability.

    With t = sqrt(degrees) tan(a) the density of the angle a is cos(a)^(degrees - 1), up to a factor.
    """
    angles = np.linspace(-np.pi / 2, np.pi / 2, 20_001)
    density = np.cos(angles) ** (degrees - 1)
    below = np.concatenate([[0.0], np.cumsum(density[1:] + density[:-1])])
    shares = (np.arange(RESAMPLES) + 0.5) / RESAMPLES
    quantiles: np.ndarray = math.sqrt(degrees) * np.tan(np.interp(shares, below / below[-1], angles))
    return quantiles


def _share_of_prompts(of_prompt: np.ndarray, matrices: Sequence[Matrix]) -> float:
    """Which part of the spread between prompts, as a standard deviation, is not that of sampling each run anew."""
    if len(of_prompt) < 2:
        return 1.0
    between = float(of_prompt.var(ddof=1))
    anew = sum(_residual(x) / len(x) for x in matrices if len(x) > 1)
    return math.sqrt(max(0.0, 1 - anew / between)) if between > 0 else 1.0


def _residual(x: Matrix) -> float:
    """Mean square of what neither the seed nor the prompt explains in [S, P]."""
    left = x - x.mean(0, keepdims=True) - x.mean(1, keepdims=True) + x.mean()
    return float(np.square(left).sum() / ((x.shape[0] - 1) * (x.shape[1] - 1)))


def per_unit(values: Matrix, units: Matrix) -> Matrix:
    """A ratio of sums as a matrix whose mean is that ratio, seed by seed: KL per answer and tokens -> KL per token.

    Its entries are R + (value - R x unit) / mean unit with R the ratio of the seed: what each prompt adds to R.
    """
    ratio = values.sum(1, keepdims=True) / units.sum(1, keepdims=True)
    matrix: Matrix = ratio + (values - ratio * units) / units.mean(1, keepdims=True)
    return matrix


def wins(answers: Matrix, others: Matrix) -> Matrix:
    """[P, K] against [P, L] -> [P, K]: how often each answer beats the others to its prompt; a tie is half a win."""
    ahead = answers[:, :, None] - others[:, None, :]
    share: Matrix = ((ahead > 0) + 0.5 * (ahead == 0)).mean(2)
    return share


# ---------------------------------------------------------------------------------------------- best of n
def best_of_weights(proxy: Matrix, n: int) -> Matrix:
    """[P, N] -> [P, N]: how probable each of N answers is to be the best by `proxy` of n drawn without replacement.

    The answer of rank i from below is the best of C(i - 1, n - 1) of all C(N, n) subsets; equal answers share. The
    mean of any quantity under these weights is unbiased for the best of n, and has the least variance of all that
    can be made of N answers (it is the mean over every subset).

    Raises:
        ValueError: there are not n answers.
    """
    count = proxy.shape[1]
    if not 1 <= n <= count:
        raise ValueError(f"the best of {n} needs at least {n} answers, not {count}")
    of_rank = np.array([comb(i - 1, n - 1) / comb(count, n) for i in range(1, count + 1)])
    weights = np.empty(proxy.shape)
    for row, scores in enumerate(proxy):
        _, group, size = np.unique(scores, return_inverse=True, return_counts=True)
        weights[row] = (np.bincount(np.repeat(np.arange(len(size)), size), of_rank) / size)[group]
    return weights


def best_of_kl(n: int) -> float:
    """log n - (n - 1) / n: a bound on the KL of the best of n from the model it is drawn from, in nats an answer.

    It is met where no two answers tie and none is likely (Beirami et al., 2024), and is above the truth elsewhere.
    """
    return math.log(n) - (n - 1) / n


# ---------------------------------------------------------------------------------------------- at equal KL
def crossing(kl: Sequence[float], target: float) -> tuple[int, float]:
    """Where a path first reaches the divergence `target`: between its points i and i + 1, the share w of the way.

    The way is measured on the axis of the square root of the KL, along which gold is nearly straight at first.

    Raises:
        ValueError: it never gets there; nothing is said about places where nobody was.
    """
    if kl and kl[0] >= target:
        return 0, 0.0
    for i in range(len(kl) - 1):
        if kl[i + 1] >= target:
            here, there = (math.sqrt(max(k, 0.0)) for k in kl[i : i + 2])
            return i, (math.sqrt(target) - here) / (there - here)
    raise ValueError(f"a KL of {target:g} lies beyond all points (the largest is {max(kl, default=0.0):g})")


# ---------------------------------------------------------------------------------------------- before and after
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
class Comparison:
    """The estimates of one measure; the change is resampled in pairs, prompt by prompt."""

    before: Estimate
    after: Estimate
    change: Estimate


def compare(measure: Measure, seed: int = 0) -> Comparison:
    """Bootstrap over prompts of one run: the 2.5 and 97.5 percentiles of `RESAMPLES` drawings with replacement.

    Raises:
        ValueError: lists of different lengths, or none at all.
    """
    count = len(measure.before)
    if count == 0 or len(measure.after) != count:
        raise ValueError(
            f"{measure.name}: {count} values before and {len(measure.after)} after; give one of each for every prompt"
        )
    rows = np.vstack([np.arange(count), _drawn_again(count, seed)])  # the first row is the sample itself
    before = _ratio(measure.before, measure.before_weights, rows)
    after = _ratio(measure.after, measure.after_weights, rows)
    return Comparison(_percentiles(before), _percentiles(after), _percentiles(after - before))


def _ratio(values: Sequence[float], weights: Sequence[float], rows: np.ndarray) -> np.ndarray:
    divisor = np.asarray(weights, dtype=float) if len(weights) else np.ones(len(values))
    total: np.ndarray = np.asarray(values, dtype=float)[rows].sum(1) / np.maximum(divisor[rows].sum(1), 1e-9)
    return total


def _percentiles(values: np.ndarray) -> Estimate:
    low, high = np.quantile(values[1:], [0.025, 0.975])
    return Estimate(float(values[0]), float(low), float(high))
