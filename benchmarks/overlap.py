"""Steps with and without `overlap`: `python -m benchmarks.overlap [--workload real] [--vllm ...]`, after `make vllm`.

One policy, one reward model and one vLLM, with the rows, lengths and epochs of one of benchmarks.workloads. Rounds of
steps that wait for their answers and of steps whose answers were asked for a step before take turns, so that what
else the machine does meets both alike. A step is sampling, the handing-over of weights, scoring, rewards and update.
Medians, ranges and their ratio; the first round of each warms up and is left out. On a CPU the seconds of all cores
tell how much there was to share.
"""

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

from benchmarks.ours import Ours  # surefoot before torch, so that its choice about threads holds

# isort: split
from benchmarks.vllm_sampling import Watch, shown
from benchmarks.workloads import WORKLOADS

WAITS, AHEAD = "waits", "overlap"


def step(side: Any, *, ahead: bool) -> int:
    """One step, which leaves the next one's answers asked for where it is ahead; how many tokens it learned from."""
    answers = side.trainer.generate(side.prompts)
    if ahead:
        side.trainer.generate_ahead(side.prompts)
    scores = side.reward(side.prompts, answers).scores
    side.trainer.step(side.prompts, answers, scores)
    return sum(len(a.token_ids) for a in answers)


def measure(side: Any, rounds: int, steps: int) -> dict[str, Any]:
    """Seconds of every step, round by round in turn, and what was learned from."""
    watch, tokens = Watch(side.trainer), {}
    for round_ in range(rounds + 1):
        for name, ahead in ((WAITS, False), (AHEAD, True)):
            if ahead:
                step(side, ahead=True)  # the answers of the first step are asked for in one that is not timed
            for _ in range(steps):
                tokens[name] = watch.time(name, lambda ahead=ahead: step(side, ahead=ahead), counts=round_ > 0)
            if ahead:
                step(side, ahead=False)  # and takes those that are left over
    return {"rows": len(side.prompts), "tokens": tokens, **watch.told()}


def ratio(found: dict[str, Any]) -> float:
    """How many times faster a step is with overlap, by medians."""
    return statistics.median(found["seconds"][WAITS]) / statistics.median(found["seconds"][AHEAD])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vllm", default=".vllm/bin/python", help="the Python that has vLLM")
    parser.add_argument("--workload", choices=list(WORKLOADS), default="real")
    parser.add_argument("--setting", choices=["ours", "bf16"], default="ours")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=2, help="timed steps of a round")
    parser.add_argument("--out", type=Path, default=None, help="file of all the numbers")
    args = parser.parse_args()
    vllm = {"engine": "vllm", "vllm_python": args.vllm, "overlap": True, "importance_cap": 2.0}
    found = measure(Ours(WORKLOADS[args.workload], args.setting, **vllm), args.rounds, args.steps)
    print(f"{shown(found)}\n\nA step with overlap is {ratio(found):.2f} times as fast.")
    if args.out is not None:
        args.out.write_text(json.dumps({"workload": args.workload} | found, indent=1) + "\n")


if __name__ == "__main__":
    main()
