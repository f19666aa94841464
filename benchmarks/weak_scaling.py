"""Weak scaling: twice the rows on twice the processes. `python -m benchmarks.weak_scaling --workload small`.

Each process has as many rows of a step, and of a minibatch, as the one process alone, and one thread. Perfectly
scaled, an iteration takes as long; the ratio says how much longer it takes. Alone and together take turns, each time
in new processes, so that a slow hour of the machine is in both; a round's ratio is of two runs one after the other.
"""

import argparse
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.ours import Ours  # before torch: see there

# isort: split
from benchmarks import machine
from benchmarks.launch import ROOT, environment
from benchmarks.side import deliver
from benchmarks.workloads import WORKLOADS

PROCESSES = (1, 2)


def work(args: argparse.Namespace) -> None:
    """One process: the main one writes the median of its iterations, whose stages end when all have ended them."""
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    w = WORKLOADS[args.workload]
    side = Ours(dataclasses.replace(w, rows=w.rows * processes), "ours", shard=args.shard)
    runtime = side.trainer.runtime
    side.prompts = runtime.share(side.prompts)
    side.warm_up()
    runtime.barrier()
    iterations = [side.iterate() for _ in range(args.iterations)]
    if runtime.is_main:
        found = {name: statistics.median(i[name] for i in iterations) for name in iterations[0]}
        deliver(found | {"processes": processes, "peak_bytes": machine.peak_bytes()}, args.out)


def measure(args: argparse.Namespace, processes: int) -> dict[str, Any]:
    """What so many new processes measure together.

    Raises:
        RuntimeError: they failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "record.json"
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
        command = [sys.executable, *launcher, "-m", "benchmarks.weak_scaling", "--worker", "--out", str(out)]
        command += ["--workload", args.workload, "--iterations", str(args.iterations), *["--shard"] * args.shard]
        done = subprocess.run(command, cwd=ROOT, env=environment(1), capture_output=True, text=True)  # noqa: PLW1510
        if done.returncode != 0 or not out.exists():
            raise RuntimeError(f"{processes} processes failed:\n{done.stderr[-2000:]}")
        found: dict[str, Any] = json.loads(out.read_text())
        return found


def ratios(rounds: list[dict[int, dict[str, Any]]]) -> dict[str, float]:
    """Median over the rounds of (seconds together) / (seconds alone), of the whole and of two stages."""
    return {
        name: statistics.median(found[2][name] / found[1][name] for found in rounds)
        for name in ("seconds", "sampling", "update")
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--workload", choices=list(WORKLOADS), default="small")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--iterations", type=int, default=3, help="timed in each process, after a warm-up")
    parser.add_argument("--shard", action="store_true", help="weights in shares")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, default=None, help="file of the record (default: printed)")
    args = parser.parse_args()
    if args.worker:
        return work(args)
    rounds = [{n: measure(args, n) for n in PROCESSES} for _ in range(args.rounds)]
    about = {"workload": args.workload, "shard": args.shard, "machine": machine.describe()}
    deliver(about | {"ratios": ratios(rounds), "rounds": rounds}, args.out)
    return None


if __name__ == "__main__":
    main()
