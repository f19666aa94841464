"""Over-optimisation in small and exact: sequences of 8 letters, a gold reward, and a proxy learned from noisy pairs.

Texts of 12 letters are drawn from a Markov chain, the reference. Gold scores pairs and triples of neighbouring
letters. The proxy scores pairs of letters only and is a Bradley-Terry fit to comparisons of reference texts, some of
them turned round. For each price β the policy is the exact optimum of E[proxy] - β KL, so that what is seen is the
proxy's fault and not an optimiser's. After Gao, Schulman and Hilton 2022, "Scaling laws for reward model
overoptimization".
"""

import math
from dataclasses import dataclass, replace

import numpy as np

LETTERS, LENGTH = 8, 12
BETAS = tuple(np.geomspace(4, 0.03, 25))
"""Prices from the reference to as far as the recorded problems go."""


@dataclass(frozen=True)
class Problem:
    """first: [V] of the first letter. chain: [V, V]. pair_gold, proxy: [V, V]. triple_gold: [V, V, V]."""

    first: np.ndarray
    chain: np.ndarray
    pair_gold: np.ndarray
    triple_gold: np.ndarray
    proxy: np.ndarray


@dataclass(frozen=True)
class Chain:
    """A policy: first letter, and from letter to letter at each place. kl: from the reference, in nats a text."""

    first: np.ndarray
    steps: tuple[np.ndarray, ...]
    kl: float


def optimum(problem: Problem, beta: float) -> Chain:
    """The reference times exp(proxy / β), letter by letter, from the end back: a step weighs what can still come."""
    weight = problem.chain * np.exp(problem.proxy / beta)
    ahead, steps = np.ones(LETTERS), []
    scale = 0.0
    for _ in range(LENGTH - 1):
        step = weight * ahead
        ahead = step.sum(1)
        steps.append(step / ahead[:, None])
        scale, ahead = scale + math.log(ahead.max()), ahead / ahead.max()
    first = problem.first * ahead
    log_z = math.log(first.sum()) + scale
    found = Chain(first / first.sum(), tuple(reversed(steps)), 0.0)
    return Chain(found.first, found.steps, mean_of_pairs(found, problem.proxy) / beta - log_z)


def reference(problem: Problem) -> Chain:
    return Chain(problem.first, (problem.chain,) * (LENGTH - 1), 0.0)


def mean_of_pairs(policy: Chain, reward: np.ndarray) -> float:
    """E Σ_t reward[y_t-1, y_t], exactly."""
    at, total = policy.first, 0.0
    for step in policy.steps:
        both = at[:, None] * step
        total += float((both * reward).sum())
        at = both.sum(0)
    return total


def mean_gold(policy: Chain, problem: Problem) -> float:
    """E of gold, exactly."""
    total = mean_of_pairs(policy, problem.pair_gold)
    both = policy.first[:, None] * policy.steps[0]
    for step in policy.steps[1:]:
        three = both[:, :, None] * step[None]
        total += float((three * problem.triple_gold).sum())
        both = three.sum(0)
    return total


def spread_of_proxy(problem: Problem) -> float:
    """Standard deviation of the proxy under the reference, exactly: from the first two moments of what is to come."""
    one, two = np.zeros(LETTERS), np.zeros(LETTERS)
    r, p = problem.proxy, problem.chain
    for _ in range(LENGTH - 1):
        one, two = (p * (r + one)).sum(1), (p * (r * r + 2 * r * one + two)).sum(1)
    return math.sqrt(float(problem.first @ two) - float(problem.first @ one) ** 2)


def sample(policy: Chain, count: int, generator: np.random.Generator) -> np.ndarray:
    """[count, LENGTH]: texts."""
    texts = np.empty((count, LENGTH), dtype=int)
    texts[:, 0] = generator.choice(LETTERS, size=count, p=policy.first)
    for place, step in enumerate(policy.steps, start=1):
        ahead = np.cumsum(step[texts[:, place - 1]], axis=1)
        texts[:, place] = np.minimum((generator.random((count, 1)) > ahead).sum(1), LETTERS - 1)
    return texts


def proxy_of(texts: np.ndarray, problem: Problem) -> np.ndarray:
    return problem.proxy[texts[:, :-1], texts[:, 1:]].sum(1)


def gold_of(texts: np.ndarray, problem: Problem) -> np.ndarray:
    pairs = problem.pair_gold[texts[:, :-1], texts[:, 1:]].sum(1)
    return pairs + problem.triple_gold[texts[:, :-2], texts[:, 1:-1], texts[:, 2:]].sum(1)


def recorded(case: dict, seed: int, proxy: str) -> Problem:
    """A problem of tests/data/cases.json, case B8."""
    given = {name: np.asarray(value) for name, value in case["inputs_arr"][f"seed{seed}"].items() if name != "proxy"}
    learned = np.asarray(case["inputs_arr"][f"seed{seed}"]["proxy"][proxy])
    chain = given["ref"] / given["ref"].sum(1, keepdims=True)
    return Problem(given["ref0"] / given["ref0"].sum(), chain, given["gold_bigram"], given["gold_trigram"], learned)


def made(seed: int, *, pairs: int = 1000, flipped: float = 0.25) -> Problem:
    """A problem of the same sort: random chain and gold, and a proxy fitted to comparisons of reference texts."""
    blank = world(seed)
    x, prefers = comparisons(blank, seed, pairs=pairs, flipped=flipped)
    return replace(blank, proxy=bradley_terry(x, prefers))


def world(seed: int) -> Problem:
    """Chain and gold of a seed, the same for every proxy; its proxy says nothing yet."""
    g = np.random.default_rng(seed)
    first, chain = g.dirichlet(np.full(LETTERS, 2.0)), _chain(g)
    pair_gold = g.normal(scale=0.55, size=(LETTERS, LETTERS))
    triple_gold = g.normal(scale=0.55, size=(LETTERS,) * 3)
    return Problem(first, chain, pair_gold, triple_gold, np.zeros((LETTERS, LETTERS)))


def comparisons(problem: Problem, seed: int, *, pairs: int, flipped: float) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of reference texts: what the first has more of, by pairs of letters, and whether it was preferred."""
    g = np.random.default_rng([seed, pairs, round(1000 * flipped)])
    one, other = (sample(reference(problem), pairs, g) for _ in range(2))
    prefers = gold_of(one, problem) > gold_of(other, problem)
    prefers ^= g.random(pairs) < flipped
    return _counts(one) - _counts(other), prefers


def _chain(generator: np.random.Generator) -> np.ndarray:
    logits = generator.normal(scale=1.5, size=(LETTERS, LETTERS))
    chain: np.ndarray = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return chain


def _counts(texts: np.ndarray) -> np.ndarray:
    """[texts, V²]: how often each pair of letters is in each text."""
    pairs = texts[:, :-1] * LETTERS + texts[:, 1:]
    return np.stack([np.bincount(row, minlength=LETTERS**2) for row in pairs]).astype(float)


def bradley_terry(x: np.ndarray, won: np.ndarray, ridge: float = 0.1, steps: int = 50) -> np.ndarray:
    """[V, V]: Newton's method on the log-likelihood less ridge/2 |w|²."""
    w = np.zeros(x.shape[1])
    for _ in range(steps):
        p = 1 / (1 + np.exp(-x @ w))
        gradient = x.T @ (won - p) - ridge * w
        curvature = (x * (p * (1 - p))[:, None]).T @ x + ridge * np.eye(len(w))
        w = w + np.linalg.solve(curvature, gradient)
    return w.reshape(LETTERS, LETTERS)
