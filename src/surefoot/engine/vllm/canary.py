"""The canary: what engine and policy say of the same tokens must agree before anything is drawn.

It needs to know nothing of how weights get into an engine, so it notices every way in which they do not.
"""

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from surefoot.ops.logprobs import token_logprobs

ROWS, TOKENS = 4, 64
"""Of the probe: enough tokens that rounding averages out, few enough that it costs less than a token of sampling."""

_LIMIT = {torch.float32: 1e-3, torch.bfloat16: 0.1}
_LEAST = {torch.float32: 1e-4, torch.bfloat16: 0.02}
_TIMES = 3.0


@dataclass
class Canary:
    """A fixed probe, and how far apart two right answers are.

    An engine that has just loaded a model by its ordinary way shows how far its roundings lie from the policy's; from
    then on no more than three times that is borne.

    Attributes:
        rows: the probe. dtype: the engine's numbers.
        usual: mean difference right after a start, in nats; None before any.
    """

    rows: Sequence[Sequence[int]]
    dtype: torch.dtype
    usual: float | None = None

    @property
    def limit(self) -> float:
        """The largest mean difference that counts as agreement, in nats a token."""
        if self.usual is None:
            return _LIMIT[self.dtype]
        return min(_LIMIT[self.dtype], max(_LEAST[self.dtype], _TIMES * self.usual))

    def complaint(self, ours: Sequence[Sequence[float]], theirs: Sequence[Sequence[float]]) -> str | None:
        """What is wrong, in words, where they do not agree."""
        if [len(row) for row in ours] != [len(row) for row in theirs]:
            return "it scored other tokens than it was given"
        gaps = [abs(a - b) for x, y in zip(ours, theirs, strict=True) for a, b in zip(x, y, strict=True)]
        mean = math.fsum(gaps) / len(gaps)
        if mean <= self.limit:  # so NaN is a complaint
            self.usual = mean if self.usual is None else self.usual
            return None
        return (
            f"its log-probabilities lie {mean:.2g} nats a token from the policy's (at most {max(gaps):.2g}; up to "
            f"{self.limit:.2g} is rounding): it does not have the policy's weights"
        )


def probe_of(queries: Sequence[Sequence[int]], room: int) -> list[list[int]]:
    """Rows of real tokens, the queries strung together as often as it takes."""
    length = min(TOKENS, room - 1)
    tokens = [token for query in queries for token in query]
    tokens = (tokens * math.ceil(ROWS * length / len(tokens)))[: ROWS * length]
    return [tokens[i : i + length] for i in range(0, len(tokens), length)]


@torch.no_grad()
def policy_logprobs(
    model: nn.Module, rows: Sequence[Sequence[int]], autocast: Callable[[], AbstractContextManager[Any]]
) -> list[list[float]]:
    """What the policy says of each token of the rows but the first, at temperature 1."""
    ids = torch.tensor(rows, device=next(model.parameters()).device)
    with autocast():
        logits = model(input_ids=ids, use_cache=False).logits
    found: list[list[float]] = token_logprobs(logits[:, :-1], ids[:, 1:]).tolist()
    return found
