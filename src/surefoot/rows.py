"""Rows of one pass, laid out end to end: the tokens that are there, and no padding.

Legend: `b` rows, `Q` and `R` padded query and response length, `T` tokens of all rows, `N` response tokens among them,
`S` longest row, `H` hidden width.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from surefoot.ops.masking import length_mask


@dataclass(frozen=True, slots=True)
class Rows:
    """Queries with their responses, one row after the other.

    Attributes:
        ids: the tokens; `positions`: of each within its own row, from 0.
        lengths: tokens of each row.
        response_ids: the response tokens, row by row.
        predicted_at: for each response token the place of the token before it, where it is predicted.
        ends: the place of each row's last token.
    """

    ids: Int[Tensor, " T"]
    positions: Int[Tensor, " T"]
    lengths: tuple[int, ...]
    response_ids: Int[Tensor, " N"]
    predicted_at: Int[Tensor, " N"]
    ends: Int[Tensor, " b"]

    def padded(self) -> tuple[Int[Tensor, "b S"], Bool[Tensor, "b S"]]:
        """The same tokens in a rectangle, padded on the right, and where they are."""
        mask = length_mask(torch.tensor(self.lengths, device=self.ids.device), max(self.lengths))
        return self.ids.new_zeros(mask.shape).masked_scatter(mask, self.ids), mask


class Fresh(NamedTuple):
    """A pass of the policy over some rows of a rollout, with its graph, for the first minibatch of an update."""

    group: list[int]
    rows: Rows
    states: Float[Tensor, "T H"]


def join_rows(
    query_ids: Int[Tensor, "b Q"],
    query_mask: Bool[Tensor, "b Q"],
    response_ids: Int[Tensor, "b R"],
    lengths: Int[Tensor, " b"],
) -> Rows:
    """[pad pad q q | r r r pad] -> q q r r r: each query directly followed by its response."""
    answered = length_mask(lengths, response_ids.shape[1])
    present = torch.cat([query_mask, answered], 1)
    is_response = torch.cat([torch.zeros_like(query_mask), answered], 1)[present]
    totals = present.sum(1)
    return Rows(
        ids=torch.cat([query_ids, response_ids], 1)[present],
        positions=(present.cumsum(1) - 1)[present],
        lengths=tuple(totals.tolist()),
        response_ids=response_ids[answered],
        predicted_at=is_response.nonzero().squeeze(1) - 1,
        ends=totals.cumsum(0) - 1,
    )
