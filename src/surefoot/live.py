"""What a person sees of a run: twelve numbers and a bar in a terminal, a line a step elsewhere, and how it ended."""

import math
import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from rich.cells import cell_len, chop_cells
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from surefoot.callbacks import Callback, Evaluation, SampleRecord, TrainResult
from surefoot.display import visible
from surefoot.types import StepStats
from surefoot.watch.rules import told

ROWS: Sequence[tuple[str, str, str, str]] = (
    ("score", "objective/scores", "", "mean of this batch"),
    ("evaluation score", "eval/score", "", "mean over the evaluation prompts"),
    ("KL per token", "objective/kl_per_token", "", "nats from the reference"),
    ("KL price", "objective/kl_coef", "", "cost of one nat"),
    ("answer length", "tokens/responses_len_mean", "", "tokens"),
    ("finished answers", "tokens/eos_rate", "%", "ended before max_new_tokens"),
    ("different pairs", "tokens/distinct_2", "%", "of neighbouring tokens; falls when answers repeat"),
    ("entropy", "ppo/policy/entropy", "", "nats per token; near 0 the policy no longer explores"),
    ("clipped tokens", "ppo/policy/clipfrac", "%", "much above 20%: learning_rate is too high"),
    ("value fit", "ppo/val/explained_variance", "", "1 perfect, 0 no better than a constant"),
    ("gradient norm", "ppo/grad_norm", "", "before clipping"),
    ("speed", "time/tokens_per_second", "", "tokens per second"),
)
"""Name, statistic, unit and meaning of what the table shows."""
GOLD = ("gold", "eval/gold", "", "a better scorer, on the same prompts; nothing is trained on it")
_ALARMS_SHOWN = 3


class LiveView(Callback):
    """Shows a run while it goes on. Use it as a context manager, so that the terminal is left as it was.

    Args:
        console: where to. A terminal gets the table, anything else a line a step.
        quiet: show nothing.
    """

    def __init__(self, console: Console, quiet: bool = False) -> None:
        self.console = console
        self.quiet = quiet
        self.first: dict[str, float] = {}
        self.now: dict[str, float] = {}
        self._sample: SampleRecord | None = None
        self._alarms: list[str] = []
        self._total: int | None = None
        self._seconds: deque[float] = deque(maxlen=20)
        self._last = time.monotonic()
        self._live: Live | None = None

    def __enter__(self) -> "LiveView":
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def on_start(self, trainer: Any) -> None:
        """Puts up the table."""
        self._total, self._last = trainer.total_steps, time.monotonic()
        self._take_earlier(trainer)
        if self.console.is_terminal and not self.console.is_dumb_terminal and not self.quiet:
            self._live = Live(self.render(), console=self.console, refresh_per_second=4, transient=True)
            self._live.start()

    def on_step(self, trainer: Any, stats: StepStats, samples: Sequence[SampleRecord]) -> bool | None:
        """Shows the step's numbers and its first answer."""
        now = time.monotonic()
        self._seconds.append(now - self._last)
        self._last = now
        self._take(stats.scalars())
        self._sample = samples[0] if samples else None
        self._show(self._step_line())
        return None

    def on_evaluation(self, trainer: Any, evaluation: Evaluation) -> bool | None:
        """Shows the evaluation's score beside the first one's."""
        if not self._seconds:
            self._last = time.monotonic()  # the evaluation before the first step says nothing about a step
        self._take(evaluation.metrics)
        self._alarms += [f"step {evaluation.step}: {told(alarm)}" for alarm in evaluation.alarms]
        self._show(self._evaluation_line(evaluation))
        return None

    def on_end(self, trainer: Any, result: TrainResult) -> None:
        """Leaves the last table on the screen."""
        if self._live is not None:
            self.__exit__()
            self.console.print(self.render())

    def render(self) -> RenderableType:
        """The bar, the table and one answer."""
        parts: list[RenderableType] = [self._bar(), Text(), self._table()]
        if self._sample is not None:
            width = max(20, self.console.width - 10)
            parts += [Text(), _labelled("prompt", self._sample["prompt"], width, end=True)]
            parts.append(_labelled("answer", self._sample["response"], width))
            parts.append(_labelled("its score", f"{short(self._sample['score'])}", width))
        parts += [Text(visible(words), style="yellow") for words in self._alarms[-_ALARMS_SHOWN:]]
        return Group(*parts)

    def _take_earlier(self, trainer: Any) -> None:
        """What a run that goes on showed before it was stopped."""
        if trainer.progress.steps and trainer.folder is not None and trainer.runtime.is_main:
            steps = trainer.folder.read_metrics()
            for numbers in (*steps[:1], *steps[-1:]):
                self._take({name: x for name, x in numbers.items() if isinstance(x, int | float)})
        for evaluation in trainer.progress.evaluations:
            self._take(evaluation.metrics)
            self._alarms += [f"step {evaluation.step}: {told(alarm)}" for alarm in evaluation.alarms]
        self.now["step"] = float(trainer.progress.steps)

    def _take(self, numbers: Mapping[str, float]) -> None:
        self.now |= numbers
        self.first = dict(numbers) | self.first

    def _show(self, line: str) -> None:
        if self._live is not None:
            self._live.update(self.render(), refresh=True)
        elif not self.quiet:
            self.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _bar(self) -> RenderableType:
        row = Table.grid(padding=(0, 2))
        step = int(self.now["step"])
        bar = ProgressBar(total=self._total, completed=step, width=30)
        words = f"step {step}" if self._total is None else f"step {step} of {self._total}"
        row.add_row(Text(words, style="bold"), *([] if self._total is None else [bar]), self.time_left())
        return row

    def _table(self) -> Table:
        table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
        table.add_column("", no_wrap=True)
        table.add_column("now", justify="right", no_wrap=True, style="bold")
        table.add_column("first", justify="right", no_wrap=True, style="dim")
        table.add_column("", no_wrap=True, overflow="ellipsis", style="dim")
        target = self.now.get("objective/target_kl")
        for label, name, unit, meaning in self._rows():
            aim = f"; target {target:g}" if target is not None and name == "objective/kl_per_token" else ""
            table.add_row(label, short(self.now.get(name), unit), short(self.first.get(name), unit), meaning + aim)
        return table

    def _rows(self) -> Sequence[tuple[str, str, str, str]]:
        """With gold it takes the place of the last and least row: twelve numbers are enough for a table."""
        return ROWS if "eval/gold" not in self.now else (*ROWS[:2], GOLD, *ROWS[2:-1])

    def time_left(self) -> str:
        """In words, from the last steps with their evaluations; empty before the first step."""
        if self._total is None or not self._seconds:
            return ""
        steps = max(0, self._total - int(self.now["step"]))
        return f"{duration(steps * sum(self._seconds) / len(self._seconds))} left"

    def _step_line(self) -> str:
        n = self.now
        total = "" if self._total is None else f"/{self._total}"
        left = self.time_left()
        seconds = sum(n.get(f"time/{stage}", 0.0) for stage in ("generate", "score", "step"))
        return (
            f"step {int(n['step']):>{max(1, len(total) - 1)}}{total}  score {short(n.get('objective/scores')):>6}"
            f" ± {short(n.get('ppo/std_scores'))}  KL {short(n.get('objective/kl_per_token'))}/token"
            f" at {short(n.get('objective/kl_coef'))}  length {short(n.get('tokens/responses_len_mean'))},"
            f" {short(n.get('tokens/eos_rate'), '%')} finished  {duration(seconds)}"
            f"{', ' + left if left else ''}"
        )

    def _evaluation_line(self, evaluation: Evaluation) -> str:
        m, first = evaluation.metrics, self.first
        gold = f"  gold {short(m['eval/gold'])} (first {short(first.get('eval/gold'))})" if "eval/gold" in m else ""
        line = (
            f"evaluation at step {evaluation.step}: score {short(m['eval/score'])}"
            f" (first {short(first['eval/score'])}){gold}  KL {short(m.get('eval/kl_per_token'))}/token"
            f"  length {short(m.get('eval/length'))}, {short(m.get('eval/eos_rate'), '%')} finished"
        )
        return "\n".join([line, *(visible(f"  watch: {told(alarm)}") for alarm in evaluation.alarms)])


# ------------------------------------------------------------------------------------------ the end of a run


def closing(result: TrainResult, width: int) -> RenderableType:
    """Before -> after on the evaluation prompts, and five of them with both answers."""
    if len(result.evaluations) < 2:
        return Text("There were no evaluations to compare (eval_prompts or eval_dataset).")
    before = result.evaluations[0]
    after = next((e for e in reversed(result.evaluations) if e.step == result.model_step), result.evaluations[-1])
    earlier = {sample["row"]: sample for sample in before.samples}
    pairs = [(earlier[s["row"]], s) for s in after.samples if s["row"] in earlier][:5]
    parts: list[RenderableType] = [_comparison(before, after)]
    for old, new in pairs:
        parts += [Text(), _labelled("prompt", new["prompt"], width - 10, end=True)]
        parts += [_answer("before", old, width), _answer("after", new, width)]
    return Group(*parts)


def _comparison(before: Evaluation, after: Evaluation) -> Table:
    """One row a metric; ± is the half width of a 95% confidence interval over the evaluation prompts."""
    rewards = [n for n in after.metrics if n.startswith("eval/rewards/") and n.count("/") == 2]
    rows = [("score", "eval/score", ""), *([("gold", "eval/gold", "")] if "eval/gold" in after.metrics else [])]
    rows += [(f"  {visible(n.rpartition('/')[2])}", n, "") for n in rewards if len(rewards) > 1]
    rows += [("KL per token", "eval/kl_per_token", ""), ("answer length", "eval/length", "")]
    rows.append(("finished answers", "eval/eos_rate", "%"))
    table = Table(box=None, padding=(0, 3, 0, 0), pad_edge=False)
    table.add_column(f"{len(after.samples)} evaluation prompts", no_wrap=True)
    for title in (f"before (step {before.step})", f"after (step {after.step})"):
        table.add_column(title, justify="right", no_wrap=True)
    for label, name, unit in rows:
        table.add_row(Text(label), *(short(e.metrics.get(name), unit) + _margin(e, name) for e in (before, after)))
    return table


def _margin(evaluation: Evaluation, name: str) -> str:
    spread, count = evaluation.metrics.get(f"{name}_std"), len(evaluation.samples)
    return "" if spread is None or count < 2 else f" ± {short(1.96 * spread / math.sqrt(count))}"


def _answer(label: str, sample: SampleRecord, width: int) -> RenderableType:
    return _labelled(f"{label} {short(sample['score']):>6}", sample["response"], 2 * (width - 16), indent=16)


def _labelled(label: str, text: str, room: int, end: bool = False, indent: int = 10) -> RenderableType:
    """A label and a text with its control characters escaped, cut to `room` columns (at its start if `end`)."""
    text = text.strip()
    shown = visible(text[-room - 1 :] if end else text[: room + 1])  # a letter takes a column or more
    if len(text) > room or cell_len(shown) > room:
        kept = chop_cells(shown[::-1] if end else shown, room - 1)[0]
        shown = "…" + kept[::-1] if end else kept + "…"
    row = Table.grid(padding=0)
    row.add_column(width=indent, no_wrap=True, style="dim")
    row.add_column(overflow="fold")
    row.add_row(Text(label), Text(shown))
    return row


# ------------------------------------------------------------------------------------------ numbers in words


def short(value: float | None, unit: str = "") -> str:
    """A number in at most three or four digits; "-" where there is none."""
    if value is None or math.isnan(value):
        return "-"
    if unit == "%":
        return f"{100 * value:.0f}%"
    size = abs(value)
    if size >= 100_000 or 0 < size < 0.0005:
        return f"{value:.0e}"
    digits = 0 if size >= 100 else 1 if size >= 10 else 2 if size >= 1 else 3
    return f"{value:.{digits}f}"


def duration(seconds: float) -> str:
    """Seconds as people say them: 0.4 s, 12 s, 3 min, 2 h 05 min."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
