"""What a person sees of a stage: a bar and its numbers in a terminal, a line now and then elsewhere."""

from collections import deque
from collections.abc import Mapping, Sequence

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from surefoot.callbacks import Evaluation
from surefoot.live import duration, short

_LINES = 50
"""So many lines a run, at most, where there is no terminal to draw in."""

ROWS: Mapping[str, Sequence[tuple[str, str, str, str]]] = {
    "sft": (
        ("loss", "sft/loss", "", "nats per token that is learnt"),
        ("held-out loss", "eval/loss", "", "the same on rows that are not learnt"),
        ("token accuracy", "sft/mean_token_accuracy", "%", "how often the likeliest token is the right one"),
        ("entropy", "sft/entropy", "", "nats per token"),
    ),
    "reward": (
        ("loss", "reward/loss", "", "0.693 is a guess"),
        ("accuracy", "reward/accuracy", "%", "pairs whose chosen answer scores higher"),
        ("held-out accuracy", "eval/accuracy", "%", "the same on pairs that are not learnt"),
        ("margin", "reward/margin", "", "score of chosen less that of rejected"),
    ),
    "dpo": (
        ("loss", "dpo/loss", "", "0.693 is where it begins"),
        ("accuracy", "dpo/rewards/accuracies", "%", "pairs whose chosen answer gained more than the rejected one"),
        ("held-out accuracy", "eval/rewards/accuracies", "%", "the same on pairs that are not learnt"),
        ("margin", "dpo/rewards/margins", "", "beta x (gain of chosen less gain of rejected)"),
        ("chosen", "dpo/rewards/chosen", "", "beta x gain in log-probability over the reference"),
    ),
}
"""Stage -> name, number, unit and meaning of what is shown; beside these the gradient norm and the learning rate."""


class StageView:
    """Shows a stage while it goes on. Use it as a context manager, so that the terminal is left as it was.

    Args:
        stage: sft, reward or dpo.
        console: where to.
        quiet: show nothing.
    """

    def __init__(self, stage: str, console: Console, quiet: bool = False) -> None:
        self.console, self.quiet = console, quiet
        self._rows = (
            *ROWS[stage],
            ("gradient norm", f"{stage}/grad_norm", "", "before clipping"),
            ("learning rate", f"{stage}/learning_rate", "", ""),
        )
        self._stage = stage
        self._total, self._done = 0, 0
        self._now: dict[str, float] = {}
        self._first: dict[str, float] = {}
        self._seconds: deque[float] = deque(maxlen=20)
        self._live: Live | None = None

    def __enter__(self) -> "StageView":
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None
            self.console.print(self.render())

    def begin(self, total: int, done: int) -> None:
        """Puts up the table."""
        self._total, self._done = total, done
        if self.console.is_terminal and not self.console.is_dumb_terminal and not self.quiet:
            self._live = Live(self.render(), console=self.console, refresh_per_second=4, transient=True)
            self._live.start()

    def step(self, record: Mapping[str, float]) -> None:
        """Shows a step."""
        self._seconds.append(record["time/step"])
        self._done = int(record["step"])
        self._take(record)
        every = max(1, self._total // _LINES)
        self._show(self._line() if self._done % every == 0 or self._done in (1, self._total) else None)

    def evaluation(self, evaluation: Evaluation) -> None:
        """Shows an evaluation."""
        self._take(evaluation.metrics)
        told = [f"{label} {short(evaluation.metrics[name], unit)}" for label, name, unit, _ in self._rows
                if name in evaluation.metrics]  # fmt: skip
        self._show(f"evaluation at step {evaluation.step}: {', '.join(told)}")

    def render(self) -> RenderableType:
        """The bar and the table."""
        bar = Table.grid(padding=(0, 2))
        words = f"{self._stage}: step {self._done} of {self._total}"
        bar.add_row(
            Text(words, style="bold"), ProgressBar(total=self._total, completed=self._done, width=30), self._left()
        )
        table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
        table.add_column("", no_wrap=True)
        table.add_column("now", justify="right", no_wrap=True, style="bold")
        table.add_column("first", justify="right", no_wrap=True, style="dim")
        table.add_column("", no_wrap=True, overflow="ellipsis", style="dim")
        for label, name, unit, meaning in self._rows:
            table.add_row(label, short(self._now.get(name), unit), short(self._first.get(name), unit), meaning)
        return Group(bar, Text(), table)

    def _take(self, numbers: Mapping[str, float]) -> None:
        self._now |= numbers
        self._first = dict(numbers) | self._first

    def _show(self, line: str | None) -> None:
        if self._live is not None:
            self._live.update(self.render(), refresh=True)
        elif line is not None and not self.quiet:
            self.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _line(self) -> str:
        shown = [f"{label} {short(self._now[name], unit)}" for label, name, unit, _ in self._rows
                 if name in self._now and not name.startswith("eval/")]  # fmt: skip
        width = len(str(self._total))
        left = self._left()
        return f"step {self._done:>{width}}/{self._total}  {'  '.join(shown)}{', ' + left if left else ''}"

    def _left(self) -> str:
        if not self._seconds or self._done >= self._total:
            return ""
        return f"{duration((self._total - self._done) * sum(self._seconds) / len(self._seconds))} left"
