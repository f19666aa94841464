"""What a run tells those who watch it. A callback may end the run; it never changes it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from surefoot.types import StepStats

SampleRecord = dict[str, Any]
"""One answer in words: step, prompt, response, score, scores (by reward), kl, entropy, length, finish_reason, row.

Where there is gold an evaluation's have also gold, golds (by scorer); with overlap a step's have also version: the
steps that had been made when the weights that drew it were handed over."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One look at the fixed evaluation prompts.

    Attributes:
        metrics: under "eval/...".
        samples: every answer.
        alarms: what the watch says of it: sign, words (which may quote an answer), prompts to look at, what is done.
    """

    step: int
    episode: int
    metrics: Mapping[str, float]
    samples: Sequence[SampleRecord] = field(repr=False)
    alarms: Sequence[Mapping[str, Any]] = field(default_factory=list)

    @property
    def score(self) -> float:
        """The mean score."""
        return self.metrics["eval/score"]

    @property
    def gold(self) -> float | None:
        """The mean by the better scorers; None where there are none."""
        return self.metrics.get("eval/gold")


@dataclass(frozen=True, slots=True)
class TrainResult:
    """How a run ended.

    `reason` begins with its rule: finished, target_reward, patience, kl_ceiling, watch, callback, or stopped (by a
    signal). `model_step`: of which step the saved model is; None where none was saved.
    """

    reason: str
    steps: int
    episodes: int
    evaluations: Sequence[Evaluation] = field(repr=False)
    run_folder: Path | None = None
    model_step: int | None = None


class Callback:
    """Override what you need. Returning True from a hook ends the run with the reason "callback"."""

    def on_start(self, trainer: Any) -> None:
        """Before the first evaluation."""

    def on_step(self, trainer: Any, stats: StepStats, samples: Sequence[SampleRecord]) -> bool | None:
        """After each step, with its answers."""

    def on_evaluation(self, trainer: Any, evaluation: Evaluation) -> bool | None:
        """After each evaluation."""

    def on_end(self, trainer: Any, result: TrainResult) -> None:
        """After the last step and evaluation, when the trained model is saved."""
