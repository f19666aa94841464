"""The stages of an iteration, by name, so that whoever measures one can tell them apart; and what they do with memory.

Left alone, GNU's malloc gives large tensors back to the system as soon as they are freed, and the next pass of the
same stage waits for the system to clear the same memory again: a twentieth of an update's time. It is told to keep
memory while a stage runs, and to give everything back after it, in milliseconds: the next stage's tensors would
rarely fit the holes.
"""

import ctypes
import functools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, ParamSpec, TypeVar

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
            with memory_kept():
                if not _watchers:
                    return function(*args, **kwargs)
                with _watchers[-1](name):
                    return function(*args, **kwargs)

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


@contextmanager
def memory_kept() -> Iterator[None]:
    """While active, what is freed stays with this process; afterwards it is given back."""
    keep_memory()
    try:
        yield
    finally:
        return_memory()


def keep_memory() -> None:
    """Until `return_memory` this process keeps what is freed; nothing where its C library cannot be told."""
    _set_limits(mapped=2**30, kept=2**31 - 1)


def return_memory() -> None:
    """Gives back to the system what was freed in this process; nothing where its C library cannot be asked."""
    _set_limits(mapped=32 * 2**20, kept=64 * 2**20)  # as far as malloc goes by itself
    trim = _of_c_library("malloc_trim")
    if trim is not None:
        trim(0)


def _set_limits(mapped: int, kept: int) -> None:
    """Bytes from which a tensor gets pages of its own, and bytes of freed memory from which some are given back."""
    mallopt = _of_c_library("mallopt")
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, mapped)
        mallopt(_TRIM_THRESHOLD, kept)


_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Names of malloc's parameters, from malloc.h."""


def _of_c_library(name: str) -> Any:
    return getattr(ctypes.CDLL(None), name, None) if hasattr(ctypes, "CDLL") else None
