"""A stand-in rater: of two answers it prefers one as a person with that much noise would. Pure functions."""

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Choice:
    """Which of two answers was chosen, and how likely that was."""

    first: bool
    probability: float


def preference(first: float, second: float, noise: float) -> float:
    """Bradley-Terry: the first of two answers is preferred with P = 1 / (1 + exp(-(first - second) / noise)).

    Without noise the better one always is; of two equally good ones each with 1/2 (Bradley and Terry 1952).
    """
    difference = first - second
    if noise == 0 or difference == 0:
        return 0.5 if difference == 0 else float(difference > 0)
    x = difference / noise
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def choose(first: float, second: float, noise: float, uniform: float) -> Choice:
    """The choice that a uniform random number between 0 and 1 makes."""
    p = preference(first, second, noise)
    return Choice(True, p) if uniform < p else Choice(False, 1 - p)
