"""Does the reward model say what people say? Its agreement beside what length alone reaches, and what people reach.

PPO maximises the reward model, so among pairs of policy and SFT model it prefers the policy nearly always, and to
agree there is to repeat the win rate. What it knows shows within a model: two answers of the SFT model, or two of the
policy.
"""

import itertools
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from surefoot.evaluate.ratings.proportions import Estimate, wilson
from surefoot.evaluate.ratings.resample import between, redraw, weighted_share
from surefoot.evaluate.ratings.votes import Vote

Scores = Mapping[str, tuple[float, float]]
"""Item -> the reward model's scores of answers `a` and `b`."""
BINS = 5


@dataclass(frozen=True, slots=True)
class ProxyAgreement:
    """How often a number sides with people, over decided votes; equal numbers count half.

    Attributes:
        model: the higher score is the preferred answer. length: the longer one is; NaN where no lengths are known.
        gain: model less length on the same votes, with its interval from drawing prompts again in pairs.
    """

    model: Estimate
    length: Estimate
    gain: Estimate


def proxy_agreement(
    votes: Sequence[Vote], scores: Scores, lengths: Mapping[str, tuple[float, float]] | None = None, *, seed: int = 0
) -> ProxyAgreement:
    """Agreement of scores, and of lengths, with the decided ones of these votes.

    Intervals are the wider of Wilson's and the bootstrap's by prompt, where votes share a prompt; else Wilson's.
    """
    decided = [vote for vote in votes if vote.decided]
    by_score = [_sides_with(_of(scores, "scores", vote), vote) for vote in decided]
    model = _estimate(decided, by_score, seed)
    nothing = wilson(0, 0)
    if lengths is None or not decided:
        return ProxyAgreement(model, nothing, nothing)
    by_length = [_sides_with(_of(lengths, "lengths", vote), vote) for vote in decided]
    weights = redraw([vote.prompt_id for vote in decided], seed=seed)
    difference = [s - n for s, n in zip(by_score, by_length, strict=True)]
    gain = between(weighted_share(difference, weights), len(decided))
    return ProxyAgreement(model, _estimate(decided, by_length, seed), gain)


def _estimate(votes: Sequence[Vote], hits: Sequence[float], seed: int) -> Estimate:
    simple = wilson(sum(hits), len(hits))
    prompts = [vote.prompt_id for vote in votes]
    if len(set(prompts)) == len(prompts):
        return simple
    return simple.wider(between(weighted_share(hits, redraw(prompts, seed=seed)), len(hits)))


def _of(numbers: Mapping[str, tuple[float, float]], name: str, vote: Vote) -> tuple[float, float]:
    if vote.item not in numbers:
        raise ValueError(f"{name} has nothing for item {vote.item!r}: give two numbers for every item that has votes")
    a, b = numbers[vote.item]
    if not (math.isfinite(a) and math.isfinite(b)):
        raise ValueError(f"{name} of item {vote.item!r} are {a} and {b}: give finite numbers")
    return a, b


def _sides_with(numbers: tuple[float, float], vote: Vote) -> float:
    """1 where the larger number is the preferred answer's, 0 where it is the other's, ½ where they are equal."""
    a, b = numbers
    return 0.5 if a == b else float((a > b) == (vote.choice == "a"))


# ---------------------------------------------------------------------------------------------- reliability
@dataclass(frozen=True, slots=True)
class Bin:
    """Votes whose reward margins are near each other.

    Attributes:
        low, high: the margins |score of a - score of b| that are in it. promised: mean of sigmoid(margin), what a
            Bradley-Terry reward model says of the share. agreed: the share of votes that side with the model.
    """

    low: float
    high: float
    promised: float
    agreed: Estimate


@dataclass(frozen=True, slots=True)
class Reliability:
    """The reward margin as a probability, against what people say.

    Attributes:
        bins: by margin, with about as many votes in each.
        error: expected calibration error: mean over votes of |promised - agreed| of their bin. NaN without votes.
        overconfidence: mean promised less mean agreed; above 0, margins promise more than people grant.
    """

    bins: Sequence[Bin]
    error: float
    overconfidence: float


def reliability(votes: Sequence[Vote], scores: Scores, *, bins: int = BINS) -> Reliability:
    """Bins of equal counts, smallest margins first; votes of equal margin stay together, so a bin may be larger."""
    decided = [vote for vote in votes if vote.decided]
    rows = sorted((_margin_and_hit(scores, vote) for vote in decided), key=lambda row: row[0])
    if not rows:
        return Reliability((), math.nan, math.nan)
    groups: dict[int, list[tuple[float, float]]] = defaultdict(list)
    place = 0
    for _, same in itertools.groupby(rows, key=lambda row: row[0]):
        members = list(same)
        groups[min(place * bins // len(rows), bins - 1)] += members
        place += len(members)
    made = [_bin(members) for _, members in sorted(groups.items())]
    gaps = [b.promised - b.agreed.value for b in made]
    counts = [b.agreed.count for b in made]
    error, over = (float(np.average(g, weights=counts)) for g in (np.abs(gaps), gaps))
    return Reliability(tuple(made), error, over)


def _margin_and_hit(scores: Scores, vote: Vote) -> tuple[float, float]:
    a, b = _of(scores, "scores", vote)
    return abs(a - b), _sides_with((a, b), vote)


def _bin(members: Sequence[tuple[float, float]]) -> Bin:
    margins, hits = zip(*members, strict=True)
    promised = float(np.mean(1 / (1 + np.exp(-np.asarray(margins)))))
    return Bin(margins[0], margins[-1], promised, wilson(sum(hits), len(hits)))
