"""Do people agree, with each other and with themselves? Raw agreement, Cohen's kappa, Krippendorff's alpha.

All are made of coincidences: of each pair, which two answers met. Coincidences are sums over pairs, so the bootstrap
weighs them prompt by prompt and never walks through the votes again.

    alpha = 1 - D_o / D_e      D_o = Σ_ck o_ck δ²_ck / n      D_e = Σ_ck n_c n_k δ²_ck / (n (n - 1))

with o_ck the coincidences of answers c and k (an item with m answers gives each ordered couple 1/(m - 1)), n_c their
sums and n the sum of all (Krippendorff 2011). δ² is 1 for different answers (nominal), or, where answers have an
order, (Σ_{g=c..k} n_g - (n_c + n_k)/2)² (ordinal). Items with one answer say nothing and are left out: votes may be
missing.
"""

import itertools
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from surefoot.evaluate.ratings.proportions import Estimate, wilson
from surefoot.evaluate.ratings.resample import between, redraw
from surefoot.evaluate.ratings.votes import Vote, counted

Level = Literal["nominal", "ordinal"]
ANSWERS = ("a", "b", "both good", "both bad")
ORDER = {"b": 0, "both good": 1, "both bad": 1, "a": 2}
"""For the ordinal alpha: no preference, of whichever kind, lies between the two."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """How raters agree. Intervals are bootstrap intervals by prompt; NaN where no pair has two votes.

    Attributes:
        pairs: pairs with votes of two raters or more.
        raw: how often two raters of a pair gave the same of the four answers; every couple of votes counts.
        of_decided: the same where both had a preference: what a reward model's agreement can be held against.
        nominal: Krippendorff's alpha of the four answers: 1 full agreement, 0 what chance would give.
        ordinal: alpha of b < no preference < a.
        kappas: Cohen's kappa of every two raters who share pairs.
    """

    pairs: int
    raw: Estimate
    of_decided: Estimate
    nominal: Estimate
    ordinal: Estimate
    kappas: Mapping[tuple[str, str], Estimate]


def agreement(votes: Iterable[Vote], *, seed: int = 0) -> Agreement:
    """Between raters, over all kinds of pair but planted ones."""
    by_item: dict[str, list[Vote]] = defaultdict(list)
    for vote in counted(votes):
        by_item[vote.item].append(vote)
    shared = [votes for votes in by_item.values() if len(votes) > 1]
    prompts = [votes[0].prompt_id for votes in shared]
    answers = [[ANSWERS.index(vote.choice) for vote in votes] for votes in shared]
    ordered = [[ORDER[vote.choice] for vote in votes] for votes in shared]
    return Agreement(
        len(shared),
        couples_agreement(answers, prompts, seed=seed),
        couples_agreement([[k for k in row if k < 2] for row in answers], prompts, seed=seed),
        krippendorff_alpha(answers, prompts, categories=len(ANSWERS), seed=seed),
        krippendorff_alpha(ordered, prompts, categories=3, level="ordinal", seed=seed),
        _kappas(shared, seed),
    )


# ---------------------------------------------------------------------------------------------- the statistics
def couples_agreement(answers: Sequence[Sequence[int]], prompts: Sequence[str], *, seed: int = 0) -> Estimate:
    """Share of couples of answers to one item that are the same."""
    same, couples = [], []
    for row in answers:
        couples.append(math.comb(len(row), 2))
        same.append(sum(a == b for a, b in itertools.combinations(row, 2)))
    if not sum(couples):
        return wilson(0, 0)
    weights = redraw(prompts, seed=seed)
    total = weights @ np.asarray(couples, dtype=float)
    values = (weights @ np.asarray(same, dtype=float)) / np.where(total > 0, total, np.nan)
    return between(values, sum(couples))


def cohen_kappa(
    first: Sequence[int], second: Sequence[int], prompts: Sequence[str], *, categories: int, seed: int = 0
) -> Estimate:
    """(p_o - p_e) / (1 - p_e) of two raters' answers to the same items (Cohen 1960); NaN where p_e is 1."""
    if not first:
        return wilson(0, 0)
    weights = redraw(prompts, seed=seed)
    table = np.zeros((len(first), categories, categories))
    table[np.arange(len(first)), list(first), list(second)] = 1
    met = np.tensordot(weights, table, axes=1)
    met = met / met.sum((1, 2), keepdims=True)
    observed = np.trace(met, axis1=1, axis2=2)
    by_chance = (met.sum(1) * met.sum(2)).sum(1)
    return between(_over(observed - by_chance, 1 - by_chance), len(first))


def krippendorff_alpha(
    answers: Sequence[Sequence[int]],
    prompts: Sequence[str],
    *,
    categories: int,
    level: Level = "nominal",
    seed: int = 0,
) -> Estimate:
    """Alpha of answers 0 .. categories - 1, item by item, of however many raters; NaN where all answers are the same.

    `level` says whether the answers have an order. An item's answers may come in any order.
    """
    usable = [place for place, row in enumerate(answers) if len(row) > 1]
    if not usable:
        return wilson(0, 0)
    each = np.stack([_coincidences(answers[place], categories) for place in usable])
    met = np.tensordot(redraw([prompts[place] for place in usable], seed=seed), each, axes=1)
    sums = met.sum(2)
    n = sums.sum(1)
    distance = _ordinal_distance(sums) if level == "ordinal" else _nominal_distance(sums)
    observed = (met * distance).sum((1, 2)) / n
    expected = (sums[:, :, None] * sums[:, None, :] * distance).sum((1, 2)) / (n * (n - 1))
    return between(1 - _over(observed, expected), len(usable))


def _coincidences(row: Sequence[int], categories: int) -> np.ndarray:
    """[categories, categories]: of one item, each ordered couple of two raters' answers, 1/(m - 1) each."""
    times = np.bincount(list(row), minlength=categories).astype(float)
    met: np.ndarray = (np.outer(times, times) - np.diag(times)) / (len(row) - 1)
    return met


def _nominal_distance(sums: np.ndarray) -> np.ndarray:
    return np.broadcast_to(1 - np.eye(sums.shape[1]), (len(sums), sums.shape[1], sums.shape[1]))


def _ordinal_distance(sums: np.ndarray) -> np.ndarray:
    """[draws, c, k]: δ² between answers c and k, which depends on how often the answers between them were given."""
    middle = np.cumsum(sums, axis=1) - sums / 2  # Σ_{g=c..k} n_g - (n_c + n_k)/2 is the difference of these
    distance: np.ndarray = (middle[:, :, None] - middle[:, None, :]) ** 2
    return distance


def _over(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """The ratio; NaN where nothing lies below the line."""
    ratio: np.ndarray = above / np.where(np.abs(below) > 1e-12, below, np.nan)
    return ratio


def _kappas(shared: Sequence[Sequence[Vote]], seed: int) -> dict[tuple[str, str], Estimate]:
    couples: dict[tuple[str, str], list[tuple[Vote, Vote]]] = defaultdict(list)
    for votes in shared:
        for one, other in itertools.combinations(sorted(votes, key=lambda vote: vote.rater), 2):
            couples[one.rater, other.rater].append((one, other))
    return {names: _kappa(met, seed) for names, met in sorted(couples.items())}


def _kappa(met: Sequence[tuple[Vote, Vote]], seed: int) -> Estimate:
    first, second = ([ANSWERS.index(couple[i].choice) for couple in met] for i in (0, 1))
    prompts = [couple[0].prompt_id for couple in met]
    return cohen_kappa(first, second, prompts, categories=len(ANSWERS), seed=seed)


# ---------------------------------------------------------------------------------------------- one rater alone
@dataclass(frozen=True, slots=True)
class Rater:
    """What is to be known of one rater before the votes are believed.

    Attributes:
        votes: pairs judged, planted and repeated ones included. skipped: pairs not judged.
        seconds: median time for a vote, NaN where no times are known.
        left: share of the answer on the left among decided votes.
        consistent: share of repeated pairs, sides swapped, that got the same answer as the first time.
        planted: share of planted pairs where the sound answer was preferred.
    """

    name: str
    votes: int
    skipped: int
    seconds: float
    left: Estimate
    consistent: Estimate
    planted: Estimate


def raters(votes: Sequence[Vote]) -> list[Rater]:
    """One record a rater, in the order of their names; intervals are Wilson's."""
    return [_rater(name, [v for v in votes if v.rater == name]) for name in sorted({v.rater for v in votes})]


def _rater(name: str, votes: Sequence[Vote]) -> Rater:
    judged = [vote for vote in votes if vote.answered]
    decided = [vote for vote in counted(votes) if vote.decided]
    planted = [vote for vote in judged if vote.kind == "planted" and not vote.repeats]
    times = [vote.seconds for vote in judged if math.isfinite(vote.seconds)]
    return Rater(
        name,
        len(judged),
        len(votes) - len(judged),
        float(np.median(times)) if times else math.nan,
        _share([vote.chose_left for vote in decided]),
        self_consistency(votes),
        _share([vote.choice == "a" for vote in planted]),
    )


def self_consistency(votes: Iterable[Vote], *, of_decided: bool = False) -> Estimate:
    """How often a rater gives a pair the same answer when it comes again.

    Args:
        votes: of one rater or several; a vote is compared with the same rater's first one.
        of_decided: whether only couples with a preference both times count.
    """
    judged = {(vote.item, vote.rater): vote for vote in votes if vote.answered}
    couples = [(judged.get((vote.repeats, vote.rater)), vote) for vote in judged.values() if vote.repeats]
    met = [(first, again) for first, again in couples if first is not None]
    if of_decided:
        met = [(first, again) for first, again in met if first.decided and again.decided]
    return _share([first.choice == again.choice for first, again in met])


def _share(hits: Sequence[bool]) -> Estimate:
    return wilson(sum(hits), len(hits))
