"""Small runs that are stopped and gone on with, and what tells whether anything is other than without the stop."""

import json
import random
from pathlib import Path

import numpy as np
import torch
from peft import LoraConfig
from safetensors.torch import load_file
from tiny import tiny_llama, tiny_tokenizer

from surefoot import PPOConfig, PPOTrainer
from surefoot.callbacks import Callback
from surefoot.kept import newest_valid

TEXTS = [f"prompt number {i}" for i in range(12)]  # two are held out: an epoch is two and a half steps of four

KINDS = {
    "all weights, scores scaled, KL steered": {"use_score_scaling": True, "use_score_norm": True, "horizon": 20.0},
    "LoRA, critic an adapter": {"lora_r": 2, "critic": "adapter"},
    "critic a model, rates and target on schedules": {
        "critic": "model", "lr_schedule": "cosine", "warmup_steps": 2, "final_target_kl": 0.01,
    },
    "a linear KL price, two answers a prompt": {
        "kl_controller": "linear", "final_kl_coef": 0.01, "num_generations": 2, "critic_warmup_steps": 3,
    },
    "an optimizer and a scheduler of one's own": {"own": True, "patience": 9, "target_reward": 1e9},
    "passes as large as fit": {"max_tokens_per_microbatch": "auto"},
    "a KL price raised where gold falls, scores beside the reference's": {
        "gold": lambda completions, trainer_state, **_: [-float(trainer_state.global_step)] * len(completions),
        "watch": "raise_kl", "eval_prompts": 8, "reward_shaping": "sigmoid", "horizon": 20.0,
    },
    "an end where gold falls, with the best model": {
        "gold": lambda completions, trainer_state, **_: [-abs(trainer_state.global_step - 4.0)] * len(completions),
        "watch": "stop_and_restore", "eval_prompts": 8, "keep_checkpoints": 2, "reward_shaping": "center", "lora_r": 2,
    },
}  # fmt: skip
SCALED = {"use_score_scaling": True, "horizon": 20.0, "save_every": 2}


def noisy(text):
    """A reward that draws from every generator a reward may draw from."""
    noise = random.random() + np.random.rand() + float(torch.rand(()))  # noqa: NPY002
    return sum(text.count(v) for v in "aeiou") + 0.1 * len(text) + noise


def seed_everything(seed):
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    torch.manual_seed(seed)


def make(
    folder, *, own=False, q_only=False, reward=noisy, gold=None, callbacks=(), model=None, dataset=TEXTS, **changes
):
    options = {"learning_rate": 1e-3, "batch_size": 4, "mini_batch_size": 2, "ppo_epochs": 2, "max_new_tokens": 5,
               "steps": 6, "seed": 3, "eval_prompts": 2, "eval_every": 2, "save_every": 1, "keep_checkpoints": 9,
               "output_dir": None if folder is None else str(folder)}  # fmt: skip
    model = tiny_llama(num_hidden_layers=1) if model is None else model
    parts = {"peft_config": LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM")} if q_only else {}
    if own:
        parts["optimizer"] = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
        parts["lr_scheduler"] = torch.optim.lr_scheduler.ExponentialLR(parts["optimizer"], 0.8)
    return PPOTrainer(PPOConfig(**(options | changes)), model, None, tiny_tokenizer(), reward=reward, gold=gold,
                      dataset=dataset, callbacks=callbacks, **parts)  # fmt: skip


class KilledError(Exception):
    """Ends a run in the middle, as a kill does: nothing is saved after it."""


class Kill(Callback):
    """Ends a run after a step was recorded, before it is saved."""

    def __init__(self, after):
        self.after = after

    def on_step(self, trainer, stats, samples):
        if trainer.steps_done == self.after:
            raise KilledError


class Stop(Callback):
    """Asks a run to stop after a step."""

    def __init__(self, after):
        self.after = after

    def on_step(self, trainer, stats, samples):
        return trainer.steps_done == self.after


def newest(folder):
    return newest_valid(Path(folder) / "checkpoints", lambda words: None)


def without_times(record):
    return {k: v for k, v in record.items() if not k.startswith(("time/", "memory/"))}


def checkpoint(path):
    """Everything in a checkpoint, bit for bit; where it was kept is no part of it."""
    state = json.loads((Path(path) / "state.json").read_text())
    state["config"].pop("output_dir")
    tensors = {
        f"{file.name} {name}": (t.dtype, tuple(t.shape), t.numpy().tobytes())
        for file in sorted(Path(path).glob("tensors*.safetensors"))
        for name, t in load_file(file).items()
    }
    return {"tensors": tensors, "state": state}


def left_by(folder):
    """What a run leaves, times left out: its last checkpoint, every line and every sample, and its models."""
    folder = Path(folder)
    lines = {
        name: [without_times(json.loads(line)) for line in (folder / name).read_text().splitlines()]
        for name in ("metrics.jsonl", "evaluations.jsonl")
    }
    samples = {path.name: path.read_bytes() for path in sorted((folder / "samples").iterdir())}
    models = {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.glob("*/*.safetensors"))}
    reason = json.loads((folder / "result.json").read_text())["reason"]
    return {**checkpoint(newest(folder)), **lines, "samples": samples, "models": models, "reason": reason}


def differences(a, b, path=""):
    """Where two nested values differ, by their paths."""
    if isinstance(a, dict) and isinstance(b, dict):
        return [d for k in sorted(a.keys() | b.keys()) for d in differences(a.get(k), b.get(k), f"{path}/{k}")]
    if isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        return [d for i, pair in enumerate(zip(a, b, strict=True)) for d in differences(*pair, f"{path}/{i}")]
    return [] if a == b else [path]
