"""A made-up but lifelike run, written through the product's own RunFolder.

`python tests/made_run.py FOLDER` writes one to look at, with its report and its picture.
"""

import math
import random
import sys
from pathlib import Path

from surefoot.config import PPOConfig
from surefoot.tracking import RunFolder
from surefoot.types import StepStats

OPENINGS = (
    "The keeper of the lighthouse had not spoken to anyone since",
    "Write a short note to a neighbour whose dog barks at night.",
    "On the last morning of the fair, Ines counted the money and",
    "Explain to a child why the moon seems to follow the car.",
    "The train stopped between two stations, and nobody",
    "Dear Mr Okafor, thank you for your letter about the",
    "It was the kind of soup that",
    "When the power came back, the first thing they saw was",
)
FLAT = ("the end of the day", "and the people", "of the town", "were there", "and it was", "a thing", "said before")
WARM = ("a quiet kindness", "settled over", "the harbour;", "she laughed,", "poured the tea,", "and promised that",
        "tomorrow would be", "lighter")  # fmt: skip


def answer(generator, warmth, length):
    words = [generator.choice(WARM if generator.random() < warmth else FLAT) for _ in range(length // 3 + 1)]
    return " " + " ".join(words).capitalize() + generator.choice([".", ".", "!"])


def sample(generator, step, row, warmth):
    length = max(4, round(generator.gauss(24 + 20 * warmth, 6)))
    feeling = generator.gauss(-0.4 + 2.2 * warmth + 0.012 * (length - 30), 0.45)
    brevity = -0.01 * length
    return {
        "step": step,
        "prompt": OPENINGS[row % len(OPENINGS)],
        "response": answer(generator, warmth, length),
        "score": feeling + brevity,
        "scores": {"feeling": feeling, "brevity": brevity},
        "kl": max(0.0, generator.gauss(9 * warmth**2, 1.0)) if warmth else 0.0,
        "length": length,
        "finish_reason": "stop" if generator.random() < 0.55 + 0.4 * warmth else "length",
        "row": row,
    }


def metrics_of(samples):
    count = len(samples)
    mean = {name: sum(s[name] for s in samples) / count for name in ("score", "kl", "length")}
    return {
        "eval/score": mean["score"],
        "eval/score_std": (sum((s["score"] - mean["score"]) ** 2 for s in samples) / (count - 1)) ** 0.5,
        "eval/kl": mean["kl"],
        "eval/kl_per_token": mean["kl"] / mean["length"],
        "eval/length": mean["length"],
        "eval/eos_rate": sum(s["finish_reason"] == "stop" for s in samples) / count,
        "eval/rewards/feeling": sum(s["scores"]["feeling"] for s in samples) / count,
        "eval/rewards/brevity": sum(s["scores"]["brevity"] for s in samples) / count,
    }


def statistics(generator, step, warmth, last):
    def near(value, spread):
        return value + generator.gauss(0, spread)

    return {
        "step": step,
        "episode": step * 64,
        "objective/scores": near(-0.7 + 2.3 * warmth, 0.12),
        "ppo/mean_scores": near(-0.7 + 2.3 * warmth, 0.12),
        "ppo/std_scores": near(0.5, 0.03),
        "objective/kl_per_token": max(0.0, near(0.21 * warmth**2, 0.006)),
        "objective/kl": 9 * warmth**2,
        "objective/target_kl": 0.15,
        "objective/kl_coef": 0.2 * math.exp(-0.006 * step),
        "ppo/policy/entropy": near(3.1 - 1.1 * warmth, 0.05),
        "tokens/responses_len_mean": near(24 + 20 * warmth, 1.0),
        "tokens/eos_rate": min(1.0, near(0.55 + 0.4 * warmth, 0.03)),
        "tokens/truncated_rate": max(0.0, near(0.45 - 0.4 * warmth, 0.03)),
        "ppo/policy/clipfrac": abs(near(0.08, 0.015)),
        "ppo/policy/approxkl": abs(near(0.006, 0.001)),
        "ppo/policy/first_ratio": near(1.0, 1e-6),
        "ppo/val/explained_variance": near(0.75 - 1.2 * math.exp(-8 * step / last), 0.05),
        "ppo/loss/policy": near(-0.018, 0.004),
        "ppo/loss/value": 0.16 + 1.4 * math.exp(-10 * step / last) + abs(near(0, 0.02)),
        "ppo/policy/skipped_minibatches": 0,
        "time/step": near(2.6, 0.1),
        "time/generate": near(1.9, 0.1),
    }


def make_run(path, *, steps=120, every=10, prompts=32, seed=0):
    generator, folder = random.Random(seed), RunFolder(path)
    config = PPOConfig(
        model_name="some-lab/Small-135M", dataset="openings.jsonl", reward=("feelings.py:score", "brevity:score"),
        reward_weights=(1.0, 0.5), learning_rate=2e-6, init_kl_coef=0.2, target_kl=0.15, steps=steps, lora_r=16,
        eval_every=every, max_new_tokens=64, log_with="tensorboard", output_dir="runs/made-up",
    )  # fmt: skip
    folder.start(config, ["surefoot", "ppo", "run.yaml", "--steps", str(steps), "--hub-token", "abc"])
    for step in range(steps + 1):
        warmth = 1 / (1 + math.exp(-7 * (step / steps - 0.42))) - 1 / (1 + math.exp(7 * 0.42))
        if step:
            samples = [sample(generator, step, generator.randrange(500), warmth) for _ in range(8)]
            folder.log_step(
                StepStats(statistics(generator, step, warmth, steps)), samples, with_samples=step % 20 == 0
            )
        if step % every == 0:
            answers = [sample(generator, step, row, warmth) for row in range(prompts)]
            folder.log_evaluation(step, step * 64, metrics_of(answers), answers)
    folder.finish(f"finished: {steps} steps")
    return Path(path)


if __name__ == "__main__":
    from surefoot.report import write_picture, write_report

    write_report(make_run(sys.argv[1]))
    write_picture(sys.argv[1], Path(sys.argv[1]) / "picture.png")
