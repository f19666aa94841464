"""The engine that was asked for."""

from collections.abc import Iterable, Sequence
from typing import Any

from surefoot.engine.transformers import TransformersEngine
from surefoot.models import ActorCritic
from surefoot.types import Engine, Prompt


def make_engine(
    name: str,
    models: ActorCritic,
    tokenizer: Any,
    eos_ids: Iterable[int],
    *,
    python: str | None,
    bfloat16: bool,
    context: int | None,
    rows: int,
    prompts: Sequence[Prompt],
    max_new_tokens: int,
) -> Engine:
    """An engine for the policy of `models`.

    Args:
        name: transformers or vllm.
        models: whose policy answers, in the arithmetic in which it is trained.
        tokenizer: the policy's.
        eos_ids: ids that end an answer.
        python: the interpreter that has vLLM; None: this one.
        bfloat16: whether the policy's arithmetic is in bfloat16.
        context: longest row that the models take.
        rows: answers that are asked for at a time, about.
        prompts: those that are known.
        max_new_tokens: longest answer.

    Raises:
        ValueError: vLLM is asked for and not there.
    """
    if name == "transformers":
        return TransformersEngine(models.policy, tokenizer, eos_ids, autocast=models.sampling)
    from surefoot.engine.vllm import VLLMEngine

    return VLLMEngine(
        models.policy,
        tokenizer,
        eos_ids,
        autocast=models.sampling,
        bfloat16=bfloat16,
        python=python,
        context=context,
        rows=rows,
        longest=max((len(p.token_ids) for p in prompts), default=0) + max_new_tokens,
    )
