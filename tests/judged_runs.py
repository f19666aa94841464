"""A tiny PPO run for comparisons and evaluations, and scorers for it. `from judged_runs import RUN`."""

import json
from pathlib import Path

import tiny

JUDGES = """\
def vowels(completions, **columns):
    return [sum(c in "aeiou" for c in text) for text in completions]

def letters(completions, **columns):
    return [float(sum(c.isalpha() for c in text)) for text in completions]

def nothing(completions, **columns):
    return [None for text in completions]

def constant(completions, **columns):
    return [1.0 for text in completions]
"""
RUN = """\
model_name: sft
dataset: prompts.jsonl
eval_dataset: held-out.jsonl
reward: judges.py:vowels
batch_size: 8
mini_batch_size: 8
max_new_tokens: 8
eval_prompts: 6
eval_every: 1
ppo_epochs: 2
steps: 2
learning_rate: 3e-3
max_grad_norm: none
save_every: 0
"""


def make_world():
    """Into the current folder: an SFT model, prompts to learn from, others to be judged on, and scorers."""
    tiny.tiny_llama().save_pretrained("sft")
    tiny.tiny_tokenizer().save_pretrained("sft")
    prompts_file("prompts.jsonl", [f"Question {i}?" for i in range(20)])
    prompts_file("held-out.jsonl", [f"Other {i}!" for i in range(6)])
    Path("judges.py").write_text(JUDGES)


def prompts_file(name, prompts):
    Path(name).write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in prompts))
