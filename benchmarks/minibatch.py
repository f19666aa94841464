"""A minibatch of the update, forward and backward: `python -m benchmarks.minibatch [--workload real] [--rounds 7]`.

What docs/decisions/0013 rests on. In one process and in turn: products by oneDNN and by MKL, with malloc as it comes
and with memory kept while a stage runs. Prints median seconds of each, and how many pages the system cleared for it.
"""

import argparse
import resource
import statistics
import time
from collections.abc import Callable
from unittest import mock

from benchmarks.ours import Ours  # surefoot before torch, so that its choice about threads holds

# isort: split
import torch

from benchmarks.workloads import WORKLOADS, load_library
from surefoot import arithmetic, phases
from surefoot.rows import join_rows


def make_pass(side: Ours) -> Callable[[], None]:
    """A pass over one minibatch of random answers, all of whose states meet the vocabulary, and its gradients."""
    w, models = side.workload, side.trainer.models
    draw = torch.Generator().manual_seed(0)
    queries, answers = (
        torch.randint(2, w.shape.vocab, (w.minibatch_rows, n), generator=draw) for n in (w.prompt[1], w.response[1])
    )
    rows = join_rows(
        queries, torch.ones_like(queries, dtype=torch.bool), answers, torch.full((len(answers),), answers.shape[1])
    )

    def run() -> None:
        with models.training():
            states = models.states(rows)[rows.predicted_at]
            models.logits(states).log_softmax(-1).gather(-1, answers.flatten()[:, None]).mean().backward()
        for parameter in models.policy_parameters():
            parameter.grad = None

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workload", choices=[n for n, w in WORKLOADS.items() if w.device == "cpu"], default="real")
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    load_library()
    run = make_pass(Ours(WORKLOADS[args.workload], "ours"))
    seconds: dict[tuple[str, str], list[float]] = {}
    pages: dict[tuple[str, str], list[int]] = {}
    for _ in range(args.rounds):
        for memory, prepare in (("as it comes", phases.return_memory), ("kept", phases.keep_memory)):
            prepare()
            for product, intel in (("oneDNN", False), ("MKL", True)):
                with mock.patch.object(arithmetic, "_made_by_intel", lambda intel=intel: intel):
                    run()  # what memory is held is as it was left by this kind of pass
                    faults, began = resource.getrusage(resource.RUSAGE_SELF).ru_minflt, time.perf_counter()
                    run()
                seconds.setdefault((product, memory), []).append(time.perf_counter() - began)
                pages.setdefault((product, memory), []).append(
                    resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults
                )
    print(f"{args.workload}: one minibatch, forward and backward, medians of {args.rounds}")
    for kind, times in seconds.items():
        product, memory = kind
        print(f"{product:<8} memory {memory:<12} {statistics.median(times):6.2f} s  "
              f"{statistics.median(pages[kind]):8.0f} pages")  # fmt: skip
    phases.return_memory()


if __name__ == "__main__":
    main()
