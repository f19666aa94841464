"""Log-probabilities of sampled tokens and entropies, of the temperature-scaled distribution, in float32.

Legend: `*N` any leading shape, `V` vocabulary.
"""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

_RULED_OUT = -1e30  # log-probability of a token whose logit is -inf


def token_logprobs(
    logits: Float[Tensor, "*N V"], ids: Int[Tensor, "*N"], temperature: float = 1.0
) -> Float[Tensor, "*N"]:
    """log softmax(logits / temperature)[ids], in float32."""
    return _log_softmax(logits, temperature).gather(-1, ids.unsqueeze(-1)).squeeze(-1)


def entropy(logits: Float[Tensor, "*N V"], temperature: float = 1.0) -> Float[Tensor, "*N"]:
    """-sum p log p of p = softmax(logits / temperature), in nats and float32."""
    scaled = logits.float() / temperature
    probabilities = scaled.softmax(-1)
    return scaled.logsumexp(-1) - (probabilities * torch.where(probabilities > 0, scaled, 0)).sum(-1)


def logprobs_and_entropies(
    logits: Float[Tensor, "*N V"], ids: Int[Tensor, "*N"], temperature: float = 1.0
) -> tuple[Float[Tensor, "*N"], Float[Tensor, "*N"]]:
    """`token_logprobs` and `entropy` from one look at the logits; going backward keeps one tensor of their size."""
    logprobs, entropies = _Read.apply(logits, ids, temperature)
    return logprobs, entropies


class _Read(torch.autograd.Function):
    """With l = log softmax(z / T), p = exp l, H = entropy: dl[id]/dz = (1[id] - p) / T and dH/dz = -p (l + H) / T."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, ids: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
        log_softmax = _log_softmax(logits, temperature).clamp_(min=_RULED_OUT)  # 0 times it is 0, not NaN
        entropies = -log_softmax.exp().mul_(log_softmax).sum(-1)
        ctx.save_for_backward(log_softmax, ids, entropies)
        ctx.temperature, ctx.dtype = temperature, logits.dtype
        ctx.set_materialize_grads(False)
        return log_softmax.gather(-1, ids.unsqueeze(-1)).squeeze(-1), entropies

    @staticmethod
    def backward(ctx: Any, d_logprobs: Tensor | None, d_entropies: Tensor | None) -> tuple[Tensor | None, None, None]:
        log_softmax, ids, entropies = ctx.saved_tensors
        if d_logprobs is None:
            d_logprobs = torch.zeros_like(entropies)
        grad = log_softmax.exp()
        if d_entropies is None:
            grad.mul_(-d_logprobs.unsqueeze(-1) / ctx.temperature)
        else:
            weight = (log_softmax + entropies.unsqueeze(-1)).mul_(d_entropies.unsqueeze(-1))
            grad.mul_(weight.add_(d_logprobs.unsqueeze(-1))).div_(-ctx.temperature)
        grad.scatter_add_(-1, ids.unsqueeze(-1), d_logprobs.unsqueeze(-1) / ctx.temperature)
        return grad.to(ctx.dtype), None, None


def _log_softmax(logits: Tensor, temperature: float) -> Tensor:
    scaled = logits.float() if temperature == 1 else logits.float() / temperature
    return scaled.log_softmax(-1)
