"""How a command speaks: to standard output, to standard error, and by its exit code. No torch in here."""

import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from surefoot.arguments import UsageError
from surefoot.display import presentable, visible_lines

if TYPE_CHECKING:
    from rich.console import Console

EXIT_OK, EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED, EXIT_TERMINATED = 0, 1, 2, 130, 143


def console() -> "Console":
    """Standard output; 110 wide where it is no terminal and nobody says otherwise."""
    from rich.console import Console

    known = sys.stdout.isatty() or "COLUMNS" in os.environ
    return Console(highlight=False, width=None if known else 110)


def say(screen: "Console", text: str) -> None:
    """A text as it is written, without markup or colours of its own."""
    screen.print(visible_lines(text), markup=False, highlight=False, soft_wrap=True)


def is_first() -> bool:
    """Whether this is the process that speaks for all that a launcher started."""
    return os.environ.get("RANK", "0") == "0"


def complain(text: str) -> None:
    """A line on standard error; which process it is of is said where it is not the first."""
    who = "surefoot" if is_first() else f"surefoot, process {os.environ['RANK']}"
    print(f"{who}: {presentable(text)}", file=sys.stderr)


@contextmanager
def usage_errors() -> Iterator[None]:
    """What goes wrong while a run is put together is the command line's or the config's fault."""
    try:
        yield
    except (ValueError, OSError) as error:
        raise UsageError(str(error)) from error


class _Complaints(logging.Handler):
    """Our log records as lines on standard error."""

    def emit(self, record: logging.LogRecord) -> None:
        """Says it."""
        complain(f"{record.levelname.lower()}: {self.format(record)}")


@contextmanager
def plain_warnings() -> Iterator[None]:
    """Warnings and what is logged, each on standard error without the place in our code that it comes from.

    All processes of a run would say the same, so the first one does; errors are everybody's.
    """
    complaints = _Complaints(logging.WARNING if is_first() else logging.ERROR)
    logger = logging.getLogger("surefoot")
    logger.addHandler(complaints)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *_, **__: complain(f"warning: {message}") if is_first() else None
            # peft asks transformers by an old name whether activations are recomputed: nobody can act on that
            warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
            yield
    finally:
        logger.removeHandler(complaints)
