"""When a series of evaluations is worth a word, and when it is worth stopping for. Numbers and sentences; no effects.

Only gold stops a run: on worlds whose truth is known, no other sign told a policy that had gone wrong from one that
had only gone far (docs/over-optimisation.md). The others point at samples.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from surefoot.display import excerpt
from surefoot.watch.signals import PHRASE, Look, Signals, common_phrase, gold_fall, signals

GOLD_FELL = 4.0
"""Standard errors by which gold has to lie below its best look: calibrated by benchmarks/watch_calibration.py."""
GAIN_LOST = 0.1
"""Share of what gold had won that has to be lost again: less is not worth a stop, however sure it is."""
FEWEST = 8
"""Answers with fewer of which nothing is said: chance would do most of the talking."""
NAMED = 5
"""Prompts that an alarm names."""

STOPS, RAISES = "stop_and_restore", "raise_kl"
RAISE = 2.0
"""What the KL price is multiplied by, each time that gold falls."""
_DONE = {RAISES: f"; the KL price is multiplied by {RAISE:g}", STOPS: "; the run ends"}

OUTSIDE, COMMON_PHRASE, DISTINCT, LONGER, SHORTER, PAYS_FOR_LENGTH = 0.9, 0.5, 0.5, 1.5, 0.5, 0.7
"""Where the other signs are told: shares, or ratios to the first look. They lie where a person would look anyway."""


@dataclass(frozen=True, slots=True)
class Alarm:
    """One thing that an evaluation says.

    Attributes:
        sign: its name; "gold" is the one that a run may act on.
        words: a sentence for people. It may quote an answer: show it as foreign text.
        rows: which answers to look at first, by their places in a look.
    """

    sign: str
    words: str
    rows: tuple[int, ...]


def alarms(looks: Sequence[Look], since: int = 0) -> list[Alarm]:
    """What the last look says: gold where it has fallen, and every other sign that the look before did not show.

    Args:
        looks: all evaluations so far, oldest first; answer i is to the same prompt at every look.
        since: the look from which gold is judged anew: where something was done about its last fall.
    """
    fallen = gold_alarm(looks[since:])
    return [*([fallen] if fallen else []), *warnings(looks)]


def told(alarm: Mapping[str, Any]) -> str:
    """An alarm of an `Evaluation` as a sentence that says where to look, and what is done; with foreign text in it."""
    prompts = ", ".join(map(str, alarm["prompts"]))
    return f"{alarm['words']}{_DONE.get(alarm['done'], '')}. Look at these samples: prompts {prompts}"


# ---------------------------------------------------------------------------------------------- gold
def gold_alarm(looks: Sequence[Look], *, errors: float = GOLD_FELL, lost: float = GAIN_LOST) -> Alarm | None:
    """Whether gold has fallen from its best look, surely and by enough to matter.

    Looks without gold, and answers that have none at some look, are left out.

    Args:
        looks: all, oldest first.
        errors: surely means by so many standard errors, prompt by prompt.
        lost: enough means so large a share of what it had won since the first look.
    """
    places = _with_gold(looks)
    known = [_only(look, places) for look in looks if look.gold] if len(places) >= FEWEST else []
    if len(known) < 2:
        return None
    found = gold_fall(known)
    first, best, last = (float(np.mean(look.gold)) for look in (known[0], known[found.best], known[-1]))
    if found.z < errors or best - last < lost * (best - first):
        return None
    falls = np.subtract(known[found.best].gold, known[-1].gold)
    share = f", {100 * (best - last) / (best - first):.0f} % of what it had won" if best > first else ""
    sure = f"{found.z:.1f} standard errors" if math.isfinite(found.z) else "by the same on every prompt"
    words = (
        f"gold fell from {best:.3g} at step {known[found.best].step} to {last:.3g} ({sure}{share}), and the score "
        f"{_moved(known[found.best], known[-1])}"
    )
    return Alarm("gold", words, tuple(places[i] for i in _first(falls)))


def _with_gold(looks: Sequence[Look]) -> list[int]:
    """The places of the answers that have gold at every look that has any."""
    golds = [look.gold for look in looks if look.gold]
    return [place for place, found in enumerate(zip(*golds, strict=True)) if np.isfinite(found).all()]


def _only(look: Look, places: Sequence[int]) -> Look:
    kept = {name: [getattr(look, name)[i] for i in places] for name in ("scores", "lengths", "kl", "answers", "gold")}
    return Look(step=look.step, entropy=look.entropy, **kept)


def _moved(before: Look, after: Look) -> str:
    by = float(np.mean(after.scores) - np.mean(before.scores))
    return f"rose by {by:.3g}" if by > 0 else f"fell by {-by:.3g}" if by < 0 else "stayed where it was"


# ---------------------------------------------------------------------------------------------- the other signs
def warnings(looks: Sequence[Look]) -> list[Alarm]:
    """The signs without gold that the last look shows and the look before did not; none at the first look.

    None is a reason to stop: all of them are quiet in some runs that go wrong, and loud in some that do not.
    """
    if len(looks) < 2 or len(looks[-1].scores) < FEWEST:
        return []
    first, last, before = looks[0], looks[-1], looks[-2]
    now = _shown(first, last)
    known = {alarm.sign for alarm in _shown(first, before)} if len(looks) > 2 else set()
    return [alarm for alarm in now if alarm.sign not in known]


def _shown(first: Look, look: Look) -> list[Alarm]:
    start, here = signals([first, look])
    return [alarm for check in _CHECKS if (alarm := check(first, look, start, here))]


def _outside(first: Look, look: Look, start: Signals, here: Signals) -> Alarm | None:
    if not here.outside >= OUTSIDE:
        return None
    words = (
        f"{here.outside:.0%} of the answers score higher than any answer did at step {first.step}: the reward is "
        "asked about what it never saw there"
    )
    return Alarm("outside", words, _first(np.asarray(look.scores, dtype=float)))


def _phrase(first: Look, look: Look, start: Signals, here: Signals) -> Alarm | None:
    if not here.common_phrase - start.common_phrase >= COMMON_PHRASE:
        return None
    phrase, share = common_phrase(look.answers, PHRASE)
    held = [_holds(answer, phrase) for answer in look.answers]
    said = excerpt(" ".join(map(str, phrase)), 80)
    words = f"{share:.0%} of the answers hold the same words, \u201c{said}\u201d"
    return Alarm("phrase", words, _first(np.asarray(held, dtype=float)))


def _holds(answer: Sequence[object], phrase: Sequence[object]) -> bool:
    return any(tuple(answer[i : i + len(phrase)]) == tuple(phrase) for i in range(len(answer)))


def _repeats(first: Look, look: Look, start: Signals, here: Signals) -> Alarm | None:
    if not here.distinct <= DISTINCT * start.distinct:
        return None
    own = [-len(set(answer)) / max(1, len(answer)) for answer in look.answers]
    words = (
        f"answers repeat themselves or each other: of all pairs of words {here.distinct:.0%} are different ones, "
        f"{start.distinct:.0%} at step {first.step}"
    )
    return Alarm("repeats", words, _first(np.asarray(own)))


def _length(first: Look, look: Look, start: Signals, here: Signals) -> Alarm | None:
    if not (here.length_ratio >= LONGER or here.length_ratio <= SHORTER):
        return None
    now, then = float(np.mean(look.lengths)), float(np.mean(first.lengths))
    words = f"answers have become {'longer' if now > then else 'shorter'}: {now:.0f} tokens, {then:.0f} at first"
    return Alarm("length", words, _first(np.asarray(look.lengths) * (1 if now > then else -1)))


def _pays_for_length(first: Look, look: Look, start: Signals, here: Signals) -> Alarm | None:
    if not (abs(here.length_correlation) >= PAYS_FOR_LENGTH and here.length_ratio != 1):
        return None
    sign = 1 if here.length_correlation > 0 else -1
    words = (
        f"the score follows the length (Spearman {here.length_correlation:+.2f}): are the best answers better, or "
        f"only {'longer' if sign > 0 else 'shorter'}"
    )
    return Alarm("pays for length", words, _first(np.asarray(look.lengths) * sign))


_CHECKS: Sequence[Callable[[Look, Look, Signals, Signals], Alarm | None]] = (
    _outside,
    _phrase,
    _repeats,
    _length,
    _pays_for_length,
)


def _first(weights: "np.ndarray") -> tuple[int, ...]:
    """The places of the largest weights, the largest first."""
    order = np.argsort(-np.asarray(weights, dtype=float), kind="stable")
    return tuple(int(i) for i in order[:NAMED] if math.isfinite(weights[i]))
