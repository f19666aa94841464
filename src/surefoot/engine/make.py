"""The engine that was asked for."""

from collections.abc import Iterable, Sequence
from typing import Any

from surefoot.config import PPOConfig
from surefoot.engine.transformers import TransformersEngine
from surefoot.models import ActorCritic
from surefoot.types import Engine, Prompt


def make_engine(
    c: PPOConfig,
    models: ActorCritic,
    tokenizer: Any,
    eos_ids: Iterable[int],
    *,
    context: int | None,
    prompts: Sequence[Prompt],
    evaluated: int,
) -> Engine:
    """An engine for the policy of `models`, in the arithmetic in which it is trained.

    Args:
        c: the options.
        models: whose policy answers.
        tokenizer: the policy's.
        eos_ids: ids that end an answer.
        context: longest row that the models take.
        prompts: those that are known.
        evaluated: how many of them an evaluation answers.

    Raises:
        ValueError: vLLM is asked for and not there.
    """
    if c.engine == "transformers":
        return TransformersEngine(models.policy, tokenizer, eos_ids, autocast=models.sampling)
    from surefoot.engine.vllm import VLLMEngine

    return VLLMEngine(
        models.policy,
        tokenizer,
        eos_ids,
        autocast=models.sampling,
        bfloat16=models.bfloat16,
        python=c.vllm_python,
        context=context,
        rows=max(c.batch_size, evaluated),
        longest=max((len(p.token_ids) for p in prompts), default=0) + c.max_new_tokens,
    )
