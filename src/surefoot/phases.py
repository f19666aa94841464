"""The stages of an iteration, by name, so that whoever measures one can tell them apart; and an end to what they took.

GNU's malloc keeps what a stage has freed in pieces of up to 32 MiB, and the next stage's tensors rarely fit the holes.
It gives the holes back when asked, in milliseconds.
"""

import ctypes
import functools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

SAMPLING, SCORING, REWARD, ESTIMATES, UPDATE = "sampling", "scoring pass", "reward", "estimates", "update"

Watcher = Callable[[str], AbstractContextManager[object]]
"""Gives the context in which the stage of that name runs."""

_watchers: list[Watcher] = []


def stage(name: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Makes a function a stage: it runs inside the contexts of those who watch."""

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def run(*args: P.args, **kwargs: P.kwargs) -> R:
            try:
                if not _watchers:
                    return function(*args, **kwargs)
                with _watchers[-1](name):
                    return function(*args, **kwargs)
            finally:
                return_memory()

        return run

    return decorate


@contextmanager
def watched(watcher: Watcher) -> Iterator[None]:
    """While active, `watcher` is asked about every stage."""
    _watchers.append(watcher)
    try:
        yield
    finally:
        _watchers.remove(watcher)


def return_memory() -> None:
    """Gives back to the system what was freed in this process; nothing where its C library cannot be asked."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if hasattr(ctypes, "CDLL") else None
    if trim is not None:
        trim(0)
