"""The whole of RLHF on a toy, small enough to look into: texts, a rater, a reward model, PPO.

The language model is the quick demo's. Its rater goes by a rule about words, and errs like a person: the closer two
answers are, the more often. The reward model learns from the rater's choices alone, and PPO sees nothing but the
reward model. So the rule stays what the run is judged by.
"""

import copy
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from surefoot import PPOConfig, PPOTrainer
from surefoot.callbacks import Callback, Evaluation, SampleRecord
from surefoot.demo import texts, tiny
from surefoot.demo.scorers import pleasant_words, unseen_words
from surefoot.types import Completion, Experience, StepStats

SEED = 0
PAIRS, HELD_OUT_PAIRS = 1400, 400
SURENESS = 1.5
"""The rater's log-odds for the better of two answers, for each point of the rule between them."""
CANDIDATES = 8
"""Answers to each held-out prompt that best-of-n may choose from."""
WATCHED_STEP = 8
"""The step whose batch is shown; by then the policy has left the reference."""


def rule(answers: Sequence[str]) -> list[float]:
    """What the rater likes: pleasant words, less unpleasant ones."""
    return [a + b for a, b in zip(pleasant_words(answers), unseen_words(answers), strict=True)]


@dataclass(frozen=True)
class Pair:
    """Two answers to a prompt, and whether the rater chose the first."""

    prompt: str
    first: str
    second: str
    first_chosen: bool


@dataclass(frozen=True)
class RewardModel:
    """A classifier with one output, and what centres it: the mean over the SFT model's answers becomes 0."""

    model: Any
    tokenizer: Any
    shift: float = 0.0

    def scores(self, prompts: Sequence[str], answers: Sequence[str]) -> list[float]:
        found: list[float] = []
        with torch.no_grad():
            for start in range(0, len(answers), 128):
                rows = slice(start, start + 128)
                found += (read(self.model, self.tokenizer, prompts[rows], answers[rows]) - self.shift).tolist()
        return found

    def reward(self, prompts: Sequence[str], completions: Sequence[str], **_columns: Any) -> list[float]:
        return self.scores([str(p) for p in prompts], [str(c) for c in completions])


@dataclass
class Watcher(Callback):
    """Keeps what the pictures show of a run: every step's numbers, and one step's batch."""

    steps: list[dict[str, float]] = field(default_factory=list)
    experience: Experience | None = None
    samples: Sequence[SampleRecord] = ()
    coefficient: float = 0.0
    logprobs_after: Any = None

    def on_step(self, trainer: Any, stats: StepStats, samples: Sequence[SampleRecord]) -> None:
        self.steps.append(stats.scalars())
        if trainer.steps_done == WATCHED_STEP:
            self.experience, self.samples = trainer.last_experience, samples
            self.coefficient = float(stats["objective/kl_coef"])
            self.logprobs_after = logprobs_now(trainer, trainer.last_experience)


@dataclass(frozen=True)
class Toy:
    """All that the run left behind."""

    config: PPOConfig
    tokenizer: Any
    openings: texts.Openings
    corpus: list[str]
    reading: tiny.Pretraining
    pairs: list[Pair]
    held_out_pairs: list[Pair]
    judge: RewardModel
    trainer: PPOTrainer
    watcher: Watcher
    evaluations: Sequence[Evaluation]
    candidates: list[list[str]]


def make_toy(say: Callable[[str], None]) -> Toy:
    """Runs the three stages."""
    corpus = texts.toy_reviews()
    found = texts.toy_openings()
    openings = texts.Openings(found.training, found.held_out[:96])
    tokenizer = tiny.make_tokenizer(corpus)
    model = tiny.make_model(tokenizer, SEED)
    say("Stage 1: a language model reads")
    reading = tiny.pretrain(model, tokenizer, corpus, seed=SEED, autocast=False, steps=500, say=say)
    config = toy_config(len(openings.held_out))
    say("Stage 2: its answers are compared, and a reward model learns from the choices")
    sampler = PPOTrainer(config, copy.deepcopy(model), None, tokenizer)
    pairs = compared(sampler, openings.training, PAIRS)
    held_out_pairs = compared(sampler, openings.held_out, HELD_OUT_PAIRS)
    candidates = grouped(sampler.generate(openings.held_out, num_return_sequences=CANDIDATES), CANDIDATES)
    judge = train_reward_model(model, tokenizer, pairs)
    say("Stage 3: PPO")
    watcher = Watcher()
    trainer = PPOTrainer(
        config,
        model,
        None,
        tokenizer,
        reward=judge.reward,
        dataset=openings.training,
        eval_dataset=openings.held_out,
        callbacks=[watcher],
    )
    result = trainer.train()
    return Toy(
        config,
        tokenizer,
        openings,
        corpus,
        reading,
        pairs,
        held_out_pairs,
        judge,
        trainer,
        watcher,
        result.evaluations,
        candidates,
    )


def toy_config(eval_prompts: int) -> PPOConfig:
    return PPOConfig(
        model_name="toy",
        precision="float32",
        learning_rate=8e-5,
        batch_size=64,
        mini_batch_size=16,
        ppo_epochs=4,
        max_new_tokens=24,
        init_kl_coef=0.1,
        target_kl=0.15,
        horizon=160,
        steps=20,
        eval_every=4,
        eval_prompts=eval_prompts,
        seed=SEED,
    )


def compared(sampler: PPOTrainer, prompts: Sequence[str], count: int) -> list[Pair]:
    """`count` pairs of the model's own answers, each with the rater's choice; it skips two that it likes equally."""
    luck, found = random.Random(SEED), list[Pair]()
    while len(found) < count:
        asked = [luck.choice(prompts) for _ in range(count)]
        answers = grouped(sampler.generate(asked, num_return_sequences=2), 2)
        both = [(prompt, str(a), str(b)) for prompt, (a, b) in zip(asked, answers, strict=True)]
        found += [rated(*three, luck) for three in both if rule([three[1]]) != rule([three[2]])]
    return found[:count]


def rated(prompt: str, first: str, second: str, luck: random.Random) -> Pair:
    """The rater takes the first answer with Bradley and Terry's probability: sigmoid of what lies between the two."""
    between = torch.tensor(SURENESS * (rule([first])[0] - rule([second])[0]))
    return Pair(prompt, first, second, luck.random() < float(torch.sigmoid(between)))


def grouped(answers: Sequence[Any], size: int) -> list[list[Any]]:
    return [list(answers[start : start + size]) for start in range(0, len(answers), size)]


def train_reward_model(policy: Any, tokenizer: Any, pairs: Sequence[Pair], rows: int = 32) -> RewardModel:
    """Bradley and Terry's model of the choices, -log sigmoid(score of the chosen - score of the rejected).

    Twice through the pairs, from the SFT model's weights and a new head.
    """
    from transformers import LlamaForSequenceClassification

    config = copy.deepcopy(policy.config)
    config.num_labels = 1
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        model = LlamaForSequenceClassification(config)
    model.model.load_state_dict(policy.model.state_dict())
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.01)
    model.train()
    for part in grouped([*pairs, *pairs], rows):
        optimizer.zero_grad()
        margin = margins(model, tokenizer, part)
        chosen = torch.tensor([1.0 if pair.first_chosen else -1.0 for pair in part])
        torch.nn.functional.softplus(-chosen * margin).mean().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    model.eval()
    raw = RewardModel(model, tokenizer)
    sampled = raw.scores([p.prompt for p in pairs], [p.first for p in pairs])
    return RewardModel(model, tokenizer, sum(sampled) / len(sampled))


def margins(model: Any, tokenizer: Any, pairs: Sequence[Pair]) -> torch.Tensor:
    """Score of the first answer less score of the second."""
    prompts = [pair.prompt for pair in pairs] * 2
    both = read(model, tokenizer, prompts, [p.first for p in pairs] + [p.second for p in pairs])
    return both[: len(pairs)] - both[len(pairs) :]


def read(model: Any, tokenizer: Any, prompts: Sequence[str], answers: Sequence[str]) -> torch.Tensor:
    whole = [prompt + answer for prompt, answer in zip(prompts, answers, strict=True)]
    rows = tokenizer(whole, padding=True, padding_side="right", return_tensors="pt")
    found: torch.Tensor = model(input_ids=rows["input_ids"], attention_mask=rows["attention_mask"]).logits[:, 0]
    return found


def logprobs_now(trainer: PPOTrainer, experience: Experience) -> torch.Tensor:
    """What the policy as it is now says about the responses of an older batch."""
    return judged(trainer, *rows_of(experience)).old_logprobs


def rows_of(experience: Experience) -> tuple[list[list[int]], list[list[int]]]:
    r = experience.rollout
    queries = [ids[mask].tolist() for ids, mask in zip(r.query_ids, r.query_mask, strict=True)]
    answers = [ids[:n].tolist() for ids, n in zip(r.response_ids, r.lengths.tolist(), strict=True)]
    return queries, answers


def judged(
    trainer: PPOTrainer, queries: Sequence[Sequence[int]], answers: Sequence[Sequence[int]], kl: str = "kl"
) -> Any:
    """A rollout of given answers: what policy, reference and critic say about each token."""
    from surefoot.rollout import Response, collect

    responses = [Response(ids, [True] * len(ids), [], False) for ids in answers]
    rollout, _ = collect(trainer.models, queries, responses, temperature=trainer.config.temperature, kl_penalty=kl)
    return rollout


def ids_of(answers: Sequence[Completion]) -> list[list[int]]:
    return [list(answer.token_ids) for answer in answers]
