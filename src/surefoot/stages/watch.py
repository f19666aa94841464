"""What a trainer of TRL tells while it trains -> lines in files and on the terminal; and how it is asked to stop."""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from transformers import TrainerCallback

from surefoot.callbacks import Evaluation
from surefoot.runtime import Runtime
from surefoot.stages.checkpoints import stamp
from surefoot.stages.view import StageView
from surefoot.stopping import STOPPED, StopSwitch
from surefoot.tracking import RunFolder, Tracker
from surefoot.types import StepStats

_NOT_LOGGED = ("runtime", "samples_per_second", "steps_per_second", "epoch", "num_tokens")
"""Of an evaluation: what is not about the model."""


class Watch(TrainerCallback):
    """Records every step and evaluation, stamps checkpoints, and ends the training where somebody asks for it.

    Args:
        stage: the command, before the names of its numbers.
        rows_per_step: of an optimizer step.
        folder: where lines go. None: nowhere.
        view: what shows them. None: nothing does.
        tracker: told the same numbers.

    Attributes:
        stop: asked, it ends the training behind the step that is being made. evaluations: all that were made here.
        steps: made so far, also before this call. last: the numbers of the newest step.
    """

    def __init__(
        self,
        stage: str,
        rows_per_step: int,
        folder: RunFolder | None = None,
        view: StageView | None = None,
        tracker: Tracker | None = None,
    ) -> None:
        self.runtime = Runtime()
        self.stop = StopSwitch()
        self.evaluations: list[Evaluation] = []
        self.steps = 0
        self.last: dict[str, float] = {}
        self._stage, self._rows = stage, rows_per_step
        self._folder, self._view, self._tracker = folder, view, tracker
        self._began = time.monotonic()

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """How many steps there will be."""
        self.steps = int(state.global_step)
        if self._view is not None:
            self._view.begin(int(state.max_steps), self.steps)

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """The clock of a step."""
        self._began = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
        """Saves and stops where that was asked for."""
        self.steps = int(state.global_step)
        if self.stop.asked is not None:
            control.should_training_stop = control.should_save = True
            control.should_evaluate = False
        return control

    def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, float] | None = None, **_: Any) -> None:
        """Records a step.

        Raises:
            ArithmeticError: its loss is NaN or infinite.
        """
        if logs is None or "loss" not in logs:
            return
        step = int(state.global_step)
        numbers = {f"{self._stage}/{n}": float(x) for n, x in logs.items() if n != "epoch"}
        record = {"step": step, "episode": step * self._rows, "epoch": float(state.epoch or 0.0), **numbers}
        record["time/step"] = time.monotonic() - self._began
        self.last = record
        if self._folder is not None:
            self._folder.log_step(StepStats(record), (), with_samples=False)
        self._tell(record, step)
        if self._view is not None:
            self._view.step(record)
        if not math.isfinite(logs["loss"]):
            raise ArithmeticError(
                f"the loss of step {step} is {logs['loss']:g}: what was learnt in it is lost; go on from the last "
                "checkpoint with a smaller learning_rate, or with precision='float32'"
            )

    def on_evaluate(
        self, args: Any, state: Any, control: Any, metrics: Mapping[str, float] | None = None, **_: Any
    ) -> None:
        """Records an evaluation."""
        assert metrics is not None
        named = {name.removeprefix("eval_"): float(x) for name, x in metrics.items() if isinstance(x, int | float)}
        numbers = {f"eval/{name}": x for name, x in named.items() if name not in _NOT_LOGGED}
        step = int(state.global_step)
        evaluation = Evaluation(step, step * self._rows, numbers, ())
        self.evaluations.append(evaluation)
        if self._folder is not None:
            self._folder.log_evaluation(step, evaluation.episode, numbers, ())
        self._tell(numbers, step)
        if self._view is not None:
            self._view.evaluation(evaluation)

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """A checkpoint is whole from now on, and the lines before it are on the disk."""
        if self._folder is not None:
            self._folder.flush()
            stamp(self._folder.checkpoints / f"checkpoint-{state.global_step}")

    def reason(self, total: int) -> str:
        """Why the training ended."""
        if self.steps < total and self.stop.asked is not None:
            return f"{STOPPED}{self.stop.asked}"
        return f"finished: all {self.steps} steps are done"

    def _tell(self, numbers: Mapping[str, float], step: int) -> None:
        if self._tracker is not None:
            self._tracker.log(numbers, step)


@dataclass(frozen=True, slots=True)
class StageResult:
    """How a stage ended.

    Attributes:
        reason: begins with "finished" or "stopped". steps: made in all. last: the numbers of the newest step.
        evaluations: those made in this call, oldest first. model: what was trained; tokenizer: its own.
        extra: what else the stage found out, under names of its own.
    """

    reason: str
    steps: int
    last: Mapping[str, float]
    evaluations: tuple[Evaluation, ...]
    model: Any = field(repr=False)
    tokenizer: Any = field(repr=False)
    extra: Mapping[str, Any] = field(default_factory=dict)
