"""How far a run has come. One object, all of which is in a checkpoint."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from surefoot.callbacks import Evaluation


@dataclass
class Progress:
    """The counters of a run and what its evaluations found.

    Attributes:
        steps, episodes: steps made, and answers they were computed from.
        prompts: prompts taken from their order.
        generations: calls of `generate`; each draws with seeds of its own.
        max_tokens: tokens of one pass, where that was left to us.
        evaluations: all so far, oldest first.
    """

    steps: int = 0
    episodes: int = 0
    prompts: int = 0
    generations: int = 0
    max_tokens: int | None = None
    evaluations: list[Evaluation] = field(default_factory=list)

    @property
    def last_evaluation(self) -> Evaluation | None:
        """The newest one."""
        return self.evaluations[-1] if self.evaluations else None

    def evaluated(self) -> Evaluation | None:
        """The evaluation of this very step, where there was one."""
        last = self.last_evaluation
        return last if last is not None and last.step == self.steps else None

    def state_dict(self) -> dict[str, Any]:
        """Everything, as plain values."""
        told = [
            {"step": e.step, "episode": e.episode, "metrics": dict(e.metrics), "samples": list(e.samples),
             "alarms": [dict(alarm) for alarm in e.alarms]}
            for e in self.evaluations
        ]  # fmt: skip
        return {**{name: getattr(self, name) for name in _COUNTERS}, "evaluations": told}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from a saved state."""
        for name in _COUNTERS:
            setattr(self, name, state[name])
        self.evaluations = [Evaluation(**told) for told in state["evaluations"]]


_COUNTERS = ("steps", "episodes", "prompts", "generations", "max_tokens")
