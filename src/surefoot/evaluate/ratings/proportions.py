"""Shares and how sure they are: Wilson's interval, the exact test of a fair coin, and the record of both."""

import math
from dataclasses import dataclass
from statistics import NormalDist


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value, its interval, and how many votes or pairs it was made of. All NaN where it was made of none."""

    value: float
    low: float
    high: float
    count: float

    def percent(self) -> str:
        """The value and its interval in whole percent, for instance "63 % (54 to 72 %)"."""
        if math.isnan(self.value):
            return "unknown"
        interval = "" if math.isnan(self.low) else f" ({_percent(self.low)} to {_percent(self.high)} %)"
        return f"{_percent(self.value)} %{interval}"

    def number(self) -> str:
        """The value and its interval with two digits, for instance "0.41 (0.22 to 0.58)"."""
        if math.isnan(self.value):
            return "unknown"
        interval = "" if math.isnan(self.low) else f" ({self.low:.2f} to {self.high:.2f})"
        return f"{self.value:.2f}{interval}"

    def wider(self, other: "Estimate") -> "Estimate":
        """The same value with an interval that holds both; one that is NaN adds nothing."""
        low, high = min(_known(self.low, other.low)), max(_known(self.high, other.high))
        return Estimate(self.value, low, high, self.count)


def _percent(share: float) -> str:
    return f"{100 * share:.0f}"


def _known(*numbers: float) -> list[float]:
    return [x for x in numbers if not math.isnan(x)] or [math.nan]


def wilson(successes: float, count: float, level: float = 0.95) -> Estimate:
    """A share and its Wilson score interval: the shares p that a test of `successes` against p does not reject.

    (p̂ + z²/2n ± z √(p̂(1 - p̂)/n + z²/4n²)) / (1 + z²/n), with p̂ the observed share (Wilson 1927). Unlike p̂ ± z·error it
    stays within 0 and 1 and has a width where p̂ is 0 or 1. It takes the n trials as independent.
    `successes` may hold halves, where no preference counts as half of each; `count` what dependent trials are worth.
    """
    if not 0 <= successes <= count:
        raise ValueError(f"{successes} successes of {count}: give a number from 0 to the count")
    if count == 0:
        return Estimate(math.nan, math.nan, math.nan, 0)
    z = NormalDist().inv_cdf(0.5 + level / 2)
    share, shrink = successes / count, 1 + z * z / count
    centre = (share + z * z / (2 * count)) / shrink
    half = z / shrink * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    low = 0.0 if successes == 0 else centre - half  # exact at the ends, where rounding would leave 1e-18
    high = 1.0 if successes == count else centre + half
    return Estimate(share, low, high, count)


def fair_coin_p(heads: int, count: int) -> float:
    """How often a fair coin is at least this far from half, on either side: the exact two-sided binomial test.

    min(1, 2 P(X ≤ min(k, n - k))) with X ~ Binomial(n, ½), in whole numbers, so it is exact for any n.
    """
    if not 0 <= heads <= count:
        raise ValueError(f"{heads} heads of {count} tosses: give a number from 0 to the count")
    rarer = min(heads, count - heads)
    term, tail = 1, 0
    for k in range(rarer + 1):  # term is (n over k)
        tail += term
        term = term * (count - k) // (k + 1)
    return float(min(1.0, 2 * tail / 2**count))
