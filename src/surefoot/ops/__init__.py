"""The mathematics of PPO for language models: pure functions of tensors and numbers."""

from surefoot.ops.batching import microbatches
from surefoot.ops.gae import gae, length_adaptive_lam
from surefoot.ops.importance import effective_share, importance_ratios, importance_weights
from surefoot.ops.kl import full_kl, kl_estimate, token_rewards
from surefoot.ops.logprobs import entropy, logprobs_and_entropies, token_logprobs
from surefoot.ops.loss import policy_loss, value_loss
from surefoot.ops.masking import eos_mask, length_mask, masked_mean, masked_moments, masked_scale, masked_whiten
from surefoot.ops.seeds import derive_seed

__all__ = [
    "derive_seed",
    "effective_share",
    "entropy",
    "eos_mask",
    "full_kl",
    "gae",
    "importance_ratios",
    "importance_weights",
    "kl_estimate",
    "length_adaptive_lam",
    "length_mask",
    "logprobs_and_entropies",
    "masked_mean",
    "masked_moments",
    "masked_scale",
    "masked_whiten",
    "microbatches",
    "policy_loss",
    "token_logprobs",
    "token_rewards",
    "value_loss",
]
