"""Trying rewards out on a few rows before a run: their spread, their speed, and what looks wrong about them."""

import logging
import re
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from surefoot.rewards.failure import check_scores
from surefoot.rewards.function import FunctionReward
from surefoot.rewards.mix import make_reward
from surefoot.types import Completion, Prompt, Reward, RewardOutput

logger = logging.getLogger("surefoot")

ANSWER_COLUMNS = ("completion", "response", "answer", "chosen")
_TWICE = re.compile(r"^\s*(<[^<>\s]{1,40}>|\[[A-Z]{2,8}\])\s*\1")


@dataclass(frozen=True, slots=True)
class RewardSummary:
    """One reward on the tried rows.

    Attributes:
        name: what it is logged under.
        n: answers tried. mean, std, min, max: of the scores it gave, before weighting; None where it gave none.
        milliseconds: per answer, the first call included.
        none_share: share of answers it has no score for.
        warnings: what looks wrong, a sentence each.
    """

    name: str
    n: int
    mean: float | None
    std: float | None
    min: float | None
    max: float | None
    milliseconds: float
    none_share: float
    warnings: list[str]


@dataclass(frozen=True, slots=True)
class RewardCheck:
    """The result of trying rewards out: a summary of each, and the weighted scores of the rows."""

    rewards: list[RewardSummary]
    scores: list[float]

    @property
    def warnings(self) -> list[str]:
        """All warnings, each with its reward's name before it."""
        return [f"{reward.name}: {warning}" for reward in self.rewards for warning in reward.warnings]


def check_reward(
    reward: Any, prompts: Sequence[Prompt], completions: Sequence[str], weights: Sequence[float] = ()
) -> RewardCheck:
    """Scores the rows twice, the second time in reverse, and reports what training would see.

    Args:
        reward: anything that `make_reward` accepts.
        prompts: the rows.
        completions: an answer to each.
        weights: one a reward. Empty: every weight is 1.

    Raises:
        RewardError: what would stop a run stops this too.
    """
    mix = make_reward(reward, weights)
    first: dict[str, RewardOutput] = {}
    seconds: dict[str, float] = {}
    for name, part in mix.rewards.items():
        start = time.perf_counter()
        first[name] = part(prompts, completions)  # type: ignore[arg-type]
        seconds[name] = time.perf_counter() - start
    scores = mix.combine(first, prompts, completions).scores
    summaries = []
    for name, part in mix.rewards.items():
        values = check_scores(name, first[name].scores, prompts, completions)
        backwards = part(prompts[::-1], completions[::-1])  # type: ignore[arg-type]
        again = check_scores(name, backwards.scores, prompts[::-1], completions[::-1])[::-1]
        warnings = [*_spread_warnings(part, values), *_input_warnings(part, first[name], prompts, completions)]
        if not _same(values, again):
            warnings.append("the scores change when the batch is reversed: they depend on order, neighbours or chance")
        summaries.append(_summary(name, values, seconds[name], warnings))
    return RewardCheck(summaries, scores)


def _summary(name: str, values: Sequence[float | None], seconds: float, warnings: list[str]) -> RewardSummary:
    given = [v for v in values if v is not None]
    return RewardSummary(
        name=name,
        n=len(values),
        mean=statistics.fmean(given) if given else None,
        std=statistics.pstdev(given) if given else None,
        min=min(given, default=None),
        max=max(given, default=None),
        milliseconds=1000 * seconds / len(values),
        none_share=1 - len(given) / len(values),
        warnings=warnings,
    )


def _spread_warnings(reward: Reward, values: Sequence[float | None]) -> list[str]:
    given = [v for v in values if v is not None]
    if not given:
        return ["it has no score for any of these answers"]
    if len(given) > 1 and max(given) == min(given):
        return [f"every answer gets {given[0]:g}: nothing can be learned from a constant"]
    if len(given) > 1 and not isinstance(reward, FunctionReward) and min(given) >= 0 and max(given) <= 1:
        return ["all scores lie within 0 and 1: a sigmoid or softmax was probably applied; raw scores work better"]
    return []


def _input_warnings(
    reward: Reward, output: RewardOutput, prompts: Sequence[Prompt], completions: Sequence[str]
) -> list[str]:
    found = []
    cut = output.metrics.get("truncated_rate", 0.0)
    if cut > 0:
        found.append(f"{cut:.0%} of the inputs are too long for it and lose the beginning of their prompts")
    if hasattr(reward, "render"):
        texts = [reward.render(p, c) for p, c in zip(prompts, completions, strict=True)]
        if any(p.messages for p in prompts):
            found += _template_warnings(reward)
    else:
        texts = [p.text for p in prompts]
    doubled = sum(_TWICE.match(text) is not None for text in texts)
    if doubled:
        found.append(f"{doubled} of {len(texts)} inputs begin with the same special token twice (doubled BOS)")
    return found


def _template_warnings(reward: Any) -> list[str]:
    if reward.tokenizer is None:
        return ["conversations go to it as the policy's chat template writes them; its own needs #tokenizer=NAME"]
    if reward.tokenizer.chat_template is None:
        return ["it has no chat template: of conversations it reads the bare contents"]
    return []


def _same(values: Sequence[float | None], again: Sequence[float | None]) -> bool:
    """Equal up to what another order of additions does to float32."""
    return all(
        a is b or (a is not None and b is not None and abs(a - b) <= 1e-3 * max(1.0, abs(a)))
        for a, b in zip(values, again, strict=True)
    )


def answer_column(prompts: Sequence[Prompt]) -> str | None:
    """The first of completion, response, answer, chosen that every row has; None where there is none."""
    return next((name for name in ANSWER_COLUMNS if all(_answer(p, name) is not None for p in prompts)), None)


def answers_from_columns(prompts: Sequence[Prompt]) -> list[Completion]:
    """An answer for each prompt out of its row (see `answer_column`); where there is none, the prompt itself."""
    column = answer_column(prompts)
    if column is None:
        logger.info("no column %s: the prompts themselves are scored as answers", ", ".join(ANSWER_COLUMNS))
        texts = [str(p.messages[-1]["content"]) if p.messages else p.text for p in prompts]
    else:
        texts = [_answer(p, column) or "" for p in prompts]
    return [Completion(text, (), (), "stop") for text in texts]


def _answer(prompt: Prompt, column: str) -> str | None:
    """The answer in a column of a row: a text, or the last message of a conversation."""
    value = prompt.columns.get(column)
    if isinstance(value, str):
        return value.removeprefix(prompt.text)  # preference rows may repeat the prompt
    if isinstance(value, list | tuple) and value and isinstance(value[-1], dict) and "content" in value[-1]:
        return str(value[-1]["content"])
    return None
