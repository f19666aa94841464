"""RLOO of TRL, from where PPO began in a run of `surefoot rlhf`: the same SFT model, prompts and reward model.

    python examples/rloo_beside_ppo.py runs/rlhf-demo --prompts runs/rlhf-data/prompts.jsonl
    surefoot compare rloo=runs/rlhf-demo/rloo ppo=runs/rlhf-demo/ppo dpo=runs/rlhf-demo/dpo \\
        --dataset runs/rlhf-data/held_out.jsonl --gold surefoot.demo.scorers:imdb_log_odds

RLOO (Ahmadian et al., 2024) has no critic: an answer's baseline is the mean score of the other answers to its prompt.
The run must have trained all weights, and its prompts must be plain text.
"""

import argparse
import os
from dataclasses import dataclass, field
from pathlib import Path

os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # TRL's trainers send their names home where they may

# isort: split
import surefoot.lora  # noqa: F401 - before TRL imports peft, which may look for a kernel on a hub

# isort: split
import torch
from datasets import load_dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, HfArgumentParser
from trl import RLOOConfig, RLOOTrainer

from surefoot.rewards import ModelReward
from surefoot.types import Prompt


@dataclass
class Args:
    prompts: str = field(metadata={"help": "the file of prompts that PPO had"})
    steps: int = 16  # a step: sample, score, and gradient steps through its answers
    batch_size: int = 32  # answers of a step
    mini_batch_size: int = 16  # answers of a gradient step
    num_generations: int = 4  # answers to a prompt
    iterations: int = 2  # how often a step goes through its answers
    learning_rate: float = 3e-5
    kl_coef: float = 0.05
    max_new_tokens: int = 32
    seed: int = 0


def train(run: Path, args: Args) -> Path:
    """Trains in RUN/rloo; gives the folder with the model."""
    reward = ModelReward(run / "reward" / "model")

    def score(prompts: list[str], completions: list[str], **_: object) -> list[float]:
        asked = [Prompt(prompt, ()) for prompt in prompts]
        return [float(s) for s in reward(asked, completions).scores]

    out = run / "rloo"
    trainer = RLOOTrainer(
        model=AutoModelForCausalLM.from_pretrained(run / "sft" / "model", dtype=torch.float32),
        processing_class=AutoTokenizer.from_pretrained(run / "sft" / "model"),
        reward_funcs=score,
        train_dataset=load_dataset("json", data_files=args.prompts, split="train"),
        args=RLOOConfig(
            output_dir=str(out),
            max_steps=args.steps * args.iterations * (args.batch_size // args.mini_batch_size),
            per_device_train_batch_size=args.mini_batch_size,
            generation_batch_size=args.batch_size,
            num_generations=args.num_generations,
            num_iterations=args.iterations,
            max_completion_length=args.max_new_tokens,
            learning_rate=args.learning_rate,
            lr_scheduler_type="constant",
            beta=args.kl_coef,
            seed=args.seed,
            use_cpu=not torch.cuda.is_available(),
            bf16=torch.cuda.is_available() and torch.cuda.is_bf16_supported(),
            logging_steps=1,
            save_strategy="no",
            report_to="none",
        ),
    )
    trainer.train()
    trainer.save_model(str(out))
    return out


def main() -> None:
    parser = HfArgumentParser(Args, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="the folder of the run: it holds sft/model and reward/model")
    given = parser.parse_args()
    run = given.__dict__.pop("run")
    for model in (run / "sft" / "model", run / "reward" / "model"):
        if not (model / "config.json").is_file():
            raise SystemExit(
                f"{model} is not a model: give the folder of a `surefoot rlhf` run that trained all weights"
            )
    print(f"the model is in {train(run, Args(**vars(given)))}")


if __name__ == "__main__":
    main()
