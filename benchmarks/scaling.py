"""How memory and time grow: `python -m benchmarks.scaling --workload real --vocab 98304`, or `--rows 64`.

Memory of a step is the highest resident set during `trainer.step` above what was held before it, less the gradients
of the trained weights (which belong to the model, as weights and optimizer do): what the passes themselves need. An
iteration has run before, so that the optimizer's state is there.
"""

import dataclasses
from typing import Any

from benchmarks.ours import Ours  # before torch: see there

# isort: split
from benchmarks import machine
from benchmarks.side import deliver, option_parser
from benchmarks.workloads import WORKLOADS, Workload

ROWS = (8, 16, 32, 64)
TOKEN_BUDGET = 1024


def wider(w: Workload, vocab: int) -> Workload:
    """The workload with a vocabulary of another size; one epoch shows the memory of an update."""
    return dataclasses.replace(w, shape=dataclasses.replace(w.shape, vocab=vocab), epochs=1)


def longer(w: Workload, rows: int) -> Workload:
    """The workload with another number of rows, all of them in one minibatch."""
    return dataclasses.replace(w, rows=rows, minibatches=1)


def step_memory(side: Ours) -> int:
    """Bytes that one step needs above weights, gradients and optimizer."""
    answers = side.trainer.generate(side.prompts)
    scores = side.reward(side.prompts, answers).scores
    gradients = sum(4 * p.numel() for group in side.trainer.optimizer.param_groups for p in group["params"])
    machine.forget_peak()
    before = machine.resident_bytes()
    side.trainer.step(side.prompts, answers, scores)
    return machine.peak_bytes() - before - gradients


def measure(w: Workload, **changes: Any) -> dict[str, Any]:
    """One iteration's seconds, the whole peak, and the memory of a step."""
    side = Ours(w, "ours", **changes)
    side.warm_up()
    iteration = side.iterate()
    peak = machine.peak_bytes()
    return {**iteration, "peak_bytes": peak, "step_bytes": step_memory(side)}


def main() -> None:
    parser = option_parser(["ours"])
    parser.add_argument("--vocab", type=int, help="entries of the vocabulary")
    parser.add_argument("--rows", type=int, help="rows of the batch, all in one minibatch")
    parser.add_argument("--budget", type=int, default=TOKEN_BUDGET, help="most tokens of a pass of those rows")
    args = parser.parse_args()
    w = WORKLOADS[args.workload]
    if args.rows is not None:
        found = measure(longer(w, args.rows), max_tokens_per_microbatch=args.budget) | {"rows": args.rows}
    else:
        vocab = args.vocab or w.shape.vocab
        found = measure(wider(w, vocab)) | {"vocab": vocab}
    deliver({"workload": w.name, **found}, args.out)


if __name__ == "__main__":
    main()
