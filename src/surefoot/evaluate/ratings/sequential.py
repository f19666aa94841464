"""When may one look, and when may one stop? Evidence that stays valid however often it is looked at.

A test at 5 % watched after every vote and stopped at its first success is wrong far more often than 5 %. An e-value is
not: under "no difference" it is the winnings of a fair bet, starts at 1, and reaches 1/alpha at any time with
probability alpha at most (Ville's inequality).

The bet is on the first decided vote of each prompt. Later votes on the same prompt are left out, because two people
who judge the same two texts tend to say the same even where there is no difference between the models: to count both
would count one piece of evidence twice. Ties of either kind are left out too: given that a vote is decided, under no
difference each answer is the preferred one with probability ½, however likely a tie is.

    e(w, l) = ∫₀¹ p^w (1 - p)^l dp / ½^(w+l) = B(1 + w, 1 + l) · 2^(w+l)
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from surefoot.evaluate.ratings.proportions import Estimate
from surefoot.evaluate.ratings.votes import Vote, check_votes, counted

Stop = Literal["", "planned number", "evidence"]


def log_e_value(wins: int, losses: int) -> float:
    """log e(w, l): evidence against a win rate of ½. At log(1/alpha) one may stop at level alpha, at any time."""
    return _log_mixture(wins, losses) + (wins + losses) * math.log(2)


def log_e_path(wins: np.ndarray, losses: np.ndarray) -> np.ndarray:
    """log e at every place of arrays of whole numbers, for instance [sessions, votes] of running counts."""
    together = wins + losses
    factorials = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, together.max() + 2)))])  # log k!
    path: np.ndarray = factorials[wins] + factorials[losses] - factorials[together + 1] + together * math.log(2)
    return path


def confidence_sequence(wins: int, losses: int, alpha: float = 0.05) -> Estimate:
    """The win rates against which the same bet has not won 1/alpha: an interval for looking after every vote.

    {p : B(1 + w, 1 + l) / (p^w (1 - p)^l) < 1/alpha}. With probability 1 - alpha it holds the true rate at all times.
    """
    count = wins + losses
    if count == 0:
        return Estimate(math.nan, 0.0, 1.0, 0)
    share, least = wins / count, _log_mixture(wins, losses) + math.log(alpha)
    low = 0.0 if wins == 0 else _where_reached(wins, losses, least, 0.0, share)
    high = 1.0 if losses == 0 else _where_reached(wins, losses, least, 1.0, share)
    return Estimate(share, low, high, count)


@dataclass(frozen=True, slots=True)
class StoppingRule:
    """Decided before the first vote: how many pairs are to be judged, and what may end it sooner.

    Attributes:
        planned: pairs of policy and SFT model to be judged, ties included, second votes on a pair not.
        alpha: an end before that needs an e-value of 1/alpha.
    """

    planned: int
    alpha: float = 0.05

    def __post_init__(self) -> None:
        if self.planned < 1:
            raise ValueError(f"planned is {self.planned}: give the number of pairs to be judged, at least 1")
        if not 0 < self.alpha < 1:
            raise ValueError(f"alpha is {self.alpha}: give the accepted probability of a false stop, say 0.05")


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a rating stands.

    Attributes:
        judged: pairs of policy and SFT model with an answer.
        wins, losses: first decided votes of prompts, the units of the bet.
        e_value: evidence against no difference. interval: what the win rate can be, valid at any look.
        stop: why the results may be shown: the planned number was reached, or the evidence came first; "" while they
            stay hidden. Once shown, they stay shown.
    """

    judged: int
    wins: int
    losses: int
    e_value: float
    interval: Estimate
    stop: Stop


def progress(votes: Iterable[Vote], rule: StoppingRule) -> Progress:
    """Walks through the votes in the order of time and finds whether, and why, results may be shown.

    Votes that come after the evidence do not take it back: an e-value may be stopped at its highest. They are counted.
    """
    wins = losses = 0
    items: set[str] = set()
    prompts: set[str] = set()
    stop: Stop = ""
    for vote in counted(check_votes(votes), "policy-sft"):
        items.add(vote.item)
        if vote.decided and vote.prompt_id not in prompts:
            prompts.add(vote.prompt_id)
            wins, losses = wins + (vote.choice == "a"), losses + (vote.choice == "b")
        stop = stop or _stop(rule, len(items), wins, losses)
    e_value = math.exp(min(log_e_value(wins, losses), 700.0))  # beyond that a float overflows; nobody asks for more
    return Progress(len(items), wins, losses, e_value, confidence_sequence(wins, losses, rule.alpha), stop)


def _stop(rule: StoppingRule, judged: int, wins: int, losses: int) -> Stop:
    if log_e_value(wins, losses) >= math.log(1 / rule.alpha):
        return "evidence"
    return "planned number" if judged >= rule.planned else ""


def _log_mixture(wins: int, losses: int) -> float:
    """log B(1 + w, 1 + l)."""
    return math.lgamma(1 + wins) + math.lgamma(1 + losses) - math.lgamma(2 + wins + losses)


def _where_reached(wins: int, losses: int, least: float, outside: float, inside: float) -> float:
    """Where w log p + l log(1 - p) falls to `least` between a p outside and the observed share, by bisection."""
    for _ in range(60):
        middle = (outside + inside) / 2
        reached = _power(wins, middle) + _power(losses, 1 - middle) > least
        outside, inside = (outside, middle) if reached else (middle, inside)
    return inside


def _power(times: int, p: float) -> float:
    return 0.0 if times == 0 else times * math.log(p) if p > 0 else -math.inf
