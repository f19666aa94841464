"""Numbers out of a results file: medians, ratios of pairs, shares of the matmul rate, and the bars beside them."""

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.operations import Operations, count
from benchmarks.workloads import WORKLOADS, make_prompts

Results = dict[str, Any]
Run = dict[str, Any]


# ---------------------------------------------------------------------------------------------- runs
def runs_of(results: Results, workload: str, setting: str, side: str = "surefoot") -> list[Run]:
    """The runs of the part "iteration", in the order of their rounds."""
    wanted = {"part": "iteration", "workload": workload, "setting": setting, "side": side}
    return [run for run in results["runs"] if all(run[k] == v for k, v in wanted.items())]


def median(runs: Sequence[Run], key: str) -> float | None:
    """The median of one number over runs; None without runs."""
    return statistics.median(run[key] for run in runs) if runs else None


def pair_ratio(results: Results, workload: str, setting: str, key: str) -> float | None:
    """The median over rounds of the peer's number divided by ours in the same round."""
    peers = {run["round"]: run[key] for run in runs_of(results, workload, "like", "trl")}
    ours = runs_of(results, workload, setting)
    ratios = [peers[run["round"]] / run[key] for run in ours if run["round"] in peers]
    return statistics.median(ratios) if ratios else None


def speedup(results: Results, workload: str, setting: str) -> float | None:
    """How many times faster than the peer an iteration is."""
    return pair_ratio(results, workload, setting, "seconds")


def memory_ratio(results: Results, workload: str, setting: str) -> float | None:
    """Our peak memory as a part of the peer's, whole resident sets."""
    ratio = pair_ratio(results, workload, setting, "peak_bytes")
    return None if ratio is None else 1 / ratio


def slowdown(results: Results, workload: str, side: str = "surefoot", waiting: str = "") -> float | None:
    """Seconds beside a busy process divided by seconds without one."""
    quiet, beside = (busy_seconds(results, workload, side, waiting, neighbour) for neighbour in (False, True))
    return None if quiet is None or beside is None else beside / quiet


def busy_seconds(results: Results, workload: str, side: str, waiting: str, neighbour: bool) -> float | None:
    """Seconds of an iteration of the part "busy", with or without the busy process."""
    wanted = {"part": "busy", "workload": workload, "side": side, "waiting": waiting, "neighbour": neighbour}
    return median([run for run in results["runs"] if all(run[k] == v for k, v in wanted.items())], "seconds")


# ---------------------------------------------------------------------------------------------- operations
def operations_of(workload: str, setting: str) -> Operations:
    """Useful operations of one iteration."""
    w, prompts = WORKLOADS[workload], make_prompts(WORKLOADS[workload])
    return count(
        w.shape,
        [len(row) for row in prompts.ids],
        prompts.response_lengths,
        epochs=w.epochs,
        value_model=setting == "like",
        lora_r=w.lora_r,
    )


def precision_of(workload: str, setting: str) -> str:
    """The arithmetic of the passes: bfloat16 where it was chosen, and on a GPU."""
    return "bf16" if setting == "bf16" or WORKLOADS[workload].device == "cuda" else "fp32"


def share_of_rate(results: Results, workload: str, setting: str, stage: str, side: str = "surefoot") -> float | None:
    """Useful operations a second as a part of the machine's matmul rate in the setting's precision.

    The rate is the higher of two: products of the workload's own shapes, and large squares.
    """
    rates, runs = results["matmul"].get(workload), runs_of(results, workload, setting, side)
    if not rates or not runs:
        return None
    precision = precision_of(workload, setting)
    rate = max(rates[precision], rates[f"square_{precision}"])
    seconds = median(runs, "seconds" if stage == "iteration" else stage)
    return getattr(operations_of(workload, setting), stage) / (seconds or math.inf) / rate


# ---------------------------------------------------------------------------------------------- other parts
def sampling_ratio(results: Results, workload: str, engine: str) -> float | None:
    """Median over rounds of another engine's seconds divided by ours."""
    for found in results["sampling"]:
        if found["workload"] == workload:
            pairs = zip(found["seconds"][engine], found["seconds"]["surefoot"], strict=True)
            return statistics.median(other / ours for other, ours in pairs)
    return None


def vocabulary_growth(results: Results, workload: str) -> float | None:
    """Memory of a step with the doubled vocabulary, relative to that with the single one, less 1."""
    return _growth(results["vocabulary"], workload, "vocab")


def row_exponent(results: Results, workload: str) -> float | None:
    """The slope of log seconds over log rows, by least squares."""
    found = [f for f in results["rows"] if f["workload"] == workload]
    points = [(math.log(f["rows"]), math.log(f["seconds"])) for f in found]
    return statistics.linear_regression(*zip(*points, strict=True)).slope if len(points) > 1 else None


def row_memory_growth(results: Results, workload: str) -> float | None:
    """Memory of a step with the most rows, relative to that with the fewest, less 1."""
    return _growth(results["rows"], workload, "rows")


def _growth(records: Sequence[Run], workload: str, size: str) -> float | None:
    steps = {f[size]: f["step_bytes"] for f in records if f["workload"] == workload}
    return steps[max(steps)] / steps[min(steps)] - 1 if len(steps) > 1 else None


# ---------------------------------------------------------------------------------------------- bars
@dataclass(frozen=True)
class Bar:
    """What was promised: a number for each workload, reached from above or from below."""

    name: str
    needed: dict[str, float]
    measured: Callable[[Results, str], float | None]
    at_least: bool = True
    unit: str = "×"

    def met(self, value: float, workload: str) -> bool:
        """Whether a measured value reaches the bar, unrounded."""
        return value >= self.needed[workload] if self.at_least else value <= self.needed[workload]


BARS = (
    Bar("faster, like for like, fp32", {"small": 1.3, "ragged": 2.0, "real": 1.4}, lambda r, w: speedup(r, w, "like")),
    Bar("faster, ours, fp32", {"small": 2.2, "ragged": 3.5, "real": 2.3}, lambda r, w: speedup(r, w, "ours")),
    Bar("faster, ours, bf16", {"small": 4.0, "ragged": 6.0, "real": 6.0}, lambda r, w: speedup(r, w, "bf16")),
    Bar(
        "peak memory, ours",
        {"small": 0.75, "ragged": 0.75, "real": 0.5},
        lambda r, w: memory_ratio(r, w, "ours"),
        at_least=False,
        unit="",
    ),
    Bar(
        "peak memory, frozen models offloaded",
        {"real": 0.5},
        lambda r, w: memory_ratio(r, w, "lean"),
        at_least=False,
        unit="",
    ),
    Bar(
        "slow-down beside a busy process",
        {"small": 2.2, "ragged": 2.2, "real": 2.2},
        slowdown,
        at_least=False,
    ),
    Bar(
        "share of the matmul rate, update, fp32",
        {"real": 0.75},
        lambda r, w: share_of_rate(r, w, "ours", "update"),
        unit="%",
    ),
    Bar(
        "share of the matmul rate, iteration, fp32",
        {"real": 0.60},
        lambda r, w: share_of_rate(r, w, "ours", "iteration"),
        unit="%",
    ),
    Bar(
        "sampling, faster than `transformers.generate`",
        {"small": 1.2, "ragged": 2.0},
        lambda r, w: sampling_ratio(r, w, "generate"),
    ),
    Bar(
        "memory of the update, vocabulary doubled",
        {"real": 0.05},
        vocabulary_growth,
        at_least=False,
        unit="%",
    ),
    Bar("exponent of time, 8 to 64 rows", {"small": 1.1}, row_exponent, at_least=False, unit=""),
    Bar(
        "memory of the update, 8 to 64 rows in one token budget",
        {"small": 0.05},
        row_memory_growth,
        at_least=False,
        unit="%",
    ),
)
