"""Divergence from the reference, and the token rewards it is priced into.

Legend: `B` responses, `R` response length, `V` vocabulary; d = logprobs - ref_logprobs on the policy's own tokens.
Source of k1, k2, k3: Schulman, "Approximating KL divergence" (2020).
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def kl_estimate(
    logprobs: Float[Tensor, "*N"], ref_logprobs: Float[Tensor, "*N"], estimator: str = "k1"
) -> Float[Tensor, "*N"]:
    """One estimate of KL(policy || reference) for each token, in nats.

    k1 (classic name: kl) = d, unbiased, may be negative. k2 (mse) = d^2 / 2, biased, right gradient as a loss.
    k3 = exp(-d) - 1 + d, unbiased, never negative, wrong gradient as a loss or a reward. abs = |d|.
    """
    d = logprobs - ref_logprobs
    if estimator in ("k1", "kl"):
        return d
    if estimator in ("k2", "mse"):
        return 0.5 * d.square()
    if estimator == "k3":
        return torch.expm1(-d) + d
    if estimator == "abs":
        return d.abs()
    raise ValueError(f"estimator={estimator!r} must be one of k1 (kl), k2 (mse), k3, abs; full_kl needs the logits")


def full_kl(
    logits: Float[Tensor, "*N V"], ref_logits: Float[Tensor, "*N V"], temperature: float = 1.0
) -> Float[Tensor, "*N"]:
    """KL(policy || reference) exactly, summed over the vocabulary, of the tempered distributions, in nats."""
    policy = (logits.float() / temperature).log_softmax(-1)
    reference = (ref_logits.float() / temperature).log_softmax(-1)
    probabilities = policy.exp()
    return (probabilities * torch.where(probabilities > 0, policy - reference, 0)).sum(-1)


def token_rewards(
    scores: Float[Tensor, " B"], kl: Float[Tensor, "B R"], mask: Bool[Tensor, "B R"], kl_coef: float
) -> Float[Tensor, "B R"]:
    """r[t] = -kl_coef * kl[t], plus the score on the last counted token of each response; 0 where masked.

    A response without a counted token gets no reward.
    """
    rewards = torch.where(mask, -kl_coef * kl, 0)
    positions = torch.arange(mask.shape[1], device=mask.device)
    last = torch.where(mask, positions, -1).amax(-1, keepdim=True)
    return rewards + torch.where(positions == last, scores[:, None], 0)
