"""Ctrl-C during a run: once, and the step at hand is finished and saved; twice, and the run ends at once."""

import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from surefoot.callbacks import Callback, Evaluation, SampleRecord, TrainResult
from surefoot.types import StepStats


class StopRequest(Callback):
    """Ends a run when Ctrl-C was pressed.

    Args:
        say: tells the user something.

    Attributes:
        asked: whether Ctrl-C was pressed.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self.asked = False
        self._say = say

    def on_step(self, trainer: Any, stats: StepStats, samples: Sequence[SampleRecord]) -> bool | None:
        """Whether to stop after this step."""
        return self.asked

    def on_evaluation(self, trainer: Any, evaluation: Evaluation) -> bool | None:
        """Whether to stop after this evaluation."""
        return self.asked

    def on_end(self, trainer: Any, result: TrainResult) -> None:
        """Says how to go on."""
        if self.asked and result.run_folder is not None:
            self._say(f"stopped by Ctrl-C and saved; go on with: surefoot ppo --resume {result.run_folder}")

    @contextmanager
    def listening(self, folder: Path) -> Iterator[None]:
        """Hears Ctrl-C while the run goes on.

        Raises:
            KeyboardInterrupt: at the second Ctrl-C; its message says how to go on.
        """
        before = signal.signal(signal.SIGINT, self._hear)
        try:
            yield
        except KeyboardInterrupt:
            saved = any(folder.glob("checkpoints/step_*"))
            how = (
                f"go on with: surefoot ppo --resume {folder}"
                if saved
                else "no checkpoint was written (see save_every)"
            )
            raise KeyboardInterrupt(how) from None
        finally:
            signal.signal(signal.SIGINT, before)

    def _hear(self, *_: object) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        self._say("stopping after this step, then saving; press Ctrl-C again to stop at once")
