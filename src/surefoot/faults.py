"""Numbers that are not finite: how they are found, and what becomes of the step they were found in.

Every check is one question to the device for a whole stage or optimizer step, and its answer is the same on all
processes, so that they stop, skip or go on together.
"""

import dataclasses
import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from surefoot.runtime import Runtime
from surefoot.types import Experience, Rollout

_LOG = logging.getLogger("surefoot")

LIKELY = (
    "Usual causes: learning_rate too high, half precision (try precision: float32), a model whose weights hold NaN or "
    "infinity, rewards of giant size"
)


class NonFiniteError(FloatingPointError):
    """Something was NaN or infinite, and no optimizer stepped on it."""


@dataclass(frozen=True, slots=True)
class Fault:
    """What was found not to be finite.

    Attributes:
        what: in words: "the loss".
        rows: the rows of this process that were looked at, numbered as in `step`.
        minibatch: which one of the update, from 1; None before the update.
        numbers: means of the losses, gradient norms.
    """

    what: str
    rows: Sequence[int]
    minibatch: int | None = None
    numbers: Mapping[str, float] = field(default_factory=dict)

    @property
    def place(self) -> str:
        """Where it was found, in words."""
        return "before the update" if self.minibatch is None else f"in minibatch {self.minibatch} of the update"


Write = Callable[[Fault, Mapping[str, Tensor]], Path | None]
"""Keeps a fault for later, with the tensors of its rows; says where. Called on every process."""


@dataclass
class FaultRule:
    """What is done about faults, over all steps.

    Attributes:
        on_fault: stop, skip or drop_sample. max_skipped: updates left out in a row before the run stops.
        consecutive, skipped_steps: state: updates left out since the last good one; steps without any update.
    """

    on_fault: str = "stop"
    max_skipped: int = 0
    consecutive: int = 0
    skipped_steps: int = 0

    def state_dict(self) -> dict[str, int]:
        """The two counts."""
        return {"consecutive": self.consecutive, "skipped_steps": self.skipped_steps}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Goes on from a saved state."""
        self.consecutive, self.skipped_steps = int(state["consecutive"]), int(state["skipped_steps"])


class StepFaults:
    """The faults of one step: they are checked for, decided about, and counted here.

    Args:
        rule: what is done.
        step: number of the step, for messages.
        runtime: the processes that must agree.
        write: keeps a bundle.

    Attributes:
        left_out: rows of this process that nothing may be learned from; `counted` is False on those that brought
            their fault with them, and whose scores are no scores.
        skipped: updates left out. dropped: rows left out, of all processes.
        skips_all: the whole step is left out.
    """

    def __init__(self, rule: FaultRule, step: int, runtime: Runtime, write: Write = lambda *_: None) -> None:
        self._rule, self._step, self._runtime, self._write = rule, step, runtime, write
        self._tensors: dict[str, Tensor] = {}
        self.left_out: set[int] = set()
        self.skipped = self.dropped = 0
        self.skips_all = False
        self.counted = torch.ones(0, dtype=torch.bool)

    # ------------------------------------------------------------------------------------- checks
    def check_rollout(self, rollout: Rollout, scores: Tensor) -> tuple[Rollout, Tensor]:
        """Rollout and scores in which everything is finite: rows where it is not are masked and hold 0."""
        self._tensors = {f.name: getattr(rollout, f.name) for f in dataclasses.fields(rollout)} | {"scores": scores}
        mask = rollout.response_mask
        bad = torch.stack([_bad(self._tensors[name], mask) for name in _WORDS]).any(0)
        found = [i for i, is_bad in enumerate(bad.tolist()) if is_bad]
        total = int(self._runtime.all_sum(torch.tensor(float(len(found)))))
        self.counted = ~bad
        if not total:
            return rollout, scores
        fault = Fault(", ".join(self._names(found)) or "a number of another process", found)
        if self._rule.on_fault == "drop_sample":
            self._drop(fault, total)
        else:
            self.skip(fault)
            self.skips_all = True
        return _without(rollout, bad), clear(scores, bad)

    def check_experience(self, experience: Experience) -> None:
        """Advantages and returns, from rows in which everything was finite."""
        learned = {name: getattr(experience, name) for name in ("rewards", "advantages", "returns")}
        self._tensors |= learned
        mask = experience.rollout.response_mask
        finite = all(bool(torch.where(mask, x, 0).isfinite().all()) for x in learned.values())
        if not self._runtime.all_true(finite) and not self.skips_all:
            self.skip(Fault("an advantage or return (the sums overflow)", range(len(mask))))
            self.skips_all = True

    def agreed_finite(self, numbers: Iterable[float]) -> bool:
        """Whether all are, on every process."""
        return self._runtime.all_true(all(map(math.isfinite, numbers)))

    # ------------------------------------------------------------------------------------- decisions
    @property
    def drops_rows(self) -> bool:
        """Whether rows may be left out."""
        return self._rule.on_fault == "drop_sample"

    def drop_blamed(self, fault: Fault, blamed: Sequence[int]) -> bool:
        """Leaves out the rows of a minibatch that are to blame; False where none is, on any process."""
        total = int(self._runtime.all_sum(torch.tensor(float(len(blamed)))))
        if total:
            self._drop(dataclasses.replace(fault, rows=blamed), total)
        return total > 0

    def skip(self, fault: Fault) -> None:
        """Leaves an update out.

        Raises:
            NonFiniteError: that is not wanted, or was done too often in a row.
        """
        place = self._keep(fault)
        rule = self._rule
        if rule.on_fault != "skip":
            raise NonFiniteError(self._words(fault, place, _STOPPED[rule.on_fault]))
        rule.consecutive += 1
        if rule.consecutive > rule.max_skipped:
            raise NonFiniteError(
                self._words(fault, place, f"{rule.max_skipped} updates in a row were left out before it "
                            "(max_skipped_updates)")
            )  # fmt: skip
        self.skipped += 1
        self._warn(fault, place, "this update is left out")

    def good_update(self) -> None:
        """An optimizer stepped."""
        self._rule.consecutive = 0

    def close(self, *, optimizer_steps: int) -> bool:
        """Counts the step; whether it is to be treated as one that never was, because faults left nothing of it."""
        gone = self.skipped + self.dropped > 0 and optimizer_steps == 0
        self._rule.skipped_steps += gone
        return gone

    @property
    def counts(self) -> dict[str, float]:
        """Statistics."""
        return {"ppo/faults/skipped_updates": self.skipped, "ppo/faults/dropped_rows": self.dropped}

    # ------------------------------------------------------------------------------------- helpers
    def _drop(self, fault: Fault, total: int) -> None:
        place = self._keep(fault)
        self.left_out |= set(fault.rows)
        self.dropped += total
        self._warn(fault, place, f"{total} answer{'s are' if total > 1 else ' is'} left out")

    def _keep(self, fault: Fault) -> Path | None:
        rows = list(fault.rows)
        return self._write(fault, {name: x[rows].detach().cpu() for name, x in self._tensors.items()})

    def _warn(self, fault: Fault, place: Path | None, done: str) -> None:
        if self._runtime.is_main:
            _LOG.warning("%s", self._words(fault, place, done))

    def _words(self, fault: Fault, place: Path | None, done: str) -> str:
        numbers = ", ".join(f"{name} {value:.4g}" for name, value in fault.numbers.items())
        which = f", rows {_listed(fault.rows)}" if fault.rows and fault.minibatch is None else ""
        kept = "" if place is None else f"\nIts rows and their tensors are kept in {place}."
        return (
            f"step {self._step}: {fault.what} is not finite {fault.place}{which}{f' ({numbers})' if numbers else ''}; "
            f"no optimizer stepped on it; {done}.{kept}\n{LIKELY}."
        )

    def _names(self, rows: list[int]) -> list[str]:
        """In words, which numbers of these rows are not finite."""
        mask = self._tensors["response_mask"][rows]
        return [words for name, words in _WORDS.items() if bool(_bad(self._tensors[name][rows], mask).any())]


_WORDS = {
    "scores": "a score",
    "sampler_logprobs": "a log-probability of the sampler",
    "old_logprobs": "a log-probability of the policy",
    "ref_logprobs": "a log-probability of the reference",
    "kl": "a divergence from the reference",
    "old_values": "a value",
    "last_values": "the value of a last state",
}

_STOPPED = {
    "stop": "the run stops. on_fault: skip would leave such an update out, drop_sample such answers",
    "drop_sample": "no single answer is to blame, so the run stops",
}


def _bad(x: Tensor, mask: Tensor) -> Tensor:
    """[B] or [B, R] -> [B]: whether anything that counts in a row is not finite."""
    return ~x.isfinite() if x.ndim == 1 else (~x.isfinite() & mask).any(-1)


def _without(rollout: Rollout, bad: Tensor) -> Rollout:
    """The rollout with bad rows masked; masked places hold 0."""
    numbers = ("old_logprobs", "ref_logprobs", "kl", "entropies", "old_values", "last_values", "sampler_logprobs")
    cleared = {name: clear(getattr(rollout, name), bad) for name in numbers}
    return dataclasses.replace(rollout, response_mask=rollout.response_mask & ~bad[:, None], **cleared)


def clear(x: Tensor, rows: Tensor) -> Tensor:
    """[B] or [B, R] with 0 in the rows where `rows` is True."""
    return torch.where(rows if x.ndim == 1 else rows[:, None], 0, x)


def _listed(rows: Sequence[int]) -> str:
    shown = ", ".join(map(str, rows[:8]))
    return shown if len(rows) <= 8 else f"{shown} and {len(rows) - 8} more"
