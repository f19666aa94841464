"""Rollout + scores -> Experience: KL-priced token rewards, advantages and returns."""

import torch
from jaxtyping import Float
from torch import Tensor

from surefoot.ops.gae import gae, length_adaptive_lam
from surefoot.ops.importance import importance_ratios, importance_weights
from surefoot.ops.kl import token_rewards
from surefoot.ops.masking import masked_scale, masked_whiten
from surefoot.phases import ESTIMATES, stage
from surefoot.types import AllSum, Experience, Rollout


@stage(ESTIMATES)
def estimate(
    rollout: Rollout,
    scores: Float[Tensor, " B"] | Float[Tensor, "B R"],
    *,
    kl_coef: float,
    gamma: float = 1.0,
    lam: float = 0.95,
    lam_critic: float | None = None,
    lam_length_alpha: float | None = None,
    bootstrap_truncated: bool = False,
    whiten_rewards: bool = False,
    whiten_advantages: bool = True,
    importance_cap: float | None = None,
    importance_level: str = "token",
    all_sum: AllSum = lambda x: x,
) -> Experience:
    """What each token was worth.

    Args:
        rollout: queries, responses and what the frozen models say about them.
        scores: one number a response, placed on its last counted token; or one number a token.
        kl_coef: price of a nat; 0 where the divergence is priced in the loss instead.
        gamma: discount per token.
        lam: GAE's lambda for the policy's advantages, unless `lam_length_alpha` makes it follow the length.
        lam_critic: lambda of the critic's targets; None: the policy's.
        lam_length_alpha: alpha of the length-adaptive lambda.
        bootstrap_truncated: continue cut-off responses with the critic's value of their last state.
        whiten_rewards: scale token rewards to variance 1 before estimating.
        whiten_advantages: shift and scale advantages to mean 0 and variance 1 over all counted tokens.
        importance_cap: what a token may count at most for being likelier under the policy than under its sampler;
            None: every token counts 1.
        importance_level: token, or sequence: the likelihood of the whole response.
        all_sum: sums a tensor over all processes, so that whitening is global.
    """
    mask = rollout.response_mask
    if scores.ndim == 1:
        rewards = token_rewards(scores, rollout.kl, mask, kl_coef)
    else:
        rewards = torch.where(mask, scores - kl_coef * rollout.kl, 0)
    if whiten_rewards:
        rewards = masked_scale(rewards, mask, all_sum)

    last_values = (
        rollout.last_values * rollout.truncated if bootstrap_truncated else torch.zeros_like(rollout.last_values)
    )
    policy_lam = lam if lam_length_alpha is None else length_adaptive_lam(mask.sum(-1), lam_length_alpha)
    values = rollout.old_values
    advantages, returns = gae(rewards, values, mask, gamma, policy_lam, last_values)
    if lam_critic is not None:
        _, returns = gae(rewards, values, mask, gamma, lam_critic, last_values)
    if whiten_advantages:
        advantages = masked_whiten(advantages, mask, all_sum)
    ratios = importance_ratios(rollout.old_logprobs, rollout.sampler_logprobs, mask, importance_level)
    return Experience(
        rollout=rollout,
        rewards=rewards,
        advantages=advantages,
        returns=torch.where(mask, returns, 0),
        ratios=ratios,
        weights=importance_weights(ratios, importance_cap),
    )
