"""How large a pass should be: `python -m benchmarks.budget [--workload small] [--rows 64] [--rounds 2]`.

What the bounds of max_tokens_per_microbatch="auto" rest on: the same minibatch in passes of 256 to 8192 tokens, each
budget in a process of its own and all in turn. Prints median seconds of the update and what a step takes above
weights, gradients and optimizer.
"""

import argparse
import statistics

from benchmarks import machine
from benchmarks.launch import environment, launch
from benchmarks.workloads import WORKLOADS

BUDGETS = (256, 512, 1024, 2048, 4096, 8192)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workload", choices=[n for n, w in WORKLOADS.items() if w.device == "cpu"], default="small")
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=2)
    args = parser.parse_args()
    w = WORKLOADS[args.workload]
    tokens = args.rows * (w.prompt[1] + w.response[1])
    budgets = [b for b in BUDGETS if b <= tokens]
    env = environment(machine.cores())
    found: dict[int, list[tuple[float, int]]] = {budget: [] for budget in budgets}
    for _ in range(args.rounds):
        for budget in budgets:
            how = ("--workload", w.name, "--rows", str(args.rows), "--budget", str(budget))
            record = launch("scaling", *how, env=env)
            found[budget].append((record["update"], record["step_bytes"]))
    print(f"{w.name}: {args.rows} rows in one minibatch, {tokens} tokens at most, medians of {args.rounds}")
    for budget, runs in found.items():
        seconds, memory = (statistics.median(column) for column in zip(*runs, strict=True))
        print(f"passes of {budget:>5} tokens  update {seconds:7.2f} s  a step needs {memory / 2**20:6.0f} MiB")


if __name__ == "__main__":
    main()
