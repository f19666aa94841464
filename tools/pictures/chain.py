"""Over-optimisation without noise: answers are chains of eight letters, so every expectation is a sum.

The reference writes letter after letter, each drawn given the one before. A true score looks at three letters in a
row; a proxy, fitted to noisy choices, can see only two. The policy that is best for the proxy at a price beta is known
in closed form, pi(y) = ref(y) exp(proxy(y) / beta) / Z, and is itself a chain, whose probabilities a pass from the end
gives. So each point of the curve is exact, and training has no part in what it shows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

LENGTH = 12
Array = Any


@dataclass(frozen=True)
class Chain:
    """A distribution of answers: the first letter's probabilities [V], then one matrix [V, V] for each later place."""

    start: Array
    steps: Sequence[Array]


@dataclass(frozen=True)
class Point:
    """What a price leads to. Scores in standard deviations of the reference's answers, from their mean."""

    beta: float
    kl: float
    proxy: float
    gold: float


def reference(problem: dict[str, Any]) -> Chain:
    return Chain(np.array(problem["ref0"]), [np.array(problem["ref"])] * (LENGTH - 1))


def best_for(proxy: Array, ref: Chain, beta: float) -> tuple[Chain, float]:
    """The optimum pi ~ ref exp(proxy / beta), and log Z."""
    ahead, steps = np.ones(len(ref.start)), []
    log_scale = 0.0
    for matrix in reversed(ref.steps):
        weights = matrix * np.exp(proxy / beta) * ahead
        ahead = weights.sum(1)
        steps.append(weights / ahead[:, None])
        log_scale += np.log(ahead.max())
        ahead = ahead / ahead.max()
    first = ref.start * ahead
    return Chain(first / first.sum(), steps[::-1]), float(log_scale + np.log(first.sum()))


def moments(chain: Chain, bigram: Array, trigram: Array) -> tuple[float, float]:
    """Mean and standard deviation of an answer's score: the sum over its letters of bigram and trigram rewards."""
    mass = chain.start[:, None] * chain.steps[0]  # [a, b]: the last two letters
    first, second = mass * bigram, mass * bigram**2  # sums of the score and of its square, over answers that end so
    for step in chain.steps[1:]:
        gain = bigram[None] + trigram  # [a, b, c]
        chance = step[None]  # [1, b, c]
        m, s, q = mass[:, :, None], first[:, :, None], second[:, :, None]
        second = (chance * (q + 2 * gain * s + gain**2 * m)).sum(0)
        first = (chance * (s + gain * m)).sum(0)
        mass = (chance * m).sum(0)
    mean = float(first.sum())
    return mean, float(np.sqrt(second.sum() - mean**2))


def curve(problem: dict[str, Any], proxy_name: str, betas: Sequence[float]) -> list[Point]:
    """The best policy for the proxy at each price, and what the true score says of it."""
    ref = reference(problem)
    proxy = np.array(problem["proxy"][proxy_name])
    gold = np.array(problem["gold_bigram"]), np.array(problem["gold_trigram"])
    nothing = np.zeros_like(gold[1])
    proxy_mean, proxy_sd = moments(ref, proxy, nothing)
    gold_mean, gold_sd = moments(ref, *gold)
    points = []
    for beta in betas:
        policy, log_z = best_for(proxy, ref, beta)
        reached, _ = moments(policy, proxy, nothing)
        true, _ = moments(policy, *gold)
        kl = reached / beta - log_z
        points.append(Point(beta, kl, (reached - proxy_mean) / proxy_sd, (true - gold_mean) / gold_sd))
    return points
