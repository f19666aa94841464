"""What the two sides have in common, knowing neither: their command line, their clock, and the record they leave."""

import argparse
import json
import os
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks import machine
from benchmarks.workloads import WORKLOADS

STAGES = ("sampling", "scoring", "reward", "update", "other")


def option_parser(settings: Sequence[str]) -> argparse.ArgumentParser:
    """The options of one process: what it runs, how often, and where it writes its record."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--workload", choices=list(WORKLOADS), default="small")
    parser.add_argument("--setting", choices=settings, default=settings[0])
    parser.add_argument("--iterations", type=int, default=None, help="how many are timed (default: the workload's)")
    parser.add_argument("--out", type=Path, default=None, help="file of the record (default: printed)")
    return parser


class Clock:
    """Seconds between marks, booked under names; waits for the GPU where there is work on it."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(STAGES, 0.0)
        self._last = self._began = now()
        self._cpu = time.process_time()

    def mark(self, stage: str) -> None:
        """Books the time since the last mark."""
        time_now = now()
        self.seconds[stage] += time_now - self._last
        self._last = time_now

    def move(self, seconds: float, source: str, target: str) -> None:
        """Books `seconds` that were booked under `source` under `target` instead."""
        self.seconds[source] -= seconds
        self.seconds[target] += seconds

    def result(self) -> dict[str, float]:
        """Seconds of each stage, and of the whole: by the clock, and of all cores together."""
        return {
            **self.seconds,
            "seconds": self._last - self._began,
            "cpu_seconds": time.process_time() - self._cpu,
        }


def now() -> float:
    """Seconds, after whatever the GPU still has to do."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return time.perf_counter()


def record(side: str, args: argparse.Namespace, iterations: Sequence[dict[str, Any]], **facts: Any) -> dict[str, Any]:
    """What one process has to say; every number of an iteration is the median of those that were timed."""
    medians = {name: statistics.median(i[name] for i in iterations) for name in iterations[0]}
    return {
        "side": side,
        "workload": args.workload,
        "setting": args.setting,
        **medians,
        "iterations": len(iterations),
        "peak_bytes": machine.peak_bytes(WORKLOADS[args.workload].device),
        "threads": torch.get_num_threads(),
        "openmp": {k: v for k, v in os.environ.items() if k.startswith(("OMP_", "GOMP_"))},
        **facts,
    }


def deliver(found: dict[str, Any], out: Path | None) -> None:
    """Writes the record where it was asked for."""
    text = json.dumps(found)
    if out is None:
        print(text)
    else:
        out.write_text(text)
