"""Attention of short rows in bfloat16 on a CPU: as PyTorch has it on the way there, by plain products on the way back.

The kernel that PyTorch has for the way back takes ten times as long as the one for the way there where rows have a
hundred tokens (`python -m benchmarks.attention`): a seventh of a step. Five products and a softmax give the same
gradients.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional
from torch.overrides import TorchFunctionMode

LONGEST = 256
"""Tokens of the longest rows that gain by it."""
_AT_ONCE = 2**22
"""Weights of attention that are made at once: 16 MiB in float32."""


class QuickAttention(TorchFunctionMode):
    """While active, attention of short rows in bfloat16 on a CPU, where it learns, finds gradients the quicker way."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Called by PyTorch in place of each of its functions."""
        kwargs = kwargs or {}
        if function is functional.scaled_dot_product_attention and _gains(*args, **kwargs):
            return short_attention(*args, **kwargs)
        return function(*args, **kwargs)


def short_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """What `scaled_dot_product_attention` gives in bfloat16, with the same arguments, all but dropout.

    Args:
        query: [B, heads, T, width].
        key: [B, heads, S, width]; with `enable_gqa` of fewer heads, each of which several of the query's share.
        value: like the keys.
        attn_mask: [B or 1, heads or 1, T, S]: true where a token is seen, or what is added to the scores.
        dropout_p: 0.
        is_causal: whether token t sees those up to t alone.
        scale: what scores are multiplied by; width ** -0.5 where it is not given.
        enable_gqa: see `key`.

    Raises:
        ValueError: there is to be dropout.
    """
    if dropout_p:
        raise ValueError(f"dropout_p={dropout_p}: short_attention() drops nothing")
    if enable_gqa:
        groups = query.shape[1] // key.shape[1]
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    half = (x.to(torch.bfloat16) for x in (query, key, value))
    attended: Tensor = _ShortAttention.apply(*half, attn_mask, is_causal, scale)
    return attended


def _gains(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0, **_: Any
) -> bool:
    learns = torch.is_grad_enabled() and (query.requires_grad or key.requires_grad or value.requires_grad)
    if (
        not learns
        or dropout_p
        or query.device.type != "cpu"
        or query.ndim != 4
        or max(query.shape[2], key.shape[2]) > LONGEST
    ):
        return False
    plain_mask = attn_mask is None or (attn_mask.ndim == 4 and not attn_mask.requires_grad)
    autocast = torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16
    return plain_mask and (autocast or all(x.dtype == torch.bfloat16 for x in (query, key, value)))


class _ShortAttention(torch.autograd.Function):
    """P = softmax(s Q K' + mask), Y = P V; the scores and P in float32, all other products of bfloat16 numbers."""

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, causal: bool, scale: float
    ) -> Tensor:
        ctx.save_for_backward(query, key, value, mask)
        ctx.causal, ctx.scale = causal, scale
        return functional.scaled_dot_product_attention(query, key, value, mask, is_causal=causal, scale=scale)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, mask = ctx.saved_tensors
        count, at_once = len(query), max(1, _AT_ONCE // (query.shape[1] * query.shape[2] * key.shape[2]))
        found = []
        with torch.autocast("cpu", enabled=False):
            for rows in (slice(first, first + at_once) for first in range(0, count, at_once)):
                seen = None if mask is None else mask.expand(count, -1, -1, -1)[rows]
                weights = _weights(query[rows], key[rows], seen, ctx.causal, ctx.scale)
                found.append(_gradients(query[rows], key[rows], value[rows], d[rows], weights, ctx.scale))
        return *(torch.cat(gradients) for gradients in zip(*found, strict=True)), None, None, None


def _gradients(
    query: Tensor, key: Tensor, value: Tensor, d: Tensor, weights: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """dV = P' dY; dP = dY V'; dS = s P (dP - rowsum(P dP)); dQ = dS K; dK = dS' Q."""
    of_weights = (d @ value.mT).float()
    of_scores = torch.ops.aten._softmax_backward_data(of_weights, weights, -1, torch.float32).mul_(scale).to(d.dtype)
    return of_scores @ key, of_scores.mT @ query, weights.to(d.dtype).mT @ d


def _weights(query: Tensor, key: Tensor, mask: Tensor | None, causal: bool, scale: float) -> Tensor:
    """P in float32; nothing but 0 in the line of a token that sees none."""
    scores = (query.float() @ key.float().mT).mul_(scale)
    if causal:
        scores.add_(torch.full(scores.shape[-2:], -torch.inf, device=scores.device).triu_(1))
    if mask is None:
        return torch.softmax(scores, -1)
    if mask.dtype != torch.bool:
        return torch.softmax(scores.add_(mask), -1)
    hidden = ~mask
    return torch.softmax(scores.masked_fill_(hidden, torch.finfo(torch.float32).min), -1).masked_fill_(hidden, 0.0)
