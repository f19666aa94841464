"""Log-probabilities of sampled tokens and entropies, of the temperature-scaled distribution, in float32.

Legend: `*N` any leading shape, `V` vocabulary.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor


def token_logprobs(
    logits: Float[Tensor, "*N V"], ids: Int[Tensor, "*N"], temperature: float = 1.0
) -> Float[Tensor, "*N"]:
    """log softmax(logits / temperature)[ids], in float32, without keeping a second vocabulary-sized tensor."""
    scaled = logits.float() / temperature
    return scaled.gather(-1, ids.unsqueeze(-1)).squeeze(-1) - scaled.logsumexp(-1)


def entropy(logits: Float[Tensor, "*N V"], temperature: float = 1.0) -> Float[Tensor, "*N"]:
    """-sum p log p of p = softmax(logits / temperature), in nats and float32."""
    scaled = logits.float() / temperature
    probabilities = scaled.softmax(-1)
    return scaled.logsumexp(-1) - (probabilities * torch.where(probabilities > 0, scaled, 0)).sum(-1)
