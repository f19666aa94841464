"""vLLM beside our engine and `generate`: `python -m benchmarks.vllm_sampling [--setting bf16]`, after `make vllm`.

One policy of random weights in the shape of SmolLM2-135M answers 32 prompts with 128 tokens each, engine after engine
in every round; no answer ends early. Then the weights are moved, as a step moves them, and handed to vLLM: writing the
folder, vLLM taking it, and the canary are timed apart. Medians and ranges; the first round warms up and is left out.
"""

import argparse
import dataclasses
import json
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from surefoot import PPOConfig, PPOTrainer  # before torch: see benchmarks.ours

# isort: split
import torch
from transformers import GenerationConfig

from benchmarks import machine
from benchmarks.report import table
from benchmarks.workloads import EOS, PAD, WORKLOADS, Workload, make_policy, make_prompts, make_tokenizer
from surefoot.engine.vllm import VLLMEngine
from surefoot.types import Sampling

PRECISIONS = {"ours": "float32", "bf16": "bfloat16"}


def workload(name: str, rows: int, tokens: int) -> Workload:
    """The shape of a workload with prompts and answers of this one."""
    return dataclasses.replace(WORKLOADS[name], rows=rows, prompt=(16, 16), response=(tokens, tokens), minibatches=1)


def make_trainer(w: Workload, python: str, precision: str) -> PPOTrainer:
    """A trainer that draws with vLLM; its own engine is made beside it."""
    config = PPOConfig(
        batch_size=w.rows, mini_batch_size=w.rows, max_new_tokens=w.response[1], precision=precision, engine="vllm",
        vllm_python=python, importance_cap=2.0,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return PPOTrainer(config, make_policy(w), tokenizer=make_tokenizer(w))


def engines(trainer: PPOTrainer, w: Workload) -> dict[str, Callable[[], int]]:
    """Each engine as a function that answers all prompts and returns how many tokens it drew."""
    from surefoot.engine.transformers import TransformersEngine

    models, policy = trainer.models, trainer.policy
    rows, how = make_prompts(w).ids, Sampling(w.response[1])
    ids = torch.tensor(rows)
    plain = TransformersEngine(policy, trainer.tokenizer, trainer.end_ids, autocast=models.sampling)
    theirs = GenerationConfig(
        max_new_tokens=w.response[1], do_sample=True, top_k=0, eos_token_id=EOS, pad_token_id=PAD
    )

    def drawn(engine: Any) -> int:
        return sum(len(a.token_ids) for a in engine.generate(rows, range(len(rows)), how))

    @torch.no_grad()
    def generate() -> int:
        with models.arithmetic():
            found = policy.generate(ids, attention_mask=torch.ones_like(ids), generation_config=theirs)
        return int(found[:, ids.shape[1] :].numel())

    return {"surefoot": lambda: drawn(plain), "generate": generate, "vllm": lambda: drawn(trainer.engine)}


def sync(trainer: PPOTrainer) -> dict[str, float]:
    """Seconds of what follows a step: to see that weights have changed and write them, to take them, to look."""
    engine: Any = trainer.engine
    assert isinstance(engine, VLLMEngine)
    with torch.no_grad():
        for parameter in trainer.policy.parameters():
            parameter.add_(1e-6 * torch.randn_like(parameter))
    marks = [time.perf_counter()]
    engine._write()
    marks.append(time.perf_counter())
    engine._ask("load", folder=str(engine._folder))
    marks.append(time.perf_counter())
    engine._look()
    engine._held = engine.version
    marks.append(time.perf_counter())
    return {name: marks[i + 1] - marks[i] for i, name in enumerate(("write", "take", "canary"))}


def measure(w: Workload, python: str, precision: str, rounds: int) -> dict[str, Any]:
    """Seconds of each engine and of each part of a handing-over in each round, and what they drew."""
    trainer = make_trainer(w, python, precision)
    runs = engines(trainer, w)
    seconds: dict[str, list[float]] = {name: [] for name in (*runs, "write", "take", "canary")}
    tokens = {}
    for round_ in range(rounds + 1):
        found = {}
        for name, run in runs.items():
            began = time.perf_counter()
            tokens[name] = run()
            found[name] = time.perf_counter() - began
        found |= sync(trainer)
        for name, value in found.items() if round_ else ():
            seconds[name].append(value)
    return {
        "workload": w.name,
        "rows": w.rows,
        "tokens": tokens,
        "precision": precision,
        "threads": torch.get_num_threads(),
        "machine": machine.describe(),
        "seconds": seconds,
    }


def shown(found: dict[str, Any]) -> str:
    """A table in Markdown."""
    lines = []
    for name, seconds in found["seconds"].items():
        median = statistics.median(seconds)
        rate = f"{found['tokens'][name] / median:.0f}" if name in found["tokens"] else ""
        lines.append([name, f"{median:.2f}", f"{min(seconds):.2f} to {max(seconds):.2f}", rate])
    return table(("what", "seconds", "range", "tokens a second"), lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vllm", default=".vllm/bin/python", help="the Python that has vLLM")
    parser.add_argument("--workload", choices=list(WORKLOADS), default="real", help="the shape of the model")
    parser.add_argument("--setting", choices=list(PRECISIONS), default="ours")
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=None, help="file of all the numbers")
    args = parser.parse_args()
    w = workload(args.workload, args.rows, args.tokens)
    found = measure(w, args.vllm, PRECISIONS[args.setting], args.rounds)
    print(shown(found))
    if args.out is not None:
        args.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
