"""Answers of one model against answers of another to the same prompts, pair by pair: who wins, and is it length?

Whoever judges, a scorer or a model that is shown pairs, is a rater whose votes are counted as those of people are
(`surefoot.evaluate.ratings`). A judge of pairs is shown each pair twice, sides swapped: an answer wins where it was
preferred both times, and everything else that was answered both times is a tie.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from surefoot.evaluate.judging import Said
from surefoot.evaluate.ratings.agreement import self_consistency
from surefoot.evaluate.ratings.proportions import Estimate as Share
from surefoot.evaluate.ratings.votes import Choice, Side, Vote
from surefoot.evaluate.ratings.winrate import (
    Counts,
    LengthControl,
    Position,
    length_controlled,
    position_check,
    win_rate,
)
from surefoot.evaluate.statistics import Estimate, mean_of

Numbers = Mapping[str, np.ndarray]
"""Name of a quantity -> [P, K], as `Answers.values`."""


@dataclass(frozen=True, slots=True)
class Orders:
    """What became of asking about each pair twice, sides swapped.

    Attributes:
        pairs: that were asked about. left_out: of them, those with a question that has no verdict.
        unread: questions whose reply holds no verdict. unanswered: questions without a reply in time.
        consistent: share of pairs with the same verdict both times.
        position: how often the answer that stood first was preferred.
        examples: why there is no verdict, a few times.
    """

    pairs: int
    left_out: int
    unread: int
    unanswered: int
    consistent: Share
    position: Position
    examples: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Duel:
    """What one judge says of pairs.

    Attributes:
        by: who judges. counts: pairs that the model won, tied and lost.
        score: a win counts 1, a tie ½; the mean over prompts, with its interval by prompt.
        decided: wins among pairs with a preference. length: the same where both answers are equally long.
        orders: of a judge that was shown pairs; None of a scorer.
    """

    by: str
    counts: Counts
    score: Estimate
    decided: Share
    length: LengthControl
    orders: Orders | None = None

    def as_dict(self) -> dict[str, Any]:
        """For a file."""
        return dataclasses.asdict(self)


def by_scorer(gold: str, mine: Numbers, theirs: Numbers, seed: int = 0) -> Duel:
    """Every answer against every answer of the other model to its prompt: the higher score wins, equal scores tie."""
    votes, lengths = [], {}
    for p, (scores, others) in enumerate(zip(mine[gold], theirs[gold], strict=True)):
        for i, score in enumerate(scores):
            for j, other in enumerate(others):
                item = f"{p}/{i}/{j}"
                choice: Choice = "a" if score > other else "b" if score < other else "both good"
                votes.append(_vote(item, p, gold, "a", choice))
                lengths[item] = (float(mine["length"][p, i]), float(theirs["length"][p, j]))
    return _duel(gold, votes, lengths, None, seed)


def by_judge(
    name: str, said: Sequence[Sequence[tuple[Said, Said]]], mine: Numbers, theirs: Numbers, seed: int = 0
) -> Duel:
    """Answer k against answer k to the same prompt.

    Args:
        name: of the judge.
        said: prompt by prompt and pair by pair: with the model's answer first, and with it second.
        mine: of the model.
        theirs: of the other.
        seed: of the intervals.
    """
    votes, asked, lengths = [], [], {}
    for p, pairs in enumerate(said):
        for k, (first, second) in enumerate(pairs):
            item = f"{p}/{k}"
            lengths[item] = (float(mine["length"][p, k]), float(theirs["length"][p, k]))
            once, again = _choice(first, "a"), _choice(second, "b")
            asked += [_vote(item, p, name, "a", once), _vote(f"{item}, swapped", p, name, "b", again, repeats=item)]
            votes.append(_vote(item, p, name, "a", _together(once, again)))
    without = [one for pairs in said for pair in pairs for one in pair if one.verdict is None]
    orders = Orders(
        pairs=len(votes),
        left_out=sum(not vote.answered for vote in votes),
        unread=sum(one.answered for one in without),
        unanswered=sum(not one.answered for one in without),
        consistent=self_consistency(asked),
        position=position_check(asked),
        examples=tuple(dict.fromkeys(one.why_not for one in without))[:3],
    )
    return _duel(name, votes, lengths, orders, seed)


def _vote(item: str, prompt: int, rater: str, left: Side, choice: Choice, repeats: str = "") -> Vote:
    return Vote(
        item=item, kind="policy-sft", prompt_id=str(prompt), rater=rater, left=left, choice=choice, repeats=repeats
    )


def _choice(said: Said, first: Side) -> Choice:
    """A verdict on the answers by their places, as one on the answers."""
    if said.verdict is None:
        return "skip"
    if said.verdict == "tie":
        return "both good"
    other: Side = "b" if first == "a" else "a"
    return first if said.verdict == "first" else other


def _together(once: Choice, again: Choice) -> Choice:
    """Both verdicts on a pair as one."""
    if "skip" in (once, again):
        return "skip"
    return once if once == again else "both good"


def _duel(
    by: str, votes: Sequence[Vote], lengths: Mapping[str, tuple[float, float]], orders: Orders | None, seed: int
) -> Duel:
    judged = [vote for vote in votes if vote.answered]
    if not judged:
        raise ValueError(f"{by} judged none of {len(votes)} pairs")
    rate = win_rate(judged, seed=seed)
    return Duel(by, rate.counts, _score(judged, seed), rate.of_decided, length_controlled(judged, lengths), orders)


def _score(votes: Sequence[Vote], seed: int) -> Estimate:
    """Each prompt counts once, however many of its pairs were judged."""
    points = {"a": 1.0, "b": 0.0}
    by_prompt: dict[str, list[float]] = {}
    for vote in votes:
        by_prompt.setdefault(vote.prompt_id, []).append(points.get(vote.choice, 0.5))
    return mean_of(np.array([[math.fsum(found) / len(found) for found in by_prompt.values()]]), seed)


# ---------------------------------------------------------------------------------------------- in words
def sentences(duel: Duel, mine: str, theirs: str) -> list[str]:
    """What the judge says, and how far he can be trusted."""
    c, s = duel.counts, duel.score
    score = f"{100 * s.value:.0f} % [{100 * max(0.0, s.low):.0f}, {100 * min(1.0, s.high):.0f}]"
    text = (
        f"{mine} against {theirs} by {duel.by}: won {c.win}, tied {c.tie}, lost {c.loss} of {c.all} pairs; {score} "
        f"with ties as half, {duel.decided.percent()} of the decided"
    )
    text += f"; at equal length {duel.length.win_rate.percent()}." if not duel.length.why_not else "."
    found = [text]
    if duel.length.why_not:
        found.append(f"The win rate by {duel.by} at equal length is not known: {duel.length.why_not}.")
    return found + ([] if duel.orders is None else _of_orders(duel.by, duel.orders))


def _of_orders(by: str, o: Orders) -> list[str]:
    p = o.position
    chance = f" (p = {p.p_value:.2g})" if p.left.count else ""
    found = [
        f"{by} was asked about each of {o.pairs} pairs in both orders: the same verdict in {o.consistent.percent()}; "
        f"the answer that stood first was preferred in {p.left.percent()} of decided verdicts{chance}."
    ]
    if o.left_out:
        why = f", for instance: {o.examples[0]}" if o.examples else ""
        found.append(
            f"{o.left_out} of {o.pairs} pairs are left out: {o.unread} replies of {by} held no verdict, and "
            f"{o.unanswered} questions had no reply in time{why}."
        )
    return found
