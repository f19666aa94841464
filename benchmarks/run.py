"""The benchmark: `python -m benchmarks.run`, or parts of it, for instance `--part iteration --workload small`.

Ours and the peer run in turn, A B A B, each in a process of its own, with the same model, prompts, batch, epochs,
minibatches, lengths and threads. That both made the same number of optimizer steps on the same number of tokens is
checked for every pair. Results are printed, and with --save kept in benchmarks/results/ for benchmarks.report.
"""

import argparse
import datetime
import json
import os
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks import machine
from benchmarks.launch import PEER, ROOT, WAITING, commit, environment, launch, neighbour
from benchmarks.report import document
from benchmarks.scaling import ROWS
from benchmarks.workloads import WORKLOADS

RESULTS = ROOT / "benchmarks" / "results"
CPU_WORKLOADS = ("small", "ragged", "real", "real-lora")
GPU_WORKLOADS = ("gpu-64", "gpu")
QUIET = 0.5
"""Load average under which a machine counts as idle."""
SAME = ("optimizer_steps", "prompt_tokens", "response_tokens", "weights")
Results = dict[str, Any]


def options(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    parser.add_argument("--part", action="append", choices=list(PARTS), help="default: all")
    parser.add_argument("--workload", action="append", choices=list(WORKLOADS), help="default: all that can run here")
    parser.add_argument("--setting", action="append", choices=["like", "ours", "bf16", "lean"], help="default: all")
    parser.add_argument("--repeats", type=int, default=3, help="rounds of A B")
    parser.add_argument("--minutes", type=float, default=20, help="no further round is begun after so many")
    parser.add_argument("--threads", type=int, default=machine.cores(), help="default: one for each core")
    parser.add_argument("--gpu", action="store_true", help="the workloads of a GPU alone, without the other parts")
    parser.add_argument("--no-peer", action="store_true", help="ours alone")
    parser.add_argument("--quick", action="store_true", help="the toy model, once: shows that everything works")
    parser.add_argument("--save", action="store_true", help=f"write {RESULTS.relative_to(ROOT)}/<date>-<machine>.json")
    args = parser.parse_args(argv)
    if args.save and (args.part or args.workload or args.setting or args.no_peer or args.quick):
        parser.error("--save keeps complete runs: leave out --part, --workload, --setting, --no-peer and --quick")
    if args.quick:
        args.workload, args.repeats = ["toy"], 1
    if args.gpu:
        args.part, args.workload = ["iteration"], list(GPU_WORKLOADS)
    args.part = args.part or list(PARTS)
    args.workload = args.workload or [*CPU_WORKLOADS, *(GPU_WORKLOADS if torch.cuda.is_available() else ())]
    args.setting = args.setting or ["like", "ours", *(["bf16"] if machine.cpu_has_bf16() else []), "lean"]
    args.env = environment(args.threads)
    return args


# ---------------------------------------------------------------------------------------------- parts
def iteration(args: argparse.Namespace, results: Results) -> None:
    """Time and memory of one iteration of every workload and setting, beside the peer."""
    began = time.monotonic()
    for round_ in range(args.repeats):
        if round_ and time.monotonic() - began > 60 * args.minutes:
            print(f"no round {round_ + 1}: {args.minutes} minutes have gone", flush=True)
            break
        for name in (n for n in args.workload if round_ < WORKLOADS[n].rounds):
            if not round_:
                results["matmul"][name] = launch("machine", "--workload", name, env=args.env)
            for side, setting in sides(args, name):
                add_run(args, results, name, side, setting, round=round_)


def busy(args: argparse.Namespace, results: Results) -> None:
    """One iteration quiet and one beside a busy process; on the first workload of both sides with either waiting."""
    for i, name in enumerate(n for n in args.workload if n != "real-lora"):
        waits = [("surefoot", ""), *([("surefoot", "spinning"), ("trl", ""), ("trl", "asleep")] if i == 0 else [])]
        for side, waiting in waits:
            if not (side == "trl" and args.no_peer):
                setting = "like" if side == "trl" else "ours"
                add_run(args, results, name, side, setting, part="busy", waiting=waiting)
                with neighbour():
                    add_run(args, results, name, side, setting, part="busy", waiting=waiting, neighbour=True)


def sampling(args: argparse.Namespace, results: Results) -> None:
    """Sampling alone, beside what transformers has."""
    for name in {"toy": ("toy",)}.get(args.workload[0], ("small", "ragged")):
        found = launch("sampling", "--workload", name, "--iterations", str(args.repeats), env=args.env)
        results["sampling"].append(found)
        print(f"sampling {name}: {found['seconds']}", flush=True)


def vocabulary(args: argparse.Namespace, results: Results) -> None:
    """Memory of an update as the vocabulary is doubled."""
    w = WORKLOADS["toy" if "toy" in args.workload else "real"]
    for vocab in (w.shape.vocab, 2 * w.shape.vocab):
        found = launch("scaling", "--workload", w.name, "--vocab", str(vocab), env=args.env)
        results["vocabulary"].append(found)
        print(f"vocabulary {vocab}: a step needs {found['step_bytes'] / 2**20:.0f} MiB", flush=True)


def rows(args: argparse.Namespace, results: Results) -> None:
    """Time and memory as the batch grows under a fixed budget of tokens a pass."""
    name = "toy" if "toy" in args.workload else "small"
    for count in ROWS:
        found = launch("scaling", "--workload", name, "--rows", str(count), env=args.env)
        results["rows"].append(found)
        print(f"{count} rows: {found['seconds']:.2f} s, {found['step_bytes'] / 2**20:.0f} MiB", flush=True)


PARTS: dict[str, Callable[[argparse.Namespace, Results], None]] = {
    "iteration": iteration,
    "busy": busy,
    "sampling": sampling,
    "vocabulary": vocabulary,
    "rows": rows,
}


# ---------------------------------------------------------------------------------------------- runs
def sides(args: argparse.Namespace, workload: str) -> list[tuple[str, str]]:
    """Who runs in one round, in order: the peer, then ours in each setting. A GPU has bfloat16 throughout."""
    only = {"bf16": WORKLOADS[workload].device == "cpu", "lean": workload == "real"}
    settings = [s for s in args.setting if only.get(s, True)]
    return ([] if args.no_peer else [("trl", "like")]) + [("surefoot", s) for s in settings]


def add_run(args: argparse.Namespace, results: Results, name: str, side: str, setting: str, **facts: Any) -> None:
    """Runs one process and keeps its record."""
    facts = {"part": "iteration", "neighbour": False, "waiting": "", **facts}
    module = "peer_trl" if side == "trl" else "ours"
    env = args.env | WAITING[facts["waiting"]]
    try:
        found = launch(module, "--workload", name, "--setting", setting, env=env, peer=side == "trl") | facts
    except RuntimeError as error:
        if "OutOfMemoryError" not in str(error):
            raise
        results["out_of_memory"].append({"workload": name, "side": side, "setting": setting})
        if args.save:
            keep(results)
        print(f"{name:9} {side:8} {setting:5} out of memory", flush=True)
        return
    check_same(found, results["runs"])
    results["runs"].append(found)
    if args.save:
        keep(results)
    words = [facts["waiting"], "beside a busy process" if facts["neighbour"] else ""]
    told = f"{found['seconds']:7.2f} s  {found['peak_bytes'] / 2**30:5.2f} GiB  {' '.join(words)}"
    print(f"{name:9} {side:8} {setting:5} {told}".rstrip(), flush=True)


def check_same(run: dict[str, Any], others: Sequence[dict[str, Any]]) -> None:
    """Refuses to compare runs of a workload that differ in weights, tokens or optimizer steps.

    Raises:
        RuntimeError: naming what differs.
    """
    for other in others:
        if other["workload"] == run["workload"]:
            different = [name for name in SAME if other[name] != run[name]]
            if different:
                who = " and ".join(f"{r['side']} {r['setting']}" for r in (run, other))
                what = ", ".join(f"{name} {run[name]} and {other[name]}" for name in different)
                raise RuntimeError(f"{who} do not do the same work on {run['workload']}: {what}")


def main(argv: Sequence[str] | None = None) -> None:
    args = options(argv)
    if not args.no_peer and not PEER.exists():
        raise SystemExit("the peer's environment is missing: `make bench` makes it, or run with --no-peer")
    now = datetime.datetime.now().astimezone()
    results: Results = {
        "commit": commit(),
        "date": now.isoformat(timespec="seconds"),
        "machine": machine.describe(),
        "threads": args.threads,
        "load_before": os.getloadavg()[0],
        "matmul": {},
        "runs": [],
        "sampling": [],
        "vocabulary": [],
        "rows": [],
        "out_of_memory": [],
    }
    if results["load_before"] > QUIET:
        print(f"this machine is busy (load {results['load_before']:.1f}): seconds measured now are worth little")
    for name in args.part:
        PARTS[name](args, results)
        if args.save:
            keep(results)
    print("\n" + document(results))


def keep(results: Results) -> None:
    """Writes what has been measured so far into the file of this machine and day."""
    found = results["machine"]
    slug = re.sub(r"[^a-z0-9]+", "-", f"{found['gpu'] or found['cpu']}".lower()).strip("-")
    path: Path = RESULTS / f"{results['date'][:10]}-{slug}-{found['cores']}-cores.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
