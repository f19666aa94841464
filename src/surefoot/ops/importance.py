"""What an answer counts whose sampler was not quite the policy that learns: truncated importance sampling.

Legend: `B` responses, `R` response length. An engine of its own rounds in other places than the training pass, or runs
on weights that are a step old; pi / mu, policy over sampler, undoes either, and a cap bounds what a rare token may
count (Ionides 2008; Yao et al. 2025, "Your efficient RL framework secretly brings you off-policy RL training").
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from surefoot.ops.masking import masked_moments
from surefoot.types import AllSum

_LARGEST_LOG_RATIO = 20.0  # beyond, the exponential would overflow in sums of squares


def importance_ratios(
    logprobs: Float[Tensor, "B R"],
    sampler_logprobs: Float[Tensor, "B R"],
    mask: Bool[Tensor, "B R"],
    level: str = "token",
) -> Float[Tensor, "B R"]:
    """pi / mu of each token, or on all tokens of a response that of the whole ("sequence"); 0 where masked."""
    log_ratio = torch.where(mask, logprobs - sampler_logprobs, 0)
    if level == "sequence":
        log_ratio = log_ratio.sum(-1, keepdim=True).expand_as(log_ratio)
    elif level != "token":
        raise ValueError(f"level={level!r} must be token or sequence")
    return torch.where(mask, log_ratio.clamp(-_LARGEST_LOG_RATIO, _LARGEST_LOG_RATIO).exp(), 0)


def importance_weights(ratios: Float[Tensor, "B R"], cap: float | None) -> Float[Tensor, "B R"]:
    """min(pi / mu, cap), by which a token's policy loss is multiplied; None: every token counts 1."""
    return torch.ones_like(ratios) if cap is None else ratios.clamp(max=cap)


def effective_share(
    ratios: Float[Tensor, "B R"], mask: Bool[Tensor, "B R"], all_sum: AllSum = lambda x: x
) -> Float[Tensor, ""]:
    """(sum w)^2 / (n sum w^2) over the mask: the share of the sample that its weights leave (Kish 1965); 1 when even.

    0 where nothing counts.
    """
    first = masked_moments(ratios, mask, all_sum).mean
    second = masked_moments(ratios.square(), mask, all_sum).mean
    return torch.where(second > 0, first.square() / second.clamp(min=torch.finfo(ratios.dtype).tiny), 0)
