"""Run by torchrun on two processes and by plain python on one; writes weights and statistics to be compared."""

import sys

import torch
from safetensors.torch import save_file
from tiny import tiny_llama, tiny_tokenizer

from surefoot import PPOConfig, PPOTrainer

out, rows = sys.argv[1], int(sys.argv[2])
torch.set_num_threads(1)
config = PPOConfig(
    learning_rate=1e-3,
    batch_size=8,
    mini_batch_size=4,
    ppo_epochs=2,
    max_new_tokens=9,
    seed=3,
    whiten_rewards=True,
    use_score_scaling=True,
    kl_controller="adaptive",
)
trainer = PPOTrainer(config, tiny_llama(), None, tiny_tokenizer(pad="eos"))
queries = trainer.runtime.share([f"{'long ' * (i % 3)}prompt {i}" for i in range(rows)])
for _ in range(2):
    answers = trainer.generate(queries)
    stats = trainer.step(queries, answers, [float(len(str(a))) for a in answers])
if trainer.runtime.is_main:
    numbers = {
        f"stats.{k}": torch.tensor(float(v))
        for k, v in stats.scalars().items()
        if not k.startswith(("time/", "memory/"))
    }
    save_file({k: v.detach().clone() for k, v in trainer.models.trainable().items()} | numbers, out)
