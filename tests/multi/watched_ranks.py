"""Run by torchrun on two processes and by plain python on one: a run whose gold falls, and whose scores are shaped.

`watched_ranks.py FOLDER WATCH`
"""

import sys

import torch
from tiny import tiny_llama, tiny_tokenizer

from surefoot import PPOConfig, PPOTrainer


def gold(completions, trainer_state, **_):
    return [-abs(trainer_state.global_step - 1.0) + 1e-3 * len(c) for c in completions]


def reward(completions, **_):
    return [float(sum(c.count(v) for v in "aeiou")) for c in completions]


folder, watch = sys.argv[1:]
torch.set_num_threads(1)
config = PPOConfig(learning_rate=1e-3, batch_size=4, mini_batch_size=2, ppo_epochs=1, max_new_tokens=5, steps=4,
                   seed=3, eval_prompts=8, eval_every=1, output_dir=folder, watch=watch, kl_controller="fixed",
                   reward_shaping="sigmoid")  # fmt: skip
texts = [f"prompt number {i}" for i in range(16)]
PPOTrainer(
    config, tiny_llama(num_hidden_layers=1), None, tiny_tokenizer(), reward=reward, gold=gold, dataset=texts
).train()
