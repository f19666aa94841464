"""Ctrl-C and SIGTERM during a run: once, and it is saved and ends within seconds; Ctrl-C twice, and it ends at once.

A signal while answers are sampled, scored or evaluated leaves the iteration, which is repeated when the run goes on. A
signal while weights are moved lets the update finish first. (docs/decisions/0011)
"""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from surefoot.callbacks import Callback, TrainResult
from surefoot.stopping import STOPPED

_NAMES = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}
_EXIT_CODES = {name: 128 + number for number, name in _NAMES.items()}
_ECHO_SECONDS = 2.0
"""Ctrl-C reaches the processes of a launcher twice: from the terminal and from the launcher."""


class StopRequest(Callback):
    """Ends a run when a signal says so.

    Args:
        say: tells the user something.
        command: what goes on with a run in a folder.

    Attributes:
        exit_code: 0, or 128 and the number of the signal that was heard (130 Ctrl-C, 143 SIGTERM). It stays so where
            the run came to its end all the same: whoever runs one thing after the other stops here.
    """

    def __init__(self, say: Callable[[str], None], command: str = "surefoot ppo") -> None:
        self.exit_code = 0
        self._say = say
        self._command = command
        self._heard: float | None = None
        self._trainer: Any = None

    def on_start(self, trainer: Any) -> None:
        """From now on the trainer can be asked to stop."""
        self._trainer = trainer

    def on_end(self, trainer: Any, result: TrainResult) -> None:
        """Says how to go on."""
        if not result.reason.startswith(STOPPED):
            return
        self.exit_code = _EXIT_CODES.get(result.reason.removeprefix(STOPPED), self.exit_code)
        if result.run_folder is not None and trainer.runtime.is_main:
            self._say(
                f"stopped and saved after step {result.steps}; go on with the same command, or with: "
                f"{self._command} --resume {result.run_folder}"
            )

    @contextmanager
    def listening(self, folder: Path) -> Iterator[None]:
        """Hears signals while the run goes on, in the main thread; another is sent none (a worker of Ray is one).

        Raises:
            KeyboardInterrupt: at the second Ctrl-C; its message says how to go on.
        """
        heard = _NAMES if threading.current_thread() is threading.main_thread() else ()
        before = {number: signal.signal(number, self._hear) for number in heard}
        try:
            yield
        except KeyboardInterrupt:
            saved = any(folder.glob("checkpoints/*[0-9]"))
            how = (
                f"go on with: {self._command} --resume {folder}"
                if saved
                else "no checkpoint was written (see save_every)"
            )
            raise KeyboardInterrupt(how) from None
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _hear(self, number: int, frame: object) -> None:
        first = self._heard is None
        if first:
            self._heard, self.exit_code = time.monotonic(), 128 + number
        if self._trainer is None:
            _end_unsaved(number)
        if first and self._trainer.runtime.is_main:
            self._say(f"{_NAMES[signal.Signals(number)]}: saving and stopping; press Ctrl-C to stop at once")
        if first:
            self._trainer.stop.ask(_NAMES[signal.Signals(number)])
        elif number == signal.SIGINT and not self._is_echo():
            raise KeyboardInterrupt

    def _is_echo(self) -> bool:
        assert self._heard is not None
        return self._trainer.runtime.world_size > 1 and time.monotonic() - self._heard < _ECHO_SECONDS


def _end_unsaved(number: int) -> None:
    """Ends the process as if nobody had listened, since 143 would say that something was saved."""
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
