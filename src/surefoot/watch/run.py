"""The watch over one run: each evaluation with its signs and alarms, and what is done about them.

It has no state of its own. All is computed from the evaluations, which are in every checkpoint: a run that goes on
sees what the run before it saw, and every process sees the same.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from surefoot.callbacks import Evaluation
from surefoot.stopping import ENDED
from surefoot.watch.rules import FEWEST, RAISES, STOPS, alarms
from surefoot.watch.signals import Look, look_of_samples, signals

SIGNS = ("gap", "length_ratio", "length_correlation", "kl_price", "entropy_ratio", "distinct", "common_phrase",
         "outside")  # fmt: skip
"""What an evaluation is told of by, as metrics."""


class RunWatch:
    """Looks at a run as `action` says: off, warn, raise_kl, stop_and_restore."""

    def __init__(self, action: str) -> None:
        self.action = action

    @property
    def acts(self) -> bool:
        """Whether it does more than speak."""
        return self.action in (RAISES, STOPS)

    def check(self, *, gold: bool, prompts: int, folder: bool) -> None:
        """Refuses what it could not act on.

        Args:
            gold: whether there is any.
            prompts: of an evaluation.
            folder: whether the run writes one.

        Raises:
            ValueError: the watch is to act, and lacks one of them.
        """
        if not self.acts:
            return
        if not gold:
            raise ValueError(
                f"watch={self.action!r} needs gold, a scorer that nothing is trained on: without one no sign told "
                "runs that went wrong from runs that only went far (docs/over-optimisation.md). Give gold, or choose "
                "watch='warn'"
            )
        if prompts < FEWEST:
            raise ValueError(
                f"watch={self.action!r} needs at least {FEWEST} evaluation prompts to tell a fall of gold from "
                f"chance, and there are {prompts}: raise eval_prompts (32 do well), or choose watch='warn'"
            )
        if self.action == STOPS and not folder:
            raise ValueError(
                f"watch={self.action!r} needs output_dir: the best model is brought back from its checkpoint there"
            )

    def seen(self, found: Evaluation, before: Sequence[Evaluation], *, acts: bool = True) -> Evaluation:
        """An evaluation with its signs among its metrics, and its alarms.

        Args:
            found: the newest.
            before: those before it, oldest first.
            acts: whether something can still be done about it.
        """
        if self.action == "off" or len(found.samples) < 2:
            return found
        looks = [_look(e) for e in (*before, found) if len(e.samples) == len(found.samples)]
        near = looks if len(looks) < 3 else [looks[0], looks[-2], looks[-1]]  # a sign needs no others
        sign = signals(near)[-1]
        numbers = {f"eval/watch/{name}": x for name in SIGNS if math.isfinite(x := getattr(sign, name))}
        rows = [sample["row"] for sample in _in_order(found)]
        told = [
            {
                "sign": alarm.sign,
                "words": alarm.words,
                "prompts": [rows[place] for place in alarm.rows],
                "done": self.action if acts and alarm.sign == "gold" else "warn",
            }
            for alarm in alarms(looks, _judged_from(looks, before))
        ]
        return dataclasses.replace(found, metrics={**found.metrics, **numbers}, alarms=told)

    def raises(self, found: Evaluation) -> bool:
        """Whether the KL price is to be raised now."""
        return self.action == RAISES and _fell(found) is not None

    def reason(self, evaluations: Sequence[Evaluation]) -> str | None:
        """Why the run ends, where it does: the last evaluation says that gold fell."""
        words = _fell(evaluations[-1]) if self.action == STOPS and evaluations else None
        return None if words is None else f"watch: {words}. The best model by gold is saved"

    def keeps(self, evaluations: Sequence[Evaluation]) -> bool:
        """Whether the newest evaluation is of a model that may be wanted at the end."""
        return self.action == STOPS and best_of(evaluations) is evaluations[-1]

    def restores(self, reason: str, evaluations: Sequence[Evaluation]) -> bool:
        """Whether the model to be saved is an earlier one: at an end by a rule, where the last is not the best."""
        return self.action == STOPS and reason.startswith(ENDED) and best_of(evaluations) is not evaluations[-1]


def best_of(evaluations: Sequence[Evaluation]) -> Evaluation:
    """The first of the best: by gold where any has gold, else by score."""
    golds = [e for e in evaluations if e.gold is not None and math.isfinite(e.gold)]
    if golds:
        return max(golds, key=lambda e: (e.gold, -e.step))
    return max(evaluations, key=lambda e: (e.score if math.isfinite(e.score) else -math.inf, -e.step))


def _fell(found: Evaluation) -> str | None:
    """What an evaluation says of gold, where it says that it fell."""
    return next((str(alarm["words"]) for alarm in found.alarms if alarm["sign"] == "gold"), None)


def _judged_from(looks: Sequence[Look], before: Sequence[Evaluation]) -> int:
    """The place of the look at which it was last said that gold fell: from there on it is judged anew."""
    told = [e.step for e in before if _fell(e) is not None]
    return next((place for place, look in enumerate(looks) if told and look.step == told[-1]), 0)


def _look(found: Evaluation) -> Look:
    """Answers in the order of their prompts, however many processes made them."""
    samples = _in_order(found)
    gold = [math.nan if s["gold"] is None else float(s["gold"]) for s in samples] if "gold" in samples[0] else []
    look = look_of_samples(found.step, samples, gold)
    return dataclasses.replace(look, entropy=found.metrics.get("eval/entropy", math.nan))


def _in_order(found: Evaluation) -> list[Any]:
    return sorted(found.samples, key=lambda sample: int(sample["row"]))
