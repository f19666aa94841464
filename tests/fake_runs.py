"""A run without a model: statistics, evaluations and a trainer that hands them out."""

from contextlib import nullcontext
from types import SimpleNamespace

import torch

from surefoot.callbacks import Evaluation, TrainResult
from surefoot.config import PPOConfig
from surefoot.progress import Progress
from surefoot.stopping import StopSwitch
from surefoot.types import Completion, Prompt, StepStats

HEALTHY = {
    "step": 1,
    "episode": 4,
    "objective/scores": 0.25,
    "ppo/std_scores": 0.5,
    "objective/kl_per_token": 3e-6,
    "objective/kl_k3": 1e-6,
    "objective/kl_coef": 0.2,
    "objective/target_kl": 0.1,
    "ppo/policy/first_ratio": 1.0,
    "ppo/policy/entropy": 2.5,
    "ppo/policy/clipfrac": 0.08,
    "ppo/val/explained_variance": -0.4,
    "ppo/grad_norm": 12.3,
    "ppo/loss/total": 0.7,
    "tokens/responses_len_mean": 48.25,
    "tokens/eos_rate": 0.75,
    "tokens/truncated_rate": 0.25,
    "tokens/distinct_2": 0.6,
    "time/generate": 1.0,
    "time/score": 0.5,
    "time/step": 1.5,
    "time/tokens_per_second": 1310.0,
    "memory/peak_gib": 1.25,
}


def stats(step=1, **changes):
    return StepStats(HEALTHY | {"step": step} | {name.replace("__", "/"): value for name, value in changes.items()})


def samples(step, score, count=6, response="An answer.\n\x1b[31mred"):
    return [
        {
            "step": step,
            "prompt": f"<user>Question {row}?<end>\n",
            "response": f"{response} {row}",
            "score": score + row,
            "scores": {"judge": score + row},
            "kl": 0.3,
            "length": 12,
            "finish_reason": "stop",
            "row": row,
        }
        for row in range(count)
    ]


def evaluation(step, score):
    metrics = {"eval/score": score, "eval/score_std": 0.5, "eval/kl_per_token": 0.02, "eval/length": 48.0}
    return Evaluation(
        step, 4 * step, metrics | {"eval/eos_rate": 0.5, "eval/rewards/judge": score}, samples(step, score)
    )


def result(*evaluations, steps=3, folder=None, reason="finished: all 3 steps are done"):
    return TrainResult(reason, steps, 4 * steps, evaluations, folder)


class FakeRuntime:
    is_main = True
    world_size = 1

    def share(self, rows):
        return list(rows)

    together = staticmethod(nullcontext)


class FakeModels:
    arithmetic = staticmethod(nullcontext)


class FakeReward:
    def __call__(self, prompts, answers):
        self.seen = [(p.index, str(a)) for p, a in zip(prompts, answers, strict=True)]
        return self

    scores = (0.0, 1.0, 2.0, 3.0)


class FakeTrainer:
    """Answers every prompt with its own number."""

    def __init__(self, step_stats=None, **options):
        self.config = PPOConfig(**({"batch_size": 4, "mini_batch_size": 2, "num_generations": 2} | options))
        self.prompts = tuple(Prompt(f"prompt {i}", (i + 1,), index=i) for i in range(5))
        self.reward, self.gold, self.runtime, self.models = FakeReward(), None, FakeRuntime(), FakeModels()
        self.policy = torch.nn.Linear(2, 2)
        self.total_steps, self.folder, self.progress, self.stop = 100, None, Progress(), StopSwitch()
        self.presence = SimpleNamespace(asking_rewards=nullcontext)
        self.given = None
        self._stats = stats() if step_stats is None else step_stats

    @property
    def steps_done(self):
        return self.progress.steps

    def generate(self, prompts, num_return_sequences=1):
        return [
            Completion(f"{p.index}.{k}", (1,), (0.0,), "stop") for p in prompts for k in range(num_return_sequences)
        ]

    def asking_rewards(self):
        return nullcontext()

    def step(self, queries, responses, scores):
        self.given = ([q.index for q in queries], list(map(str, responses)), list(scores))
        return self._stats
