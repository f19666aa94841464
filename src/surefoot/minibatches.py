"""Which rows make a minibatch, the same on every process, and what an update is given of those of one pass."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from surefoot.ops.batching import microbatches
from surefoot.rows import Rows
from surefoot.runtime import Runtime


@dataclass(frozen=True, slots=True)
class Passes:
    """How an update goes through its batch.

    Attributes:
        rows_per_step: responses of one optimizer step, over all processes.
        max_rows, max_tokens: bounds on a single forward and backward pass.
        critic_only: leave the policy as it is (critic warm-up).
        early_stop_kl, ratio_threshold, max_grad_norm: limits; None switches one off.
    """

    epochs: int
    rows_per_step: int
    critic_epochs: int = 1
    max_rows: int | None = None
    max_tokens: int | None = None
    critic_only: bool = False
    early_stop_kl: float | None = None
    ratio_threshold: float | None = None
    max_grad_norm: float | None = None


class Tokens(NamedTuple):
    """What an update needs to know about each response token of a pass, row by row."""

    ids: Tensor
    mask: Tensor
    old_logprobs: Tensor
    ref_logprobs: Tensor
    old_values: Tensor
    advantages: Tensor
    returns: Tensor
    weights: Tensor

    def at(self, piece: slice) -> "Tokens":
        """Those of a piece."""
        return Tokens(*(column[piece] for column in self))


class Part(NamedTuple):
    """The rows of one pass; `states` are the policy's where they are known already.

    Nothing is learned in an `idle` pass, which is made for the sake of other processes.
    """

    rows: Rows
    tokens: Tokens
    states: Tensor | None = None
    idle: bool = False


def first_minibatch(totals: Sequence[int], passes: Passes, *, seed: int, runtime: Runtime) -> list[int]:
    """The rows that `update` begins with, where they fit into a single pass of the policy; else none.

    `totals` are the tokens of each row of this process.
    """
    offset, total = runtime.offset(len(totals))
    rows = local_rows(next(orders_of_rows(total, seed))[: passes.rows_per_step], offset, len(totals))
    cut = microbatches([totals[i] for i in rows], max_rows=passes.max_rows, max_tokens=passes.max_tokens)
    return rows if len(cut) == 1 and not passes.critic_only else []


def orders_of_rows(total: int, seed: int) -> Iterator[list[int]]:
    """The order of the rows of all processes in one epoch after another."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield torch.randperm(total, generator=generator).tolist()


def local_rows(rows: Sequence[int], offset: int, count: int) -> list[int]:
    """Which of some rows of all processes are this process's, numbered from its first."""
    return [i - offset for i in rows if offset <= i < offset + count]
