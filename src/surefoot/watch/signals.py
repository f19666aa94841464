"""Signs of over-optimisation in a series of evaluations on the same prompts. Numbers only; no threshold is in here.

All but gold are signs that a policy has moved to where the reward was never checked, not that the reward is wrong
there: none is a proof, and a policy can be over-optimised with all of them quiet. Only gold tells: a better scorer, or
people.
"""

import itertools
import math
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from surefoot.ranks import spearman

PHRASE = 4
"""Tokens of what is called a phrase."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """One evaluation. Every list has one entry an answer; answer i is to the same prompt at every look.

    Attributes:
        step: of training. scores: the reward's. lengths: in tokens. kl: from the reference, in nats an answer.
        answers: the tokens or words of each. entropy: of the policy, nats a token; NaN where it is not known.
        gold: a better scorer's scores, or empty.
    """

    step: int
    scores: Sequence[float]
    lengths: Sequence[float]
    kl: Sequence[float]
    answers: Sequence[Sequence[Hashable]]
    entropy: float = math.nan
    gold: Sequence[float] = ()

    def __post_init__(self) -> None:
        count = len(self.scores)
        if count < 2:
            raise ValueError(f"the look at step {self.step} has {count} answers: a watch needs two at least")
        for name in ("lengths", "kl", "answers", "gold"):
            found = len(getattr(self, name))
            if found != count and not (name == "gold" and found == 0):
                raise ValueError(f"the look at step {self.step} has {count} scores and {found} {name}: give one each")


@dataclass(frozen=True, slots=True)
class Signals:
    """What one look says beside the first, which is the SFT model. NaN: cannot be said.

    Attributes:
        step: of training.
        score, gold: means, in standard deviations of the first look from its mean.
        gap: score - gold: how much of the rise the better scorer does not confirm.
        length_ratio: mean length over that of the first look.
        length_correlation: Spearman's, of score and length among the answers of this look.
        kl: mean, nats an answer. kl_price: nats added since the look before for each standard deviation of score won
            since; infinite where the divergence grew and the score did not.
        entropy_ratio: over that of the first look.
        distinct: different ones among all phrases of two tokens.
        common_phrase: share of answers that hold the phrase of `PHRASE` tokens that most answers hold.
        outside: share of scores above every score of the first look.
    """

    step: int
    score: float
    gold: float
    gap: float
    length_ratio: float
    length_correlation: float
    kl: float
    kl_price: float
    entropy_ratio: float
    distinct: float
    common_phrase: float
    outside: float


def signals(looks: Sequence[Look]) -> list[Signals]:
    """The signals of every look, in the order of the looks; the first look is the measure of the others."""
    found: list[Signals] = []
    for look in looks:
        found.append(_signals(look, looks[0], found[-1] if found else None))
    return found


def _signals(look: Look, first: Look, before: Signals | None) -> Signals:
    score = standardised_mean(look.scores, first.scores)
    gold = standardised_mean(look.gold, first.gold) if look.gold and first.gold else math.nan
    kl = _mean(look.kl)
    return Signals(
        step=look.step,
        score=score,
        gold=gold,
        gap=score - gold,
        length_ratio=_ratio(_mean(look.lengths), _mean(first.lengths)),
        length_correlation=_correlation(look.scores, look.lengths),
        kl=kl,
        kl_price=price(kl - before.kl, score - before.score) if before else math.nan,
        entropy_ratio=_ratio(look.entropy, first.entropy),
        distinct=distinct_phrases(look.answers, 2),
        common_phrase=common_phrase(look.answers, PHRASE)[1],
        outside=share_above(look.scores, max(first.scores)),
    )


def look_of_samples(step: int, samples: Sequence[Mapping[str, Any]], gold: Sequence[float] = ()) -> Look:
    """A look from the samples of an evaluation in a run folder; words stand for tokens."""
    return Look(
        step=step,
        scores=[float(s["score"]) for s in samples],
        lengths=[float(s["length"]) for s in samples],
        kl=[float(s["kl"]) for s in samples],
        answers=[str(s["response"]).split() for s in samples],
        gold=gold,
    )


# ---------------------------------------------------------------------------------------------- gold
@dataclass(frozen=True, slots=True)
class GoldFall:
    """How gold stands beside its best look, prompt by prompt.

    Attributes:
        best: place of the look with the highest mean.
        fall: its mean less the last one's, in standard deviations of the first look.
        z: the fall over its standard error, from differences within prompts; 0 at the best look itself.
    """

    best: int
    fall: float
    z: float


def gold_fall(looks: Sequence[Look]) -> GoldFall:
    """Has gold fallen? The best look is chosen among the same numbers, so z leans high and is no test by itself.

    Raises:
        ValueError: a look without gold, or with other prompts than the last.
    """
    means = []
    for look in looks:
        if len(look.gold) != len(looks[-1].gold) or not look.gold:
            raise ValueError(
                f"the look at step {look.step} has {len(look.gold)} gold scores and the last one "
                f"{len(looks[-1].gold)}: give one a prompt at every look"
            )
        means.append(_mean(look.gold))
    best = int(np.argmax(means))
    differences = np.asarray(looks[best].gold, dtype=float) - np.asarray(looks[-1].gold, dtype=float)
    fall, error = float(differences.mean()), float(differences.std(ddof=1)) / math.sqrt(len(differences))
    z = fall / error if error > 0 else math.copysign(math.inf, fall) if fall else 0.0
    return GoldFall(best, _ratio(fall, _spread(looks[0].gold)), z)


# ---------------------------------------------------------------------------------------------- parts
def standardised_mean(values: Sequence[float], at_first: Sequence[float]) -> float:
    """Distance of the mean from that of the first look, in the first look's standard deviations (n - 1)."""
    return _ratio(_mean(values) - _mean(at_first), _spread(at_first))


def price(nats: float, won: float) -> float:
    """Nats for each standard deviation of score; infinite where only the divergence grew, NaN where neither did."""
    if won > 0:
        return nats / won
    return math.inf if nats > 0 else math.nan


def distinct_phrases(answers: Sequence[Sequence[Hashable]], length: int) -> float:
    """Different ones among all runs of so many tokens; low where answers repeat themselves or each other."""
    phrases = [phrase for answer in answers for phrase in _phrases(answer, length)]
    return len(set(phrases)) / len(phrases) if phrases else math.nan


def common_phrase(answers: Sequence[Sequence[Hashable]], length: int) -> tuple[tuple[Hashable, ...], float]:
    """The run of tokens that most answers hold, and the share of answers that do; () and 0 where there is none."""
    holders = Counter(phrase for answer in answers for phrase in dict.fromkeys(_phrases(answer, length)))
    if not holders:
        return (), 0.0
    phrase, count = holders.most_common(1)[0]
    return phrase, count / len(answers)


def share_above(scores: Sequence[float], limit: float) -> float:
    """How many of the scores lie above anything seen before."""
    return sum(score > limit for score in scores) / len(scores)


def _correlation(x: Sequence[float], y: Sequence[float]) -> float:
    """Spearman's, over the answers that have a score."""
    both = [(a, b) for a, b in zip(x, y, strict=True) if math.isfinite(a)]
    return spearman([a for a, _ in both], [b for _, b in both])


def _phrases(answer: Sequence[Hashable], length: int) -> list[tuple[Hashable, ...]]:
    shifted = [itertools.islice(answer, start, None) for start in range(length)]
    return list(zip(*shifted, strict=False))


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(np.asarray(values, dtype=float)))


def _spread(values: Sequence[float]) -> float:
    return float(np.std(np.asarray(values, dtype=float), ddof=1))


def _ratio(above: float, below: float) -> float:
    return above / below if below else math.nan
