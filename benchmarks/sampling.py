"""Sampling alone: ours, `transformers.generate`, and transformers' continuous batching, in turn in one process.

The same model answers the same prompts; how many tokens it answers with is a property of its weights, so that all
three draw the same number. Continuous batching is given a page for each row and passes of at most 512 tokens: left to
itself it sizes its attention mask by the memory there is (8192 tokens by the whole cache), and not even the toy model
ends within minutes on a CPU. Its manager stays up between rounds.
"""

import logging
import time
from collections.abc import Callable
from typing import Any

from benchmarks.ours import Ours  # before torch: see there

# isort: split
import torch
from transformers import ContinuousBatchingConfig, GenerationConfig

from benchmarks.side import deliver, option_parser
from benchmarks.workloads import EOS, PAD, WORKLOADS, Workload

ENGINES = ("surefoot", "generate", "continuous")


def engines(w: Workload) -> dict[str, Callable[[], int]]:
    """Each engine as a function that answers all prompts and returns how many tokens it drew."""
    side = Ours(w, "ours")
    model: Any = side.trainer.policy
    rows = [list(p.token_ids) for p in side.prompts]
    how = GenerationConfig(
        max_new_tokens=w.response[1],
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        eos_token_id=EOS,
        pad_token_id=PAD,
    )
    width = max(map(len, rows))
    ids = torch.tensor([[PAD] * (width - len(row)) + row for row in rows])
    mask = (ids != PAD).long()

    def ours() -> int:
        return sum(len(a.token_ids) for a in side.trainer.generate(side.prompts))

    @torch.no_grad()
    def generate() -> int:
        found = model.generate(input_ids=ids, attention_mask=mask, generation_config=how)
        return int((found[:, width:] != PAD).sum())

    def continuous() -> int:
        pages = ContinuousBatchingConfig(max_batch_tokens=512, num_blocks=w.rows, use_cuda_graph=False)
        found = model.generate_batch(rows, how, pages, persistent_manager=True)
        return sum(len(output.generated_tokens) for output in found.values())

    return {"surefoot": ours, "generate": generate, "continuous": continuous}


def measure(w: Workload, repeats: int) -> dict[str, Any]:
    """Seconds of each engine in each round, and the tokens it drew in the last."""
    runs = engines(w)
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    tokens: dict[str, int] = {}
    for round_ in range(repeats + 1):
        for name, run in runs.items():
            began = time.perf_counter()
            tokens[name] = run()
            if round_ > 0:  # the first warms up
                seconds[name].append(time.perf_counter() - began)
    return {"workload": w.name, "seconds": seconds, "tokens": tokens}


def main() -> None:
    logging.disable(logging.WARNING)
    args = option_parser(["ours"]).parse_args()
    deliver(measure(WORKLOADS[args.workload], args.iterations or 3), args.out)


if __name__ == "__main__":
    main()
