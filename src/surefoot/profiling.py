"""A profile of one iteration of `train`: what each stage takes, the heaviest operators, and a trace to look at."""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from surefoot.callbacks import Callback, SampleRecord, TrainResult
from surefoot.phases import SAMPLING, watched
from surefoot.runtime import peak_memory_since_restart_gib, restart_peak_memory
from surefoot.types import StepStats

_OPERATORS = 15


@dataclass(frozen=True, slots=True)
class StageCost:
    """What a stage took. `cpu_seconds` counts every thread of the process."""

    name: str
    seconds: float
    cpu_seconds: float
    peak_gib: float | None = None


class Profile(Callback):
    """Profiles the second iteration of `train`; the first warms up. Writes profile/ into the run folder.

    It begins with the sampling and ends with the step, so no evaluation and no checkpoint is in it. The iteration's
    numbers are those of any other; its seconds are not, since recording every operator takes time too.

    Args:
        folder: of the run; trace.json.gz (for ui.perfetto.dev) and table.txt go into its folder profile.
        show: is told the table of stages.
    """

    def __init__(self, folder: Path, show: Callable[[str], None]) -> None:
        self._folder, self._show = folder / "profile", show
        self._costs: list[StageCost] = []
        self._watching = ExitStack()
        self._profiler: profile | None = None
        self._steps = 0
        self._device = torch.device("cpu")

    def on_step(self, trainer: Any, stats: StepStats, samples: Sequence[SampleRecord]) -> None:
        """Waits for the next iteration after the first step; writes the profile after the second."""
        self._steps += 1
        if self._steps == 1 and trainer.runtime.is_main:
            self._device = trainer.models.device
            self._watching.enter_context(watched(self._stage))
        elif self._profiler is not None:
            self._finish(self._profiler)

    def on_end(self, trainer: Any, result: TrainResult) -> None:
        """Says so where the run was too short."""
        self._watching.close()
        if self._steps < 2 and trainer.runtime.is_main:
            self._show("profile   none: it is made of the second step, after one that warms up")

    @contextmanager
    def _stage(self, name: str) -> Iterator[None]:
        if self._profiler is None and name == SAMPLING:
            os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # its notes would stand in the middle of the table
            self._began = self._now()
            self._profiler = self._watching.enter_context(profile(activities=_activities(self._device)))
        if self._profiler is None:
            yield
            return
        measured = restart_peak_memory(self._device)
        began = self._now()
        with record_function(name):
            yield
        seconds, cpu_seconds = (end - start for start, end in zip(began, self._now(), strict=True))
        peak = peak_memory_since_restart_gib(self._device) if measured else None
        self._costs.append(StageCost(name, seconds, cpu_seconds, peak))

    def _finish(self, profiler: profile) -> None:
        seconds, cpu_seconds = (end - start for start, end in zip(self._began, self._now(), strict=True))
        self._watching.close()
        self._profiler = None
        self._folder.mkdir(parents=True, exist_ok=True)
        profiler.export_chrome_trace(str(self._folder / "trace.json.gz"))
        stages = stage_table(self._costs, StageCost("one iteration", seconds, cpu_seconds))
        operators = operator_table(profiler.key_averages(), {cost.name for cost in self._costs})
        (self._folder / "table.txt").write_text(f"{stages}\n\n{operators}\n")
        self._show(
            f"{stages}\n{self._folder}: a trace for ui.perfetto.dev, and this table with the heaviest operators"
        )

    def _now(self) -> tuple[float, float]:
        """Seconds of the clock and of all threads, once the GPU has done what it was told to."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter(), time.process_time()


def _activities(device: torch.device) -> list[ProfilerActivity]:
    return [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]


def stage_table(costs: Sequence[StageCost], whole: StageCost) -> str:
    """A line for each stage, for what lies between them, and for the whole iteration."""
    rest = StageCost(
        "everything else",
        whole.seconds - sum(cost.seconds for cost in costs),
        whole.cpu_seconds - sum(cost.cpu_seconds for cost in costs),
    )
    lines = [f"{'stage':<16}{'seconds':>9}{'share':>7}{'CPU s':>9}{'cores':>7}{'peak GiB':>10}"]
    for cost in (*costs, rest, whole):
        peak = "" if cost.peak_gib is None else f"{cost.peak_gib:.2f}"
        share, cores = cost.seconds / whole.seconds, cost.cpu_seconds / cost.seconds
        lines.append(
            f"{cost.name:<16}{cost.seconds:>9.3f}{share:>7.0%}{cost.cpu_seconds:>9.3f}{cores:>7.2f}{peak:>10}".rstrip()
        )
    return "\n".join(lines)


def operator_table(averages: Sequence[Any], stages: set[str]) -> str:
    """The operators that take longest by themselves, on the device that does the work."""
    operators = [a for a in averages if a.key not in stages]
    on_gpu = any(a.self_device_time_total for a in operators)
    took = {a.key: (a.self_device_time_total if on_gpu else a.self_cpu_time_total) / 1e6 for a in operators}
    whole = sum(took.values())
    heaviest = sorted(operators, key=lambda a: -took[a.key])[:_OPERATORS]
    lines = (f"{a.key[:47]:<48}{took[a.key]:>9.3f}{took[a.key] / whole:>7.0%}{a.count:>9}" for a in heaviest)
    return "\n".join([f"{'operator':<48}{'seconds':>9}{'share':>7}{'calls':>9}", *lines])
