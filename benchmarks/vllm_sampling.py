"""vLLM beside our engine and `generate`: `python -m benchmarks.vllm_sampling [--setting bf16]`, after `make vllm`.

One policy of random weights in the shape of SmolLM2-135M answers 32 prompts with 128 tokens each, engine after engine
in every round; no answer ends early. Then the weights are moved, as a step moves them, and handed to vLLM: writing the
folder, vLLM taking it, and the canary are timed apart. Medians and ranges; the first round warms up and is left out.
Beside seconds by the clock there are those of all cores, of this process and of vLLM's: they tell the engines apart on
a machine that others use too.
"""

import argparse
import dataclasses
import json
import os
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


class Watch:
    """Seconds by the clock and of all cores, booked under names."""

    def __init__(self, trainer: PPOTrainer) -> None:
        self._trainer: Any = trainer
        self.seconds: dict[str, list[float]] = {}
        self.cpu_seconds: dict[str, list[float]] = {}

    def time(self, name: str, run: Callable[[], Any], *, counts: bool) -> Any:
        """Runs it; books it where it counts."""
        began, spent = time.perf_counter(), self._spent()
        found = run()
        if counts:
            self.seconds.setdefault(name, []).append(time.perf_counter() - began)
            self.cpu_seconds.setdefault(name, []).append(self._spent() - spent)
        return found

    def told(self) -> dict[str, Any]:
        """What was booked, and where."""
        return {
            "precision": self._trainer.config.precision,
            "threads": torch.get_num_threads(),
            "machine": machine.describe(),
            "load": os.getloadavg()[0],
            "seconds": self.seconds,
            "cpu_seconds": self.cpu_seconds,
        }

    def _spent(self) -> float:
        """Seconds of the cores so far, of this process and of vLLM's."""
        child = self._trainer.engine._child
        fields = [] if child is None else Path(f"/proc/{child.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return time.process_time() + sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")


def sync(trainer: PPOTrainer, watch: Watch, *, counts: bool) -> None:
    """What follows a step: to see that weights have changed and write them, to take them, to look."""
    engine: Any = trainer.engine
    assert isinstance(engine, VLLMEngine)
    with torch.no_grad():
        for parameter in trainer.policy.parameters():
            parameter.add_(1e-6 * torch.randn_like(parameter))
    watch.time("write", engine._write, counts=counts)
    watch.time("take", lambda: engine._ask("load", folder=str(engine._folder)), counts=counts)
    watch.time("canary", engine._look, counts=counts)
    engine._held = engine.version


def measure(w: Workload, python: str, precision: str, rounds: int) -> dict[str, Any]:
    """Seconds of each engine and of each part of a handing-over in each round, and what they drew."""
    trainer = make_trainer(w, python, precision)
    runs, watch, tokens = engines(trainer, w), Watch(trainer), {}
    for round_ in range(rounds + 1):
        for name, run in runs.items():
            tokens[name] = watch.time(name, run, counts=round_ > 0)
        sync(trainer, watch, counts=round_ > 0)
    return {"workload": w.name, "rows": w.rows, "tokens": tokens, **watch.told()}


def shown(found: dict[str, Any]) -> str:
    """A table in Markdown."""
    lines = []
    for name, seconds in found["seconds"].items():
        median, spent = statistics.median(seconds), statistics.median(found["cpu_seconds"][name])
        rate = f"{found['tokens'][name] / median:.0f}" if name in found["tokens"] else ""
        lines.append([name, f"{median:.2f}", f"{min(seconds):.2f} to {max(seconds):.2f}", f"{spent:.2f}", rate])
    return table(("what", "seconds", "range", "seconds of all cores", "tokens a second"), lines)


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
