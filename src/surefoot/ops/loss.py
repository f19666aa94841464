"""The clipped losses of PPO (Schulman et al. 2017), as sums over tokens, with what is worth knowing about them.

Sums, not means: the caller divides by the counted tokens of the whole optimizer step, over all micro-batches and
processes, so that how a batch is cut never changes its gradient. Legend: `*shape` any shape, the same for all.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor


class PolicyDiagnostics(NamedTuple):
    """Sums over counted tokens, detached: divergence of new from old policy, share clipped, ratio."""

    kl_k1: Tensor
    kl_k2: Tensor
    kl_k3: Tensor
    clipped: Tensor
    ratio: Tensor


class ValueDiagnostics(NamedTuple):
    """Sums over counted tokens, detached: clipped tokens, squared unclipped error, predicted values."""

    clipped: Tensor
    squared_error: Tensor
    values: Tensor


def policy_loss(
    logprobs: Float[Tensor, "*shape"],
    old_logprobs: Float[Tensor, "*shape"],
    advantages: Float[Tensor, "*shape"],
    mask: Bool[Tensor, "*shape"],
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    dual_clip: float | None = None,
    weights: Float[Tensor, "*shape"] | None = None,
) -> tuple[Float[Tensor, ""], PolicyDiagnostics]:
    """Sum over tokens of max(-A rho, -A clip(rho, 1 - clip_low, 1 + clip_high)), rho = exp(logprobs - old_logprobs).

    The log-ratio is held within 20, where exp would overflow and a gradient of 0 times infinity would be NaN.
    With `dual_clip` = c the loss of tokens with negative advantage is at most -A c, which also stops their gradient
    beyond it (Ye et al. 2020). `weights` multiply each token's loss (`importance_weights`).
    """
    log_ratio = torch.where(mask, logprobs - old_logprobs, 0).clamp(-20, 20)
    advantages = torch.where(mask, advantages, 0)
    ratio = log_ratio.exp()
    plain = -advantages * ratio
    limited = -advantages * ratio.clamp(1 - clip_low, 1 + clip_high)
    loss = torch.maximum(plain, limited)
    clipped = limited > plain
    if dual_clip is not None:
        ceiling = -advantages * dual_clip
        clipped = clipped | ((advantages < 0) & (loss > ceiling))
        loss = torch.where(advantages < 0, torch.minimum(loss, ceiling), loss)
    if weights is not None:
        loss = loss * torch.where(mask, weights, 0)
    d = log_ratio.detach()
    return torch.where(mask, loss, 0).sum(), PolicyDiagnostics(
        kl_k1=-d.sum(),
        kl_k2=0.5 * d.square().sum(),
        kl_k3=torch.where(mask, torch.expm1(d) - d, 0).sum(),
        clipped=(clipped & mask).sum(),
        ratio=torch.where(mask, ratio.detach(), 0).sum(),
    )


def value_loss(
    values: Float[Tensor, "*shape"],
    old_values: Float[Tensor, "*shape"],
    returns: Float[Tensor, "*shape"],
    mask: Bool[Tensor, "*shape"],
    clip_range: float | None = 0.2,
) -> tuple[Float[Tensor, ""], ValueDiagnostics]:
    """Sum over tokens of 0.5 max((V - G)^2, (clip(V, V_old - c, V_old + c) - G)^2); None for c: no clipping.

    The larger of the two errors counts: clipping may only make the critic more careful.
    """
    values, old_values, returns = (torch.where(mask, x, 0) for x in (values, old_values, returns))
    plain = (values - returns).square()
    if clip_range is None:
        limited = plain
    else:
        limited = (values.clamp(old_values - clip_range, old_values + clip_range) - returns).square()
    return 0.5 * torch.maximum(plain, limited).sum(), ValueDiagnostics(
        clipped=(limited > plain).sum(), squared_error=plain.detach().sum(), values=values.detach().sum()
    )
