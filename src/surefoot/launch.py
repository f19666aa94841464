"""`surefoot ppo --processes N`: the same command N times, as a launcher such as torchrun starts it. No torch in here.

The processes share this one's terminal, where the first of them alone prints. A signal is passed on to all, which save
the run and end; how they ended is how this one ends. What becomes of the others when one fails is theirs to see to
(docs/decisions/0010); who is still there after that is ended.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from surefoot.arguments import UsageError
from surefoot.terminal import EXIT_FAILED, EXIT_OK, complain

STRAGGLERS_SECONDS = 120.0
"""How long the others may take to end after one has failed: longer than they need to find out."""
_LOOK_SECONDS = 0.2
_PASSED_ON = (signal.SIGINT, signal.SIGTERM)


def check_processes(number: int, environ: Mapping[str, str] = os.environ, *, flag: str = "--processes") -> None:
    """Whether so many processes can be started from here.

    Raises:
        UsageError: they cannot.
    """
    if number < 1:
        raise UsageError(f"{flag} {number}: there is at least one process")
    if "WORLD_SIZE" in environ:
        raise UsageError(
            f"{flag} {number}: a launcher has started this already, as one of {environ['WORLD_SIZE']} (WORLD_SIZE "
            f"is set): leave {flag} out"
        )


def launch(number: int, arguments: Sequence[str], environ: Mapping[str, str] = os.environ) -> int:
    """`surefoot` with these arguments in `number` processes on this machine; exit code of the first that failed."""
    shared = {
        **environ,
        "WORLD_SIZE": str(number),
        "LOCAL_WORLD_SIZE": str(number),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(_free_port()),
    }
    command = [sys.executable, "-m", "surefoot", *arguments]
    running: list[subprocess.Popen[bytes]] = []
    with _passed_on(running):
        ranks = ({"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(number))
        running.extend(subprocess.Popen(command, env=shared | rank) for rank in ranks)
        return _wait(running)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextmanager
def _passed_on(running: Sequence["subprocess.Popen[bytes]"]) -> Iterator[None]:
    """While active, signals end the processes instead of this one; at the end none is left."""

    def pass_on(number: int, frame: Any) -> None:
        for process in running:
            if process.poll() is None:
                process.send_signal(number)

    before = {number: signal.signal(number, pass_on) for number in _PASSED_ON}
    try:
        yield
    finally:
        for process in running:
            if process.poll() is None:
                process.kill()
                process.wait()
        for number, handler in before.items():
            signal.signal(number, handler)


def _wait(running: Sequence["subprocess.Popen[bytes]"]) -> int:
    first: int | None = None
    until = float("inf")
    while any(process.poll() is None for process in running) and time.monotonic() < until:
        time.sleep(_LOOK_SECONDS)
        if first is None and (failed := _failed(running)) is not None:
            first, until = failed, time.monotonic() + STRAGGLERS_SECONDS
    first = _failed(running) if first is None else first
    return EXIT_OK if first is None else _exit_code(first, int(running[first].returncode))


def _failed(running: Sequence["subprocess.Popen[bytes]"]) -> int | None:
    """The number of a process that has ended otherwise than well."""
    return next((rank for rank, process in enumerate(running) if process.poll() not in (None, EXIT_OK)), None)


def _exit_code(rank: int, code: int) -> int:
    """What a process ended with. A signal that ended it and was not passed on from here is told."""
    if code >= 0 or -code in _PASSED_ON:
        return code if code >= 0 else 128 - code
    complain(f"process {rank} was ended by {signal.Signals(-code).name}")
    return EXIT_FAILED
