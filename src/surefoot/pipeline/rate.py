"""The stage `rate`: the SFT model answers every prompt twice, and a stand-in rater says which answer it prefers.

The rows are TRL's preference rows, with both scores, the probability of the choice and the rater's name in columns of
their own, so that nobody takes them for what people said.
"""

import json
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from surefoot.arithmetic import arithmetic
from surefoot.engine.transformers import TransformersEngine
from surefoot.loading import context_length, end_ids, load_adapter, load_policy, load_tokenizer
from surefoot.models import gradients_as_they_were
from surefoot.ops.seeds import derive_seed
from surefoot.pipeline.options import RateOptions
from surefoot.pipeline.pairs import choose
from surefoot.prompts import PromptSet, load_prompts
from surefoot.rewards import RewardMix, make_reward
from surefoot.rewards.conventions import without_ends
from surefoot.runtime import Runtime
from surefoot.setup import use_bfloat16
from surefoot.terminal import EXIT_OK, console, say
from surefoot.types import Completion, Prompt, Sampling

Row = dict[str, Any]
_AT_ONCE = 256
"""Answers between two lines of progress."""


def run_rate(o: RateOptions, *, quiet: bool = False) -> int:
    """Writes the pairs (preferences.jsonl) and all the answers (answers.jsonl), each file whole or not at all."""
    screen, began = console(), time.monotonic()
    tokenizer = load_tokenizer(str(o.model_name), o.chat_template)
    policy = load_policy(str(o.model_name), device=Runtime().default_device())
    policy = policy if o.adapter_name is None else load_adapter(policy, o.adapter_name)
    policy = policy.eval()
    found = prompts_of(o, tokenizer, context_length(policy))
    if not quiet:
        say(screen, found.report.text())
    asked = [prompt for prompt in found.prompts for _ in range(2 * o.pairs_per_prompt)]
    answers: list[Completion] = []
    for part in _answers(o, policy, tokenizer, asked):
        answers += part
        if not quiet:
            say(screen, f"answers   {len(answers):,} of {len(asked):,}, {time.monotonic() - began:.0f} s")
    rater = make_reward(list(o.rater), special_tokens=tokenizer.all_special_tokens)
    rows, equal = rated(o, asked, answers, scores_of(rater, asked, answers), tokenizer.all_special_tokens)
    if not rows:
        raise ValueError(
            "rate: the rater found both answers of every pair equal: take a scorer with finer scores, or raise "
            "temperature, max_new_tokens or pairs_per_prompt"
        )
    summary = _summary(rows, equal, o)
    folder = Path(str(o.output_dir))
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / "preferences.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    said = [answer_of(*pair, tokenizer.all_special_tokens) for pair in zip(asked, answers, strict=True)]
    _write(folder / "answers.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in said))
    _write(folder / "result.json", json.dumps(summary, indent=2) + "\n")
    say(
        screen,
        f"pairs     {summary['pairs']:,} in {folder / 'preferences.jsonl'}, chosen by {summary['rater']}; "
        f"it took the answer that it scores higher in {summary['agreement']:.0%}"
        + (f"; {equal:,} pairs that it finds equal were left out" if equal else ""),
    )
    return EXIT_OK


def prompts_of(o: RateOptions, tokenizer: Any, context: int | None) -> PromptSet:
    """The prompts that leave room for an answer."""
    limits = [n for n in (o.max_prompt_tokens, None if context is None else context - o.max_new_tokens) if n]
    return load_prompts(
        o.dataset, tokenizer, prompt_column=o.prompt_column, prompt_template=o.prompt_template,
        max_prompt_tokens=min(limits) if limits else None,
    )  # fmt: skip


def scores_of(rater: RewardMix, prompts: Sequence[Prompt], answers: Sequence[Completion]) -> list[float]:
    """What the rater thinks of each answer."""
    return list(rater(prompts, answers).scores)


def rated(
    o: RateOptions,
    prompts: Sequence[Prompt],
    answers: Sequence[Completion],
    scores: Sequence[float],
    special_tokens: Sequence[str],
) -> tuple[list[Row], int]:
    """Answers two by two -> preference rows, and how many pairs the rater finds equal, which teach nothing."""
    rows, equal = [], 0
    for i in range(0, len(answers), 2):
        if scores[i] == scores[i + 1] or str(answers[i]) == str(answers[i + 1]):
            equal += 1
            continue
        uniform = random.Random(derive_seed(o.seed, "rater", i)).random()
        choice = choose(scores[i], scores[i + 1], o.rater_noise, uniform)
        chosen, rejected = (i, i + 1) if choice.first else (i + 1, i)
        rows.append(
            row_of(prompts[i], answers[chosen], answers[rejected], special_tokens)
            | {"chosen_score": scores[chosen], "rejected_score": scores[rejected],
               "probability": choice.probability, "rater": f"stand-in: {', '.join(o.rater)}"}
        )  # fmt: skip
    return rows, equal


def row_of(prompt: Prompt, chosen: str, rejected: str, special_tokens: Sequence[str]) -> Row:
    """TRL's preference row: texts, or conversations where the prompt is one."""
    first, second = (answer_of(prompt, answer, special_tokens) for answer in (chosen, rejected))
    return {"prompt": first["prompt"], "chosen": first["completion"], "rejected": second["completion"]}


def answer_of(prompt: Prompt, answer: str, special_tokens: Sequence[str]) -> Row:
    """TRL's row of a prompt and an answer: texts, or conversations where the prompt is one."""
    if prompt.messages:
        said = [{"role": "assistant", "content": str(answer)}]
        return {"prompt": [dict(message) for message in prompt.messages], "completion": said}
    return {"prompt": without_ends(prompt.text, special_tokens), "completion": str(answer)}


def _answers(o: RateOptions, policy: Any, tokenizer: Any, prompts: Sequence[Prompt]) -> Iterator[list[Completion]]:
    device = next(policy.parameters()).device
    bfloat16 = use_bfloat16(o.precision, device)

    @contextmanager
    def sampling() -> Iterator[None]:
        # Autocast keeps what it has made of weights that take gradients only; others it rounds again for every token.
        with gradients_as_they_were(policy), arithmetic(device, bfloat16=bfloat16):
            for parameter in policy.parameters():
                parameter.requires_grad_(parameter.is_floating_point())
            yield

    engine = TransformersEngine(policy, tokenizer, end_ids(policy, tokenizer), autocast=sampling)
    how = Sampling(o.max_new_tokens, o.temperature, stop_strings=o.stop_strings)
    for start in range(0, len(prompts), _AT_ONCE):
        some = prompts[start : start + _AT_ONCE]
        seeds = [derive_seed(o.seed, "pairs", start + i) for i in range(len(some))]
        with torch.inference_mode():
            yield engine.generate([prompt.token_ids for prompt in some], seeds, how)


def _summary(rows: Sequence[Row], equal: int, o: RateOptions) -> dict[str, Any]:
    agree = sum(row["chosen_score"] > row["rejected_score"] for row in rows) / len(rows)
    ceiling = sum(max(row["probability"], 1 - row["probability"]) for row in rows) / len(rows)
    return {"reason": "finished: every prompt has its pairs", "pairs": len(rows), "equal_pairs": equal,
            "rater": ", ".join(o.rater), "noise": o.rater_noise, "agreement": agree, "ceiling": ceiling}  # fmt: skip


def _write(path: Path, text: str) -> None:
    part = path.with_name(f".{path.name}.part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)
