"""How the end of one process becomes the end of all, within seconds (docs/decisions/0010).

A process that fails says so in the store that all processes met at; the first word stays. In every process a thread
looks there once a second, and at whether the next process (by rank, in a ring) still shows signs of life. What it
finds it leaves to the main thread for a while, which mostly comes out by itself: its collective breaks when the other
process is gone. If it does not, because it hangs, the stacks of all its threads are printed and the process ends.
"""

import contextlib
import faulthandler
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

POLL_SECONDS = 1.0
SILENT_POLLS = 15
"""Looks without a sign of life from the next process; counted, so that machines that sleep together wake together."""
GRACE_SECONDS = 5.0
"""What the main thread has to come out by itself."""
LINGER_SECONDS = 4.0
"""How long the first process, with which the store goes, waits for the others to have read what is in it."""
EXIT_LOST = 1

_ERROR = "surefoot/error"
_GONE = b"gone"


class AbandonedError(KeyboardInterrupt):
    """An iteration is left before anything was learned in it, because the run is to stop. No error of anybody's.

    As an interrupt it passes through the `except Exception` of rewards, and libraries let it through too.
    """


class PeerError(RuntimeError):
    """Another process failed; the message is what it said. All processes left the same block together."""


class PeerLostError(PeerError):
    """Another process is gone or hangs: nothing can be done together any more."""


@runtime_checkable
class Store(Protocol):
    """What is needed of torch.distributed's store."""

    def set(self, key: str, value: str) -> None: ...  # noqa: D102
    def get(self, key: str) -> bytes: ...  # noqa: D102
    def check(self, keys: list[str]) -> bool: ...  # noqa: D102
    def compare_set(self, key: str, expected: str, desired: str) -> bytes: ...  # noqa: D102


class Peers:
    """This process's place among the others, as far as failures go.

    Args:
        store: where all meet.
        rank, world_size: this process, and how many there are.
        leave: ends the process at once; given for tests.
    """

    def __init__(self, store: Store, rank: int, world_size: int, leave: Callable[[int], Any] = os._exit) -> None:
        self._store, self._rank, self._world_size, self._leave = store, rank, world_size, leave
        self._done = threading.Event()
        self._told = False
        self._thread = threading.Thread(target=self._watch, name="surefoot peers", daemon=True)

    def start(self) -> None:
        """Begins to watch; what nobody catches is told from now on too."""
        self._beat(0)
        self._thread.start()
        before = sys.excepthook

        def hook(kind: Any, error: BaseException, trace: Any) -> None:
            self.tell(error)
            before(kind, error, trace)

        sys.excepthook = hook

    def close(self) -> None:
        """Says goodbye: from now on silence is no sign of death."""
        self._done.set()
        self._thread.join(2 * POLL_SECONDS)
        with contextlib.suppress(RuntimeError):
            self._store.set(_beat_of(self._rank), _GONE.decode())
        self._linger()

    def _linger(self) -> None:
        """Keeps the store for those that have not left yet, for a while."""
        until = time.monotonic() + LINGER_SECONDS
        while self._rank == 0 and any(b != _GONE for b in self._beats()[1:]) and time.monotonic() < until:
            time.sleep(POLL_SECONDS / 10)

    def tell(self, error: BaseException) -> None:
        """Makes the failure of this process everybody's. The first one told stays."""
        self._told = True
        self._say(str(error) if isinstance(error, PeerError) else f"process {self._rank} failed: {_words(error)}")

    def _say(self, words: str) -> None:
        with contextlib.suppress(RuntimeError):
            self._store.compare_set(_ERROR, "", words)

    def explain(self, error: Exception) -> str:
        """In words, what became of the others, after a collective broke with `error`."""
        before = self._beats()
        for _ in range(4):
            if told := self._error():
                return told
            time.sleep(0.6 * POLL_SECONDS)
        after = self._beats()
        others = [r for r in range(self._world_size) if r != self._rank]
        gone = [r for r in others if after[r] == _GONE]
        dead = [r for r in others if after[r] == before[r] and r not in gone]
        if dead:
            return f"{_processes(dead)} died without a word (killed, or out of memory?): see its own output"
        if gone:
            return f"{_processes(gone)} ended while process {self._rank} was still at work"
        return f"process {self._rank} waited in vain for another, which lives but does not come: {error}"

    # ------------------------------------------------------------------------------------- the thread
    def _watch(self) -> None:
        neighbour = (self._rank + 1) % self._world_size
        seen, silent, count, first_left = b"", 0, 0, False
        try:
            while not self._done.wait(POLL_SECONDS):
                count += 1
                self._beat(count)
                if told := self._error():
                    return None if self._told else self._end(told)
                first_left = self._read(_beat_of(0)) == _GONE
                now = self._read(_beat_of(neighbour))
                silent = silent + 1 if now == seen and now not in (b"", _GONE) else 0
                seen = now
                if silent >= SILENT_POLLS:
                    self._say(f"{_processes([neighbour])} shows no sign of life: killed, or frozen?")
        except RuntimeError:  # the store is gone, and the first process with it
            if not (first_left or self._told):
                self._end("process 0 is gone without a word")
        return None

    def _end(self, told: str) -> None:
        """Waits for the main thread to come out; then ends the process."""
        if self._done.wait(GRACE_SECONDS):
            return
        sys.stderr.write(f"surefoot: error: {told}\nsurefoot: process {self._rank} hangs here:\n")
        sys.stderr.flush()
        with contextlib.suppress(OSError, ValueError, AttributeError):  # a standard error without a file
            faulthandler.dump_traceback(all_threads=True)
        sys.stdout.flush()
        self._linger()
        self._leave(EXIT_LOST)

    # ------------------------------------------------------------------------------------- the store
    def _beat(self, count: int) -> None:
        self._store.set(_beat_of(self._rank), str(count))

    def _beats(self) -> list[bytes]:
        try:
            return [self._read(_beat_of(r)) for r in range(self._world_size)]
        except RuntimeError:
            return [b""] * self._world_size

    def _read(self, key: str) -> bytes:
        return self._store.get(key) if self._store.check([key]) else b""

    def _error(self) -> str:
        try:
            return self._read(_ERROR).decode(errors="replace")
        except RuntimeError:
            return ""


def _beat_of(rank: int) -> str:
    return f"surefoot/beat/{rank}"


def _words(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _processes(ranks: list[int]) -> str:
    return f"process{'es' * (len(ranks) > 1)} {', '.join(map(str, ranks))}"
