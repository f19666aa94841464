"""Who wins, how often, how sure that is, and how much of it is length or the side of the screen."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from surefoot.evaluate.ratings.logistic import NotIdentifiedError, fit_logistic
from surefoot.evaluate.ratings.proportions import Estimate, fair_coin_p, wilson
from surefoot.evaluate.ratings.resample import between, redraw, weighted_share
from surefoot.evaluate.ratings.votes import Vote

Lengths = Mapping[str, tuple[float, float]]
"""Item -> lengths of answers `a` and `b`, in any unit that is the same for both."""


@dataclass(frozen=True, slots=True)
class Counts:
    """How many votes said what of answer `a`. No preference is of two kinds, which are never added up unseen."""

    win: int
    tie: int
    loss: int
    both_bad: int

    @property
    def decided(self) -> int:
        """Votes with a preference."""
        return self.win + self.loss

    @property
    def all(self) -> int:
        """All votes that were counted."""
        return self.decided + self.tie + self.both_bad


@dataclass(frozen=True, slots=True)
class WinRate:
    """What the votes of one kind of pair say.

    Attributes:
        counts: votes by outcome.
        wilson: wins among decided votes, with Wilson's interval, which takes votes as independent.
        by_prompt: the same share; prompts are drawn again, and raters where there are several.
        of_decided: the same share with the interval to quote. Wilson's where each prompt has one decided vote; where
            votes share a prompt, the wider of the two on each side.
        score: a win counts 1, a loss 0, no preference of either kind ½; interval by prompt.
    """

    counts: Counts
    wilson: Estimate
    by_prompt: Estimate
    of_decided: Estimate
    score: Estimate


def win_rate(votes: Sequence[Vote], *, seed: int = 0) -> WinRate:
    """Wins of answer `a` among votes that were judged."""
    outcomes = Counter(vote.outcome for vote in votes)
    counts = Counts(outcomes["win"], outcomes["tie"], outcomes["loss"], outcomes["both bad"])
    decided = [vote for vote in votes if vote.decided]
    simple = wilson(counts.win, counts.decided)
    resampled = share_by_prompt(decided, [float(vote.choice == "a") for vote in decided], seed=seed)
    alone = len({vote.prompt_id for vote in decided}) == len(decided)
    points = [1.0 if vote.choice == "a" else 0.0 if vote.choice == "b" else 0.5 for vote in votes]
    quoted = simple if alone else simple.wider(resampled)
    return WinRate(counts, simple, resampled, quoted, share_by_prompt(votes, points, seed=seed))


def share_by_prompt(votes: Sequence[Vote], hits: Sequence[float], *, seed: int = 0) -> Estimate:
    """Mean of one number a vote, with its bootstrap interval by prompt and by rater."""
    if not votes:
        return wilson(0, 0)
    weights = redraw([vote.prompt_id for vote in votes], [vote.rater for vote in votes], seed=seed)
    return between(weighted_share(hits, weights), len(votes))


# ---------------------------------------------------------------------------------------------- sides
@dataclass(frozen=True, slots=True)
class Position:
    """How often the answer on the left was preferred. With sides drawn by lot it should be half the time.

    Attributes:
        left: share among decided votes, with Wilson's interval.
        p_value: chance of a share this far from half, or farther, when the side means nothing; NaN without votes.
    """

    left: Estimate
    p_value: float


def position_check(votes: Sequence[Vote]) -> Position:
    """Left against right among decided votes, by the exact test of a fair coin."""
    decided = [vote for vote in votes if vote.decided]
    chosen = sum(vote.chose_left for vote in decided)
    return Position(wilson(chosen, len(decided)), fair_coin_p(chosen, len(decided)) if decided else math.nan)


# ---------------------------------------------------------------------------------------------- length
@dataclass(frozen=True, slots=True)
class LengthControl:
    """The win rate at equal length, by logistic regression on the log of the ratio of lengths.

    Attributes:
        win_rate: sigmoid(β₀): the rate where both answers are equally long; its error allows for votes of one prompt
            to agree.
        slope: β₁ with its interval: log-odds of winning for one `unit` of log length ratio. Above 0: longer wins.
        unit: root mean square of the log ratios, what x is divided by.
        why_not: in words, where the votes do not say; all numbers are NaN then. "" otherwise.
    """

    win_rate: Estimate
    slope: Estimate
    unit: float
    why_not: str = ""


def length_controlled(votes: Sequence[Vote], lengths: Lengths, level: float = 0.95) -> LengthControl:
    """Fits P(a wins) = sigmoid(β₀ + β₁ x) to decided votes, x = log(length of a / length of b) / unit.

    The unit is the root mean square of the log ratios; they are not centred, so that x = 0 stays what it was: equal
    length. A length of 0 counts as 1.
    """
    decided = [vote for vote in votes if vote.decided]
    ratios = [_log_ratio(lengths, vote.item) for vote in decided]
    unit = math.sqrt(sum(r * r for r in ratios) / len(ratios)) if ratios else 0.0
    won, prompts = [vote.choice == "a" for vote in decided], [vote.prompt_id for vote in decided]
    try:
        if not decided:
            raise NotIdentifiedError("no vote has a preference")
        fit = fit_logistic([r / unit if unit else r for r in ratios], won, prompts)
    except NotIdentifiedError as problem:
        unknown = Estimate(math.nan, math.nan, math.nan, len(decided))
        return LengthControl(unknown, unknown, unit, str(problem))
    z = NormalDist().inv_cdf(0.5 + level / 2)
    count, half, reach = len(decided), z * fit.intercept_error, z * fit.slope_error
    rate, low, high = (_sigmoid(fit.intercept + d) for d in (0.0, -half, half))
    return LengthControl(
        Estimate(rate, low, high, count), Estimate(fit.slope, fit.slope - reach, fit.slope + reach, count), unit
    )


def _log_ratio(lengths: Lengths, item: str) -> float:
    if item not in lengths:
        raise ValueError(f"lengths has nothing for item {item!r}: give the two lengths of every item that has votes")
    a, b = lengths[item]
    return math.log(max(a, 1)) - math.log(max(b, 1))


def _sigmoid(x: float) -> float:
    return float(np.exp(-np.logaddexp(0, -x)))
