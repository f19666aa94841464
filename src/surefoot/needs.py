"""Options and models in shapes -> what a run needs of the memory, and how many tokens its passes may have."""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from surefoot.config import PPOConfig
from surefoot.memory import (
    BFLOAT16,
    FLOAT32,
    HOLES,
    MARGIN,
    Model,
    Need,
    Output,
    Pass,
    Sampler,
    Work,
    moments_of,
    peak,
)
from surefoot.models import ActorCritic, ValueModel, states_per_piece
from surefoot.networks import base_of, hidden_size_of
from surefoot.rehearsal import Skeleton, shapes_of
from surefoot.rollout import SCORING_TOKENS, scoring_tokens
from surefoot.runtime import Runtime, free_memory_bytes
from surefoot.setup import use_bfloat16
from surefoot.types import Prompt

REWARD_TOKENS = 16384  # what a reward model's pass takes at most
LEAST_TOKENS = 512
MOST_TOKENS = {"cpu": 8192, "cuda": 32768}


@dataclass(frozen=True, slots=True)
class Shapes:
    """The models of a run on the meta device.

    Attributes:
        policy: with its adapter, if it has one.
        critic: the trunk of a critic of its own, else None.
        reference: None where it is the policy without its adapter. reference_adapter: the policy with a frozen copy.
        rewards: name, model and type of the weights of each reward model. Weights that take no gradients are not its
            own: they are the policy's.
    """

    policy: nn.Module
    critic: nn.Module | None = None
    reference: nn.Module | None = None
    reference_adapter: bool = False
    rewards: Sequence[tuple[str, nn.Module, torch.dtype]] = ()


def shapes_of_models(models: ActorCritic) -> Shapes:
    """The shapes of models that are there."""
    policy: Any = models.policy
    adapter = policy.peft_config[policy.active_adapter] if hasattr(policy, "peft_config") else None
    other = models.reference.model is not policy
    return Shapes(
        policy=shapes_of(policy, adapter),
        critic=shapes_of(models.critic.trunk) if isinstance(models.critic, ValueModel) else None,
        reference=shapes_of(models.reference.model) if other else None,
    )


def need_of(
    c: PPOConfig,
    shapes: Shapes,
    work: Work,
    *,
    device: torch.device,
    bfloat16: bool,
    base: int = 0,
    processes: int = 1,
) -> Need:
    """What a run with these options takes on one of `processes`, with every pass rehearsed once."""
    row = work.row_tokens
    skeleton = Skeleton(shapes.policy, device)
    passes = skeleton.pass_(row, bfloat16=bfloat16, gradient_checkpointing=c.gradient_checkpointing)
    policy = _trained("policy", skeleton, passes, c)
    cache, layers = skeleton.cache_per_token(bfloat16=bfloat16)
    return Need(
        policy=policy,
        critic=_critic(c, shapes, skeleton, policy, bfloat16, row),
        reference=_reference(shapes, skeleton, passes, bfloat16, row, device),
        output=_output(c, skeleton, bfloat16),
        sampler=Sampler(
            weights=(BFLOAT16 if bfloat16 else FLOAT32) * skeleton.linear if device.type == "cpu" or bfloat16 else 0,
            cache_per_token=cache,
            layers=layers,
        ),
        work=work,
        rewards=[_reward(name, model, dtype, device, row) for name, model, dtype in shapes.rewards],
        base=base,
        holes=HOLES if device.type == "cpu" else 0,
        offload=c.offload_frozen,
        shares=processes if c.shard else 1,
    )


def work_of(
    c: PPOConfig,
    queries: Sequence[int],
    max_tokens: int | None,
    *,
    padded: bool,
    processes: int = 1,
    scoring: int = SCORING_TOKENS,
) -> Work:
    """The arithmetic of a step on one of `processes`, whose answers are as long as they may be.

    Args:
        c: the options.
        queries: tokens of the prompts that there are.
        max_tokens: of one pass; None: mini_batch_size rows, whatever their length.
        padded: rows lie in a rectangle, else end to end.
        processes: that share a step.
        scoring: tokens of one pass without a graph.
    """
    longest = sorted(queries, reverse=True) or [1]
    row = longest[0] + c.max_new_tokens
    rows = math.ceil(c.batch_size / processes)
    together = math.ceil(c.rows_per_optimizer_step / processes)
    most = min(together, c.mini_batch_size) if max_tokens is None else min(together, max(1, max_tokens // row))
    repeated = [q for q in longest for _ in range(c.num_generations)]
    lengths = (repeated * math.ceil(most / len(repeated)))[:most]
    tokens = most * row if padded or max_tokens is not None else sum(lengths) + most * c.max_new_tokens
    passes = math.ceil(together / most)
    others = rows - (most if passes == 1 else 0)
    return Work(
        rows=max(rows, math.ceil(c.eval_prompts / processes)),
        row_tokens=row,
        answer_tokens=c.max_new_tokens,
        pass_rows=most,
        pass_tokens=tokens,
        passes=passes,
        scoring_tokens=min(max(row, scoring // row * row), max(others, c.eval_prompts) * row),
        reward_tokens=min(max(row, REWARD_TOKENS), rows * row),
    )


# ---------------------------------------------------------------------------------------------- "auto"
def tokens_of_a_pass(
    c: PPOConfig, need: Need, queries: Sequence[int], free: int, device: torch.device, processes: int = 1
) -> int:
    """The most tokens of a pass that fit, a power of two: what max_tokens_per_microbatch="auto" stands for.

    `MOST_TOKENS` bounds it: what scoring passes take on a CPU, and a choice on a GPU, where no more was needed yet.

    Args:
        c: the options.
        need: what a run with them takes.
        queries: tokens of the prompts that there are.
        free: bytes that there are for all that `need` counts.
        device: where the run is.
        processes: that share a step.
    """

    def taken(tokens: int) -> int:
        work = _work_on(device, c, queries, tokens, processes)
        return peak(dataclasses.replace(need, work=work)).total

    room = max((1 - MARGIN) * free, taken(LEAST_TOKENS))  # where another stage takes more, small passes spare nothing
    tokens = MOST_TOKENS.get(device.type, MOST_TOKENS["cuda"])
    while tokens > LEAST_TOKENS and taken(tokens) > room:
        tokens //= 2
    return tokens


def tokens_that_fit(c: PPOConfig, models: ActorCritic, prompts: Sequence[Prompt], runtime: Runtime) -> int:
    """The same on this machine, now, for all processes."""
    device = models.device
    sharing = runtime.world_size if device.type == "cpu" else 1
    found = tokens_for_models(
        c,
        models,
        [len(p.token_ids) for p in prompts],
        free_memory_bytes(device) // sharing,
        bfloat16=use_bfloat16(c.precision, device),
        processes=runtime.world_size,
    )
    return -runtime.all_max(-found)


def tokens_for_models(
    c: PPOConfig, models: ActorCritic, queries: Sequence[int], free: int, *, bfloat16: bool, processes: int = 1
) -> int:
    """The same for models that are there, beside which `free` bytes are."""
    work = _work_on(models.device, c, queries, LEAST_TOKENS, processes)
    shapes = shapes_of_models(models)
    need = need_of(c, shapes, work, device=models.device, bfloat16=bfloat16, processes=processes)
    there = sum(m.weights for m in need.models) // need.shares
    return tokens_of_a_pass(c, need, queries, free + there, models.device, processes)


def _work_on(device: torch.device, c: PPOConfig, queries: Sequence[int], tokens: int, processes: int) -> Work:
    padded, scoring = device.type != "cpu", scoring_tokens(device)
    return work_of(c, queries, tokens, padded=padded, processes=processes, scoring=scoring)


# ---------------------------------------------------------------------------------------------- models
def _trained(name: str, skeleton: Skeleton, passes: Pass, c: PPOConfig) -> Model:
    trained = skeleton.trained
    return Model(
        name,
        weights=FLOAT32 * skeleton.parameters,
        gradients=FLOAT32 * sum(trained),
        moments=moments_of(trained, eight_bits=c.eight_bit_adam),
        pass_=passes,
        width=FLOAT32 * hidden_size_of(base_of(skeleton.model)),
        lent=FLOAT32 * skeleton.lent,
    )


def _critic(c: PPOConfig, shapes: Shapes, policy: Skeleton, like: Model, bfloat16: bool, row: int) -> Model:
    head = [hidden_size_of(base_of(policy.model)), 1]
    if c.critic == "model":
        assert shapes.critic is not None
        own = Skeleton(shapes.critic.requires_grad_(True), policy.device)
        passes = own.pass_(row, bfloat16=bfloat16, gradient_checkpointing=c.gradient_checkpointing)
        return _trained("critic", own, passes, c)
    trained = head + (policy.trained if c.critic == "adapter" else [])
    return Model(
        f"critic ({c.critic})",
        weights=FLOAT32 * sum(trained),
        gradients=FLOAT32 * sum(trained),
        moments=moments_of(trained, eight_bits=c.eight_bit_adam),
        pass_=like.pass_ if c.critic == "adapter" else Pass(),
        width=like.width if c.critic == "adapter" else 0,
        lent=FLOAT32 * sum(trained),
    )


def _reference(
    shapes: Shapes, policy: Skeleton, passes: Pass, bfloat16: bool, row: int, device: torch.device
) -> Model:
    if shapes.reference is None:
        copied = FLOAT32 * sum(policy.trained) if shapes.reference_adapter else 0
        return Model("reference (shares the base)", copied, pass_=Pass(forward=passes.forward))
    own = Skeleton(shapes.reference.requires_grad_(False), device)
    weights = own.held_in_bfloat16() if bfloat16 else FLOAT32 * own.parameters
    lent = weights * own.lent // own.parameters
    return Model("reference", weights, pass_=own.pass_(row, bfloat16=bfloat16), lent=lent)


def _reward(name: str, model: nn.Module, dtype: torch.dtype, device: torch.device, row: int) -> Model:
    own = sum(p.numel() for p in model.parameters() if p.requires_grad)
    skeleton = Skeleton(model.requires_grad_(False), device, dtype)
    return Model(name, dtype.itemsize * own, pass_=skeleton.pass_(row, bfloat16=False))


def _output(c: PPOConfig, policy: Skeleton, bfloat16: bool) -> Output:
    matrix = policy.output
    return Output(
        vocabulary=matrix.shape[0],
        states_per_piece=states_per_piece(matrix.shape[0], policy.device),
        gradient=FLOAT32 * matrix.numel() if matrix.requires_grad else 0,
        rounded=BFLOAT16 * matrix.numel() if bfloat16 else 0,
        whole_kl=c.kl_penalty == "full",
    )
