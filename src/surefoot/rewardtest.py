"""`surefoot reward-test`: the first rows of a dataset, scored and shown, before anything is trained."""

from collections.abc import Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from surefoot.config import PPOConfig
from surefoot.display import visible
from surefoot.loading import load_tokenizer
from surefoot.prompts import load_prompts
from surefoot.rewards import RewardMix
from surefoot.rewards.check import RewardCheck, RewardSummary, answer_column, answers_from_columns, check_reward
from surefoot.types import Prompt


def first_prompts(config: PPOConfig, count: int) -> tuple[Prompt, ...]:
    """The first rows of the dataset; without a model_name they are read with a tokenizer of bytes."""
    tokenizer = (
        byte_tokenizer() if config.model_name is None else load_tokenizer(config.model_name, config.chat_template)
    )
    loaded = load_prompts(
        config.dataset, tokenizer, prompt_column=config.prompt_column, prompt_template=config.prompt_template
    )
    return loaded.prompts[:count]


def try_rewards(reward: RewardMix, prompts: Sequence[Prompt]) -> tuple[RewardCheck, RenderableType]:
    """Scores the rows: the check, and the same as tables."""
    answers = answers_from_columns(prompts)
    check = check_reward(reward, prompts, answers)
    column = answer_column(prompts)
    source = "the prompts themselves (no column with answers)" if column is None else f"the column {column!r}"
    parts: list[RenderableType] = [Text(visible(f"{len(prompts)} rows; scored as answers: {source}")), Text()]
    parts += [_rows(prompts, answers, check.scores), Text(), _summaries(check.rewards)]
    parts += [Text(visible(sentence)) for sentence in _centred(reward)]
    parts += [Text(visible(f"warning: {sentence}")) for sentence in check.warnings]
    return check, Group(*parts)


def _centred(reward: RewardMix) -> list[str]:
    shifts = {name: getattr(one, "score_shift", 0.0) for name, one in reward.rewards.items()}
    return [f"{name} is centred: its score_shift of {x:.4g} is taken off" for name, x in shifts.items() if x]


def byte_tokenizer() -> Any:
    """A tokenizer that needs no model: a token a byte, and conversations as their bare contents."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocab = {character: i for i, character in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    core = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core)
    tokenizer.chat_template = "{% for message in messages %}{{ message['content'] }}\n{% endfor %}"
    return tokenizer


def _rows(prompts: Sequence[Prompt], answers: Sequence[str], scores: Sequence[float]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column("row", justify="right")
    table.add_column("score", justify="right", no_wrap=True)
    for title in ("prompt", "answer"):
        table.add_column(title, no_wrap=True, overflow="ellipsis", ratio=1)
    for prompt, answer, score in zip(prompts, answers, scores, strict=True):
        end = visible(prompt.text[-60:].strip())
        table.add_row(str(prompt.index + 1), f"{score:.4g}", Text(end), Text(visible(answer[:200])))
    return table


def _summaries(rewards: Sequence[RewardSummary]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for title in ("reward", "mean", "std", "min", "max", "ms an answer", "no score"):
        table.add_column(title, justify="left" if title == "reward" else "right", no_wrap=True)
    for r in rewards:
        numbers = ("-" if x is None else f"{x:.4g}" for x in (r.mean, r.std, r.min, r.max))
        table.add_row(Text(visible(r.name)), *numbers, f"{r.milliseconds:.3g}", f"{r.none_share:.0%}")
    return table
