"""Attention over rows that lie end to end: each row attends to itself alone, and no padding is multiplied.

A causal language model of transformers looks its attention up by name. Within `packed_attention` the name leads here;
the lengths of the rows come along as the keyword `row_lengths`, through the model's own forward pass.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

_NAME = "surefoot_packed"
_UNKNOWN = ("position_bias", "softcap", "s_aux")


@contextmanager
def packed_attention(trunk: Any) -> Iterator[None]:
    """While active, `trunk` takes rows laid end to end, with their lengths as `row_lengths`."""
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(_NAME, attend_within_rows)
    AttentionMaskInterface.register(_NAME, _mask_of_padding)
    before = trunk.config._attn_implementation
    trunk.config._attn_implementation = _NAME
    try:
        yield
    finally:
        trunk.config._attn_implementation = before


def attend_within_rows(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    row_lengths: Sequence[int] | None = None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Causal attention of each row to itself; [1, heads, T, width] -> [1, T, heads, width].

    Without `row_lengths` it is the attention of a plain pass.

    Raises:
        ValueError: an option of attention that is not known here and would change the result.
    """
    if row_lengths is None:
        return _plainly(module, query, key, value, attention_mask, scaling, sliding_window, options)
    unknown = [name for name in _UNKNOWN if options.get(name) is not None]
    if unknown or options.get("is_causal") is False:
        raise ValueError(f"rows cannot lie end to end under attention with {', '.join(unknown) or 'no causal mask'}")
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    if query.is_cuda:
        return _attend_in_one_kernel(query, key, value, tuple(row_lengths), scaling, sliding_window), None
    lengths = list(row_lengths)
    rows = [
        _attend(q, k, v, scaling, sliding_window)
        for q, k, v in zip(query.split(lengths, 2), key.split(lengths, 2), value.split(lengths, 2), strict=True)
    ]
    return torch.cat(rows, 2).transpose(1, 2), None


def _attend(query: Tensor, key: Tensor, value: Tensor, scaling: float | None, window: int | None) -> Tensor:
    length = query.shape[2]
    if window is None or length <= window:
        return scaled_dot_product_attention(query, key, value, is_causal=True, scale=scaling)
    steps = torch.arange(length, device=query.device)
    distance = steps[:, None] - steps
    near = (distance >= 0) & (distance < window)
    return scaled_dot_product_attention(query, key, value, attn_mask=near, scale=scaling)


def _attend_in_one_kernel(
    query: Tensor, key: Tensor, value: Tensor, lengths: tuple[int, ...], scaling: float | None, window: int | None
) -> Tensor:
    """The same for all rows at once, by the FlashAttention that PyTorch carries for GPUs; half precision only."""
    from torch.nn.attention.varlen import varlen_attn

    bounds, longest = _bounds(lengths, query.device), max(lengths)
    half = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else query.dtype
    q, k, v = (x.squeeze(0).transpose(0, 1).to(half) for x in (query, key, value))
    near = (-1 if window is None else window - 1, 0)
    attended = varlen_attn(q, k, v, bounds, bounds, longest, longest, window_size=near, scale=scaling)
    assert isinstance(attended, Tensor)
    return attended[None]


@lru_cache(maxsize=4)
def _bounds(lengths: tuple[int, ...], device: torch.device) -> Tensor:
    """Where rows begin and end; kept, since every layer of a pass asks for it."""
    return torch.tensor([0, *lengths], device=device).cumsum(0, dtype=torch.int32)


def _plainly(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    scaling: float | None,
    window: int | None,
    options: dict[str, Any],
) -> tuple[Tensor, None]:
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    options = {**options, "scaling": scaling, "sliding_window": window}
    output: tuple[Tensor, None] = sdpa_attention_forward(module, query, key, value, mask, **options)
    return output


def _mask_of_padding(*, attention_mask: Tensor | None = None, **options: Any) -> Any:
    """The usual mask for rows in a rectangle; rows end to end come without one, their lengths say all it would."""
    from transformers.masking_utils import sdpa_mask

    return None if attention_mask is None else sdpa_mask(attention_mask=attention_mask, **options)
