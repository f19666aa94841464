"""One process of ours: `python -m benchmarks.ours --workload small --setting ours`. Drives the public step API.

Settings: "like" has a value model and a reward model of the policy's size, as TRL demands; "ours" has a critic head on
the policy's trunk and the same reward model; "bf16" is "ours" with bfloat16 arithmetic, and the frozen reward model
held in bfloat16; "lean" is "ours" with the frozen models out of memory while the update runs. Everything else is the
default of the product.
"""

import warnings
from typing import Any

from surefoot import PPOConfig, PPOTrainer, Prompt  # before torch, so that its choice about threads holds

# isort: split
import torch

from benchmarks import machine
from benchmarks.side import Clock, deliver, option_parser, record
from benchmarks.workloads import (
    WORKLOADS,
    Workload,
    checksum,
    load_library,
    lora_config,
    make_classifier,
    make_policy,
    make_prompts,
    make_tokenizer,
)
from surefoot.rewards import ModelReward

SETTINGS: dict[str, dict[str, Any]] = {
    "like": {"critic": "model"},
    "ours": {"critic": "head"},
    "bf16": {"critic": "head", "precision": "bfloat16"},
    "lean": {"critic": "head", "offload_frozen": True},
}


def make_config(w: Workload, setting: str, **changes: Any) -> PPOConfig:
    """The options of a workload in a setting."""
    options = {
        "batch_size": w.rows,
        "mini_batch_size": w.minibatch_rows,
        "ppo_epochs": w.epochs,
        "max_new_tokens": w.response[1],
        "learning_rate": 1e-6,
        "precision": "bfloat16" if w.device == "cuda" else "float32",
        **SETTINGS[setting],
    }
    return PPOConfig(**(options | changes))


class Ours:
    """A trainer, a reward model and prompts: `iterate` is one PPO iteration."""

    def __init__(self, w: Workload, setting: str, **changes: Any) -> None:
        self.workload = w
        self.config = make_config(w, setting, **changes)
        tokenizer = make_tokenizer(w)
        policy = make_policy(w).to(w.device)
        self.weights = checksum(policy)
        value_model = make_classifier(w, seed=2).to(w.device) if self.config.critic == "model" else None
        half = self.config.precision == "bfloat16"
        scorer = make_classifier(w, seed=3).to(w.device, torch.bfloat16 if half else torch.float32)
        self.reward = ModelReward(scorer.requires_grad_(False), tokenizer, name="reward")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # advice on options that are the benchmark's
            self.trainer = PPOTrainer(
                self.config,
                policy,
                tokenizer=tokenizer,
                reward=self.reward,
                value_model=value_model,
                peft_config=lora_config(w),
            )
        ids = make_prompts(w).ids
        self.prompts = [Prompt(tokenizer.decode(row), tuple(row), index=i) for i, row in enumerate(ids)]

    def iterate(self, max_new_tokens: int | None = None) -> dict[str, Any]:
        """Answers, scores and a step, with the seconds of each stage."""
        clock = Clock()
        answers = self.trainer.generate(self.prompts, max_new_tokens=max_new_tokens or self.workload.response[1])
        clock.mark("sampling")
        with self.trainer.asking_rewards():
            scores = self.reward(self.prompts, answers).scores
        clock.mark("reward")
        stats = self.trainer.step(self.prompts, answers, scores)
        clock.mark("other")
        clock.move(stats["time/ppo/forward_pass"], "other", "scoring")
        clock.move(stats["time/ppo/optimize_step"], "other", "update")
        return {
            **clock.result(),
            "optimizer_steps": stats["ppo/optimizer_steps"],
            "prompt_tokens": sum(len(p.token_ids) for p in self.prompts),
            "response_tokens": sum(len(a.token_ids) for a in answers),
        }

    def warm_up(self) -> None:
        """A short iteration: four tokens an answer, one epoch. It allocates what later ones reuse."""
        self.trainer.config = self.config.replace(ppo_epochs=1)
        self.iterate(max_new_tokens=4)
        self.trainer.config = self.config


def main() -> None:
    args = option_parser(list(SETTINGS)).parse_args()
    w = WORKLOADS[args.workload]
    load_library()
    base = machine.resident_bytes() if w.device == "cpu" else 0
    side = Ours(w, args.setting)
    side.warm_up()
    iterations = [side.iterate() for _ in range(args.iterations or w.iterations)]
    deliver(record("surefoot", args, iterations, base_bytes=base, weights=side.weights), args.out)


if __name__ == "__main__":
    main()
