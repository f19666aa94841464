"""A process of ours that answers JSON lines through pipes: nothing listens, and it does not outlive us.

It has a session of its own, so that a Ctrl-C is for us to decide about, and is killed with its whole process group.
"""

import contextlib
import json
import os
import selectors
import shutil
import signal
import subprocess
import time
import weakref
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

_CHUNK = 2**18
_LOG_LINES = 12


class EngineFaultError(RuntimeError):
    """The process died, hung, or answered what it was not asked; another may do better."""


class Child:
    """One process and the pipes to it.

    Args:
        command: what is run.
        environment: all that it sees of ours.
        home: a folder for its log and temporary files, which goes when we go.

    Attributes:
        pid: of the process, and of its group.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], home: Path) -> None:
        self._log = home / "log.txt"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=home,
                env=dict(environment),
                start_new_session=True,
            )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._input, self._output = self._process.stdin.fileno(), self._process.stdout.fileno()
        os.set_blocking(self._input, False)
        self._asked, self._read = 0, b""
        self.pid = self._process.pid
        self._end = weakref.finalize(self, _end, self._process, os.getpid())

    def ask(self, operation: str, seconds: float, **arguments: Any) -> dict[str, Any]:
        """One request and its reply.

        Raises:
            EngineFaultError: there was no reply in time, or one that says what went wrong.
        """
        self.send(operation, seconds, **arguments)
        return self.reply(seconds)

    def send(self, operation: str, seconds: float, **arguments: Any) -> None:
        """One request; its reply waits in the pipe until somebody comes for it.

        Raises:
            EngineFaultError: it was not taken in time.
        """
        self._asked += 1
        unsent = json.dumps({"id": self._asked, "op": operation, **arguments}).encode() + b"\n"
        ready = self._ready(self._input, selectors.EVENT_WRITE, seconds)
        while unsent:
            next(ready)
            unsent = self._give(unsent)

    def reply(self, seconds: float) -> dict[str, Any]:
        """The reply to the last request.

        Raises:
            EngineFaultError: as `ask`.
        """
        ready = self._ready(self._output, selectors.EVENT_READ, seconds)
        while b"\n" not in self._read:
            next(ready)
            self._take()
        line, _, self._read = self._read.partition(b"\n")
        try:
            reply: dict[str, Any] = json.loads(line)
            mine, error = reply["id"] == self._asked, reply.get("error")
        except (ValueError, KeyError, TypeError) as broken:
            raise self._fault(f"it answered {line[:200]!r}, which is no reply") from broken
        if not mine:
            raise self._fault(f"it answered request {reply['id']}, not {self._asked}")
        if error is not None:
            raise self._fault(str(error))
        return reply

    def _ready(self, pipe: int, event: int, seconds: float) -> Iterator[None]:
        """Comes round whenever the pipe is ready, until the time is over."""
        ends = time.monotonic() + seconds
        with selectors.DefaultSelector() as selector:
            selector.register(pipe, event)
            while (left := ends - time.monotonic()) > 0:
                if selector.select(left):
                    yield
        raise self._fault(f"it gave no answer within {seconds:g} s")

    def _take(self) -> None:
        chunk = os.read(self._output, _CHUNK)
        if not chunk:
            raise self._fault(self._how_it_ended())
        self._read += chunk

    def _how_it_ended(self) -> str:
        try:
            code = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            return "it closed its output"
        return f"its process {f'was killed by signal {-code}' if code < 0 else f'ended with code {code}'}"

    def _give(self, unsent: bytes) -> bytes:
        try:
            return unsent[os.write(self._input, unsent[:_CHUNK]) :]
        except BlockingIOError:
            return unsent
        except BrokenPipeError:  # reading tells how it ended
            return b""

    def _fault(self, reason: str) -> EngineFaultError:
        return EngineFaultError(f"{reason}{self.last_words()}")

    def last_words(self) -> str:
        """The last lines of its log, indented; nothing where it has said nothing."""
        lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines() if self._log.exists() else []
        return "".join(f"\n    {line}" for line in lines[-_LOG_LINES:])

    def close(self) -> None:
        """Kills it, with all that it has started."""
        self._end()


def _end(process: "subprocess.Popen[bytes]", owner: int) -> None:
    """Called when nobody needs it any more, at the latest when this process ends; a fork of it leaves it alone."""
    if os.getpid() != owner:
        return
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()


def remove(home: Path, owner: int) -> None:
    """Takes a folder away, whatever is in it, at the latest when this process ends."""
    if os.getpid() == owner:
        shutil.rmtree(home, ignore_errors=True)
