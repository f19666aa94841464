"""All that a rating says, computed at once, shown on a terminal or kept as a record."""

import dataclasses
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from surefoot.evaluate.ratings.agreement import Agreement, Rater, agreement, raters, self_consistency
from surefoot.evaluate.ratings.proportions import Estimate
from surefoot.evaluate.ratings.reward_model import ProxyAgreement, Reliability, Scores, proxy_agreement, reliability
from surefoot.evaluate.ratings.sequential import Progress, StoppingRule, progress
from surefoot.evaluate.ratings.votes import KINDS, WITHIN_A_MODEL, Vote, check_votes, counted
from surefoot.evaluate.ratings.winrate import (
    LengthControl,
    Lengths,
    Position,
    WinRate,
    length_controlled,
    position_check,
    win_rate,
)


@dataclass(frozen=True, slots=True)
class RatingSummary:
    """What the votes say. Parts that need scores, lengths or a rule are None where those were not given.

    Attributes:
        votes, skipped: judged pairs of all kinds, and pairs not judged. pairs: votes judged of each kind.
        win_rate: the policy against the SFT model. win_rate_interval: what to quote of it: valid for the reason that
            the rating ended.
        progress: the rule of stopping and where it stands. length_control: the same at equal length.
        position: left against right. raters: each by name. agreement: between them.
        ceiling: how often people agree with people about decided pairs: two raters where there are, else one rater
            with herself. ceiling_of: which of the two, "" where neither is known.
        reward_model: its agreement with people within a model, the headline. by_kind: the same for each kind of pair.
        reliability: its margins as probabilities, within a model.
    """

    votes: int
    skipped: int
    pairs: dict[str, int]
    win_rate: WinRate
    win_rate_interval: Estimate
    progress: Progress | None
    length_control: LengthControl | None
    position: Position
    raters: Sequence[Rater]
    agreement: Agreement
    ceiling: Estimate
    ceiling_of: str
    reward_model: ProxyAgreement | None
    by_kind: dict[str, ProxyAgreement]
    reliability: Reliability | None

    def text(self) -> str:
        """For a terminal: a sentence that can be quoted, then what it rests on, line by line."""
        return "\n".join([_sentence(self), *_lines(self), *(f"! {note}" for note in notes(self))])

    def as_dict(self) -> dict[str, Any]:
        """For a JSON file: the same names; a number that is not known is null."""
        record: dict[str, Any] = _plain(dataclasses.asdict(self))
        record["agreement"]["kappas"] = [
            {"raters": list(names), "kappa": _plain(dataclasses.asdict(kappa))}
            for names, kappa in self.agreement.kappas.items()
        ]
        return record


def summarise(
    votes: Iterable[Vote],
    *,
    scores: Scores | None = None,
    lengths: Lengths | None = None,
    rule: StoppingRule | None = None,
    seed: int = 0,
) -> RatingSummary:
    """Every statistic of the package on one set of votes.

    Args:
        votes: of all raters, one at most for each item and rater, in any order.
        scores: the reward model's, of both answers of every item.
        lengths: of both answers of every item.
        rule: what was decided before the first vote about when to stop.
        seed: of the bootstrap.

    Raises:
        ValueError: two votes of one rater on one item; an item without scores or lengths where those are given.
    """
    cast = check_votes(votes)
    against = counted(cast, "policy-sft")
    within = counted(cast, *WITHIN_A_MODEL)
    rate, stands = win_rate(against, seed=seed), progress(cast, rule) if rule else None
    among = agreement(cast, seed=seed)
    ceiling, of = _ceiling(cast, among)
    judged = [vote for vote in cast if vote.answered]
    return RatingSummary(
        votes=len(judged),
        skipped=len(cast) - len(judged),
        pairs={kind: sum(vote.kind == kind for vote in judged) for kind in KINDS},
        win_rate=rate,
        win_rate_interval=_quoted(rate, stands),
        progress=stands,
        length_control=None if lengths is None else length_controlled(against, lengths),
        position=position_check(counted(cast)),
        raters=raters(cast),
        agreement=among,
        ceiling=ceiling,
        ceiling_of=of,
        reward_model=None if scores is None else proxy_agreement(within, scores, lengths, seed=seed),
        by_kind={} if scores is None else _by_kind(cast, scores, lengths, seed),
        reliability=None if scores is None else reliability(within, scores),
    )


def _quoted(rate: WinRate, stands: Progress | None) -> Estimate:
    """The fixed number's interval where the planned number was reached, else one that allows for having looked."""
    if stands is None or stands.stop == "planned number":
        return rate.of_decided
    return rate.of_decided.wider(stands.interval)


def _by_kind(votes: Sequence[Vote], scores: Scores, lengths: Lengths | None, seed: int) -> dict[str, ProxyAgreement]:
    of_kind = {kind: counted(votes, kind) for kind in KINDS if kind != "planted"}
    return {kind: proxy_agreement(some, scores, lengths, seed=seed) for kind, some in of_kind.items() if some}


def _ceiling(votes: Sequence[Vote], among: Agreement) -> tuple[Estimate, str]:
    if among.of_decided.count:
        return among.of_decided, "two raters"
    alone = self_consistency([vote for vote in votes if vote.kind != "planted"], of_decided=True)
    return alone, "one rater, asked again" if alone.count else ""


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


# ---------------------------------------------------------------------------------------------- in words
PLANTED_PASSED = 0.75
"""Raters below this share of planted pairs are named."""
SURPRISING = 0.05
"""A preference for a side less likely than this by chance is named."""


def notes(s: RatingSummary) -> list[str]:
    """What a reader should know before believing the numbers, in plain words."""
    found = []
    if s.position.p_value < SURPRISING:
        side = "left" if s.position.left.value > 0.5 else "right"
        found.append(f"the answer on the {side} was preferred too often for chance (p = {s.position.p_value:.2g})")
    found += [
        f"{rater.name} preferred the sound answer in only {rater.planted.percent()} of planted pairs"
        for rater in s.raters
        if rater.planted.value < PLANTED_PASSED
    ]
    if s.reward_model and s.reward_model.gain.low <= 0:
        found.append("within a model the reward model is not shown to know more than that longer answers win")
    if s.win_rate_interval.low <= 0.5 <= s.win_rate_interval.high:
        found.append("the votes do not show a difference between the policy and the SFT model; nor that there is none")
    return found


def _sentence(s: RatingSummary) -> str:
    c, people = s.win_rate.counts, len(s.raters)
    text = (
        f"Of {c.all} blind votes by {people} {'rater' if people == 1 else 'raters'} the policy won {c.win}, lost "
        f"{c.loss}, tied {c.tie}, both bad {c.both_bad}: {s.win_rate_interval.percent()} of the decided"
    )
    if s.length_control and not s.length_control.why_not:
        text += f", {s.length_control.win_rate.percent()} at equal length"
    if s.reward_model and s.reward_model.model.count:
        beside = [f"longer wins: {s.reward_model.length.percent()}"] if s.reward_model.length.count else []
        beside += [f"{s.ceiling_of}: {s.ceiling.percent()}"] if s.ceiling.count else []
        text += f". Within a model the reward model sided with people in {s.reward_model.model.percent()}"
        text += f" of decided votes ({'; '.join(beside)})" if beside else " of decided votes"
    return text + ". (a to b %): 95 % intervals."


def _lines(s: RatingSummary) -> list[str]:
    r, a = s.win_rate, s.agreement
    rows = [
        ("wins, ties, losses, both bad", _shares(r)),
        ("win rate by prompt and rater", r.by_prompt.percent()),
        ("score, no preference = half", r.score.percent()),
        ("left answer preferred", _sides(s.position)),
    ]
    if s.length_control:
        rows.append(("log-odds for length", s.length_control.why_not or s.length_control.slope.number()))
    if s.progress:
        rows.append(("evidence", _evidence(s.progress)))
    if a.pairs:
        rows += [
            (f"raters agree, {a.pairs} pairs", f"{a.raw.percent()}; of decided {a.of_decided.percent()}"),
            ("Krippendorff's alpha", f"{a.nominal.number()}; as an order {a.ordinal.number()}"),
        ]
    rows += [(f"Cohen's kappa, {' and '.join(names)}", kappa.number()) for names, kappa in a.kappas.items()]
    rows += [(f"reward model, {kind}", found.model.percent()) for kind, found in s.by_kind.items()]
    if s.reliability and s.reliability.bins:
        rows.append(("reward margins as chances", f"off by {100 * s.reliability.error:.0f} points on average"))
    rows += [(f"rater {rater.name}", _of_rater(rater)) for rater in s.raters]
    width = max(len(name) for name, _ in rows)
    return [f"  {name:<{width}}  {value}" for name, value in rows]


def _sides(p: Position) -> str:
    return p.left.percent() + (f", p = {p.p_value:.2g}" if p.left.count else "")


def _shares(r: WinRate) -> str:
    numbers = (r.counts.win, r.counts.tie, r.counts.loss, r.counts.both_bad)
    return ", ".join(f"{n} ({100 * n / max(1, r.counts.all):.0f} %)" for n in numbers)


def _evidence(p: Progress) -> str:
    ended = {
        "planned number": "ended at the planned number of pairs",
        "evidence": "ended by the evidence; the interval allows for that",
        "": "the planned number is not reached; the interval allows for looking early",
    }
    return f"e = {p.e_value:.3g} after {p.judged} pairs; {ended[p.stop]}"


def _of_rater(r: Rater) -> str:
    parts = [f"{r.votes} votes", f"{r.skipped} skipped"]
    if math.isfinite(r.seconds):
        parts.append(f"{r.seconds:.0f} s each")
    parts.append(f"left {r.left.percent()}")
    parts += [f"the same when asked again {r.consistent.percent()}"] if r.consistent.count else []
    parts += [f"planted pairs {r.planted.percent()}"] if r.planted.count else []
    return ", ".join(parts)
