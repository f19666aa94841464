"""Ragged batches for property tests: lengths from 0 to R, holes inside the mask, rows in which nothing counts."""

import math
from typing import NamedTuple

import torch
from hypothesis import strategies as st
from torch import Tensor

POISONS = (math.nan, math.inf, -math.inf, 1e30)
"""What may stand in the padding without changing anything."""


class Ragged(NamedTuple):
    """`columns`: float tensors [B, R]; `mask` [B, R]; `ids` [B, R] in 0..tokens-1; `scores` and `last` [B]."""

    columns: tuple[Tensor, ...]
    mask: Tensor
    ids: Tensor
    scores: Tensor
    last: Tensor


@st.composite
def ragged(draw: st.DrawFn, columns: int, tokens: int = 8) -> Ragged:
    """Batches of 1 to 4 rows and 1 to 6 columns. Numbers come from a drawn seed: shapes shrink, numbers need not."""
    rows, width = draw(st.integers(1, 4)), draw(st.integers(1, 6))
    lengths = torch.tensor(draw(st.lists(st.integers(0, width), min_size=rows, max_size=rows)))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    mask = torch.arange(width) < lengths[:, None]
    if draw(st.booleans()):  # tool output: tokens inside a response that do not count
        mask &= torch.rand(rows, width, generator=generator) < 0.7
    return Ragged(
        columns=tuple(torch.randn(rows, width, generator=generator) for _ in range(columns)),
        mask=mask,
        ids=torch.randint(0, tokens, (rows, width), generator=generator),
        scores=torch.randn(rows, generator=generator),
        last=torch.randn(rows, generator=generator),
    )
