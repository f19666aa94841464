"""One of two processes, started by test_faults_on_one_rank.py: something is not finite on the second one alone.

Arguments: on_fault, what is broken, folder, and "shares" where the weights lie in such. Writes what became of the
weights on each process.
"""

import json
import math
import os
import sys
from pathlib import Path

import torch
from tiny import tiny_llama, tiny_tokenizer

from surefoot import PPOConfig, PPOTrainer
from surefoot.faults import NonFiniteError
from surefoot.sharding import whole

on_fault, broken, folder, shard = sys.argv[1], sys.argv[2], Path(sys.argv[3]), len(sys.argv) > 4
torch.set_num_threads(1)
is_second = os.environ["RANK"] == "1"
config = PPOConfig(batch_size=8, mini_batch_size=8, ppo_epochs=1, max_new_tokens=4, learning_rate=1e-3, seed=2,
                   on_fault=on_fault, output_dir=str(folder), shard=shard)  # fmt: skip
trainer = PPOTrainer(config, tiny_llama(), None, tiny_tokenizer())


def weights():
    return [whole(p.detach()).clone() for p in trainer.models.trainable().values()]


def step(scores):
    before = weights()
    try:
        stats = trainer.step(queries, answers, scores)
        said = {"counts": [stats["ppo/optimizer_steps"], stats["ppo/faults/skipped_updates"],
                           stats["ppo/faults/dropped_rows"]]}  # fmt: skip
    except NonFiniteError as error:
        said = {"error": str(error)}
    after = weights()
    return said | {
        "same": all(torch.equal(a, b) for a, b in zip(before, after, strict=True)),
        "finite": all(bool(w.isfinite().all()) for w in after),
        "sum": sum(float(w.double().sum()) for w in after),
        "kl_coef": trainer.kl_controller.value,
    }


queries = trainer.runtime.share([f"prompt {i}" for i in range(8)])
answers = trainer.generate(queries)
good = [float(i) for i in range(len(queries))]
bad = [1e30, *good[1:]] if broken == "loss" and is_second else good
if broken == "gradient" and is_second:
    seen = iter(range(100))
    next(p for p in trainer.policy.parameters() if p.requires_grad).register_hook(
        lambda gradient: gradient * math.inf if next(seen) == 1 else gradient
    )
steps = [step(scores) for scores in (good, bad, good)]
(folder / f"rank{trainer.runtime.rank}.json").write_text(json.dumps(steps))
