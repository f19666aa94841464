"""Generalised advantage estimation over the trainable tokens of each response (Schulman et al. 2016).

Legend: `B` responses, `R` response length.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def gae(
    rewards: Float[Tensor, "B R"],
    values: Float[Tensor, "B R"],
    mask: Bool[Tensor, "B R"],
    gamma: float = 1.0,
    lam: float | Float[Tensor, " B"] = 0.95,
    last_values: Float[Tensor, " B"] | None = None,
) -> tuple[Float[Tensor, "B R"], Float[Tensor, "B R"]]:
    """Advantages and returns, raw (not whitened), 0 where masked.

        delta[t] = r[t] + gamma V[t+1] - V[t];  A[t] = delta[t] + gamma lam A[t+1];  returns = A + V

    t+1 is the next *counted* token: masked ones (padding, tool output) are skipped over. After the last counted token
    the value is `last_values`, or 0 where there is none. `lam` may differ from response to response.
    """
    rewards, values = torch.where(mask, rewards, 0), torch.where(mask, values, 0)
    next_value = torch.zeros_like(values[:, 0]) if last_values is None else last_values
    next_advantage = torch.zeros_like(next_value)
    advantages = torch.zeros_like(values)
    for t in reversed(range(mask.shape[1])):
        counted = mask[:, t]
        delta = rewards[:, t] + gamma * next_value - values[:, t]
        advantages[:, t] = torch.where(counted, delta + gamma * lam * next_advantage, 0)
        next_advantage = torch.where(counted, advantages[:, t], next_advantage)
        next_value = torch.where(counted, values[:, t], next_value)
    return advantages, advantages + values


def length_adaptive_lam(lengths: Int[Tensor, " B"], alpha: float) -> Float[Tensor, " B"]:
    """lambda = 1 - 1 / (alpha * length), held within [0, 1]: longer answers carry their score further (VAPO, 2025)."""
    return (1 - 1 / (alpha * lengths.clamp(min=1))).clamp(0, 1)
