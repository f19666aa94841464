"""Where a step's time goes: `python -m benchmarks.shares [--workload real] [--setting bf16]`.

Sampling, then a scoring pass and one epoch of update on fresh answers, each after one that does not count, under
torch's profiler. Prints the share of each kind of operation in the time of the thread that calls them.
"""

import argparse
from collections.abc import Callable
from typing import Any

from benchmarks.ours import Ours  # before torch: see there

# isort: split
from torch.profiler import ProfilerActivity, profile

from benchmarks.ours import SETTINGS
from benchmarks.workloads import WORKLOADS, load_library

KINDS = {
    "products": ("aten::mm", "aten::addmm", "aten::addmm_", "aten::bmm", "mkldnn::_linear_pointwise"),
    "conversions and copies": ("aten::copy_",),
    "attention": ("aten::_scaled_dot_product_flash_attention_for_cpu",
                  "aten::_scaled_dot_product_flash_attention_for_cpu_backward"),
    "softmax and drawing": ("aten::_log_softmax", "aten::_log_softmax_backward_data", "aten::exp", "aten::_softmax",
                            "aten::cumsum", "aten::searchsorted"),
    "AdamW and gradient norms": ("aten::_fused_adamw_", "aten::linalg_vector_norm"),
}  # fmt: skip


def shares(run: Callable[[], Any]) -> tuple[dict[str, float], float]:
    """The share of each kind in what the run takes, and its seconds."""
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        run()
    times = {event.key: event.self_cpu_time_total for event in seen.key_averages()}
    total = sum(times.values())
    found = {kind: sum(times.get(name, 0.0) for name in names) / total for kind, names in KINDS.items()}
    return found | {"all else, small operations most of it": 1 - sum(found.values())}, total / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workload", choices=[n for n, w in WORKLOADS.items() if w.device == "cpu"], default="real")
    parser.add_argument("--setting", choices=list(SETTINGS), default="bf16")
    args = parser.parse_args()
    load_library()
    side = Ours(WORKLOADS[args.workload], args.setting)
    answers = side.trainer.generate(side.prompts)
    scores = side.reward(side.prompts, answers).scores
    side.trainer.config = side.config.replace(ppo_epochs=1)
    side.trainer.step(side.prompts, answers, scores)
    for name, run in (
        ("sampling", lambda: side.trainer.generate(side.prompts)),
        ("scoring and one epoch of update", lambda: side.trainer.step(side.prompts, answers, scores)),
    ):
        found, seconds = shares(run)
        print(f"{args.workload}, {args.setting}: {name}, {seconds:.2f} s profiled")
        for kind, share in found.items():
            print(f"{share:6.0%}  {kind}")


if __name__ == "__main__":
    main()
