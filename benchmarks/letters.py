"""Real PPO runs in the worlds of mini_gao.py: a small transformer writes the letters, and nothing is exact any more.

A Llama of one layer learns the chain from its texts and is the SFT model. A prompt is the first two letters of a
text, an answer the other ten. Gold is the world's; a reward model is a Bradley-Terry fit to comparisons of reference
texts. What gold says of a policy is measured on other answers than those that the watch sees.
"""

import copy
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from benchmarks import mini_gao
from surefoot import PPOConfig, PPOTrainer
from surefoot.callbacks import Callback, Evaluation
from surefoot.demo import tiny
from surefoot.setup import sampling_of

ALPHABET = "abcdefgh"
PROMPT = 2
ANSWER = mini_gao.LENGTH - PROMPT
READ, READ_STEPS, READ_ROWS = 20_000, 250, 64
LABELS, TRUTH = 64, 128
"""Answers that gold labels at an evaluation for the watch, and others that say how good the policy is in truth."""
NOISY = {"pairs": 150, "flipped": 0.25}
CLEAN = {"pairs": 3000, "flipped": 0.0}
LONGER = 0.5
"""What a standard deviation of length is worth to the rater who likes long texts, in standard deviations of gold."""
OPTIONS: Mapping[str, Any] = {
    "learning_rate": 2e-3, "critic_learning_rate": 2e-3, "batch_size": 64, "mini_batch_size": 64, "ppo_epochs": 3,
    "max_new_tokens": ANSWER, "kl_controller": "fixed", "init_kl_coef": 0.03, "cliprange_value": None,
    "eval_prompts": LABELS, "eval_every": 3, "save_every": 0, "keep_checkpoints": 2,
}  # fmt: skip


@dataclass(frozen=True)
class World:
    """A problem, its reference texts' SFT model, and that model's tokenizer."""

    seed: int
    problem: mini_gao.Problem
    model: Any
    tokenizer: Any


@dataclass(frozen=True)
class Arm:
    """One way to run: the rewards' number, and the options that differ.

    Attributes:
        rewards: 1, or as many reward models on resampled comparisons.
    """

    options: Mapping[str, Any] = field(default_factory=dict)
    rewards: int = 1


ARMS: Mapping[str, Arm] = {
    "no watch": Arm(),
    "raise_kl": Arm({"watch": "raise_kl"}),
    "KL price x 4": Arm({"init_kl_coef": 4 * float(OPTIONS["init_kl_coef"])}),
    "4 rewards, mean": Arm({"reward_ensemble": "mean"}, 4),
    "4 rewards, min": Arm({"reward_ensemble": "min"}, 4),
    "4 rewards, uncertainty": Arm({"reward_ensemble": "uncertainty", "uncertainty_coef": 0.5}, 4),
    "reward_shaping sigmoid": Arm({"reward_shaping": "sigmoid"}),
}


# ---------------------------------------------------------------------------------------------- the world
def words(texts: np.ndarray) -> list[str]:
    return ["".join(ALPHABET[letter] for letter in text) for text in texts]


def numbers(texts: Sequence[str]) -> np.ndarray:
    """[texts, 12]: letters as numbers; what is no letter of the alphabet is the one after its last."""
    rows = [[ALPHABET.find(c) % (len(ALPHABET) + 1) for c in text[: mini_gao.LENGTH].ljust(mini_gao.LENGTH)]
            for text in texts]  # fmt: skip
    return np.array(rows)


def scorer(pairs: np.ndarray, triples: np.ndarray | None = None) -> Callable[..., list[float]]:
    """A reward function: the sum over neighbouring letters; what is no letter earns nothing."""
    wide = np.pad(pairs, (0, 1))
    deep = None if triples is None else np.pad(triples, (0, 1))

    def score(prompts: Sequence[str], completions: Sequence[str], **_: Any) -> list[float]:
        texts = numbers([f"{p}{c}" for p, c in zip(prompts, completions, strict=True)])
        found = wide[texts[:, :-1], texts[:, 1:]].sum(1)
        if deep is not None:
            found = found + deep[texts[:, :-2], texts[:, 1:-1], texts[:, 2:]].sum(1)
        return [float(x) for x in found]

    return score


def make_world(seed: int, *, ends: bool = False) -> World:
    """The problem of a seed, and a model that has read its texts: whole, or cut anywhere and ended there."""
    problem, g = mini_gao.world(seed), np.random.default_rng([seed, 1])
    texts = words(mini_gao.sample(mini_gao.reference(problem), READ, g))
    tokenizer = tiny.make_tokenizer([ALPHABET], vocab_size=257)  # a token a byte
    end = tokenizer.eos_token_id
    rows = tokenizer(cut(texts, g) if ends else texts)["input_ids"]
    ids = torch.tensor([row + [end] * (mini_gao.LENGTH + ends - len(row)) for row in rows])
    model = _model(len(tokenizer), end, seed)
    _read(model, ids, end, seed)
    return World(seed, problem, model, tokenizer)


def cut(texts: Sequence[str], g: np.random.Generator) -> list[str]:
    """Texts of all lengths from two letters behind the prompt on."""
    lengths = g.integers(PROMPT + 2, mini_gao.LENGTH + 1, size=len(texts))
    return [text[:length] for text, length in zip(texts, lengths, strict=True)]


def _model(vocabulary: int, end: int, seed: int) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(vocab_size=vocabulary, hidden_size=48, intermediate_size=96, num_hidden_layers=1,
                         num_attention_heads=4, num_key_value_heads=4, max_position_embeddings=32,
                         bos_token_id=None, eos_token_id=end, pad_token_id=end)  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForCausalLM(config)


def _read(model: Any, ids: torch.Tensor, end: int, seed: int) -> None:
    """Learns to continue rows, up to and with their first end."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, READ_STEPS)
    generator = torch.Generator().manual_seed(seed)
    model.train()
    for _ in range(READ_STEPS):
        rows = ids[torch.randint(len(ids), (READ_ROWS,), generator=generator)]
        logits = model(input_ids=rows).logits[:, :-1]
        wanted = rows[:, 1:].masked_fill(rows[:, :-1] == end, -100)
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), wanted.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    model.eval()


def reward_models(world: World, *, pairs: int, flipped: float, count: int) -> list[np.ndarray]:
    """One fit to the comparisons; or several, each to as many of them drawn anew with replacement."""
    x, prefers = mini_gao.comparisons(world.problem, world.seed, pairs=pairs, flipped=flipped)
    if count == 1:
        return [mini_gao.bradley_terry(x, prefers)]
    g = np.random.default_rng([world.seed, 2])
    drawn = [g.integers(len(x), size=len(x)) for _ in range(count)]
    return [mini_gao.bradley_terry(x[rows], prefers[rows]) for rows in drawn]


# ---------------------------------------------------------------------------------------------- a run
class Truth(Callback):
    """Gold of the policy at every evaluation, on answers that nothing else sees."""

    def __init__(self, prompts: Sequence[str], gold: Callable[..., list[float]]) -> None:
        self.prompts, self.gold = list(prompts), gold
        self.means: list[float] = []
        self.first_spread = 0.0

    def on_evaluation(self, trainer: Any, evaluation: Evaluation) -> None:
        ids = trainer.tokenizer(self.prompts)["input_ids"]
        answers = trainer.engine.generate(ids, range(len(ids)), sampling_of(trainer.config, {}))
        found = self.gold(self.prompts, answers)
        if not self.means:
            self.first_spread = float(np.std(found, ddof=1))
        self.means.append(float(np.mean(found)))


def run(world: World, quality: Mapping[str, Any], arm: Arm, steps: int) -> dict[str, Any]:
    """One PPO run as plain numbers: what each evaluation found, in standard deviations of gold at the start."""
    gold = scorer(world.problem.pair_gold, world.problem.triple_gold)
    proxies = [scorer(proxy) for proxy in reward_models(world, **quality, count=arm.rewards)]
    return trained(world, proxies, gold, arm.options, steps)


def run_of_lengths(world: World, steps: int, *, fined: bool) -> dict[str, Any]:
    """A run whose rater likes long texts and whose gold does not care; `fined`: with a `length_penalty`.

    The penalty is the slope of the reward model's score on length among texts of the reference: nothing is tuned.
    """
    pairs = world.problem.pair_gold, world.problem.triple_gold
    by_sum = scorer(*pairs)

    def gold(prompts: Sequence[str], completions: Sequence[str], **_: Any) -> list[float]:
        counts = [max(1, len(p) + len(c) - 1) for p, c in zip(prompts, completions, strict=True)]
        return [total / count for total, count in zip(by_sum(prompts, completions), counts, strict=True)]

    g = np.random.default_rng([world.seed, 4])
    count = int(NOISY["pairs"])
    sampled = words(mini_gao.sample(mini_gao.reference(world.problem), 2 * count, g))
    texts = cut(sampled, g)
    liked = _standard(gold([""] * len(texts), texts)) + LONGER * _standard([len(text) for text in texts])
    prefers = (liked[:count] > liked[count:]) ^ (g.random(count) < NOISY["flipped"])
    weights = mini_gao.bradley_terry(_counts(texts[:count]) - _counts(texts[count:]), prefers)
    slope = float(np.polyfit([len(t) for t in texts], scorer(weights)([""] * len(texts), texts), 1)[0])
    options = {"max_new_tokens": ANSWER + 1, "length_penalty": max(0.0, slope) if fined else 0.0}
    return {"slope": round(slope, 4), **trained(world, [scorer(weights)], gold, options, steps)}


def _standard(values: Sequence[float]) -> np.ndarray:
    x = np.asarray(values, dtype=float)
    standard: np.ndarray = (x - x.mean()) / x.std()
    return standard


def _counts(texts: Sequence[str]) -> np.ndarray:
    """[texts, 64]: how often each pair of letters is in each text."""
    rows, size = numbers(texts), len(ALPHABET)
    found = np.zeros((len(texts), size * size))
    for place in range(mini_gao.LENGTH - 1):
        one, other = rows[:, place], rows[:, place + 1]
        both = (one < size) & (other < size)
        found[np.flatnonzero(both), (one * size + other)[both]] += 1
    return found


def trained(
    world: World, rewards: Sequence[Any], gold: Callable[..., list[float]], options: Mapping[str, Any], steps: int
) -> dict[str, Any]:
    """The run itself."""
    g = np.random.default_rng([world.seed, 3])
    texts = words(mini_gao.sample(mini_gao.reference(world.problem), 512 + LABELS + TRUTH, g))
    starts = [text[:PROMPT] for text in texts]
    truth = Truth(starts[512 + LABELS :], gold)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a toy bears, and needs, rates far above those advised
        config = PPOConfig(**{**OPTIONS, **options, "steps": steps, "seed": world.seed, "output_dir": folder})
        trainer = PPOTrainer(config, copy.deepcopy(world.model), None, world.tokenizer, reward=list(rewards),
                             gold=gold, dataset=starts[:512], eval_dataset=starts[512 : 512 + LABELS],
                             callbacks=[truth])  # fmt: skip
        result = trainer.train()
    looks = [_look(e, t, truth) for e, t in zip(result.evaluations, truth.means, strict=True)]
    spread = round(result.evaluations[0].metrics["eval/score_std"], 4)
    return {"seed": world.seed, "steps": result.steps, "model_step": result.model_step, "looks": looks,
            "score_spread": spread, "seconds": round(time.perf_counter() - began, 1)}  # fmt: skip


def _look(found: Evaluation, mean: float, truth: Truth) -> dict[str, Any]:
    m = found.metrics
    return {
        "step": found.step,
        "kl": round(m["eval/kl"], 4),
        "length": round(m["eval/length"], 2),
        "score": round(m["eval/score"], 4),
        "gold": round(m["eval/gold"], 4),
        "truth": round((mean - truth.means[0]) / truth.first_spread, 4),
        "signs": [alarm["sign"] for alarm in found.alarms],
    }
