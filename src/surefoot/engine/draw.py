"""One token for every row, drawn by inverting the cumulative distribution with one uniform number each.

Legend: `B` rows, `V` vocabulary.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from surefoot.types import Sampling

NOT_FINITE = (
    "the policy's next-token distribution is not finite: its weights hold NaN or infinity. Go back to the last "
    "checkpoint and lower learning_rate"
)


def uniforms(seed: int, count: int) -> list[float]:
    """The random numbers of one answer, one a token: a function of its seed and nothing else."""
    return torch.rand(count, generator=torch.Generator().manual_seed(seed)).tolist()


def draw(
    logits: Float[Tensor, "B V"], uniforms: Float[Tensor, " B"], sampling: Sampling
) -> tuple[Int[Tensor, " B"], Float[Tensor, " B"]]:
    """Token ids and their log-probabilities under the distribution they are drawn from.

    Token v is drawn when F(v-1) <= u F(V) < F(v), F being the running sum of the probabilities and V the last token.
    """
    probabilities = filtered(logits / sampling.temperature, sampling).softmax(-1)
    if sampling.greedy:
        chosen = probabilities.argmax(-1, keepdim=True)
    else:
        cumulative = probabilities.cumsum(-1)
        threshold = uniforms[:, None] * cumulative[:, -1:]  # u is at most 1 - 2^-24: this stays below F(V)
        chosen = torch.searchsorted(cumulative, threshold, right=True)
        chosen = chosen.clamp(max=logits.shape[-1] - 1)  # where nothing is finite, the search ends behind the last
    return chosen.squeeze(-1), probabilities.gather(-1, chosen).squeeze(-1).log()


def filtered(logits: Float[Tensor, "B V"], sampling: Sampling) -> Float[Tensor, "B V"]:
    """Cuts the distribution to its `top_k` tokens and to those that make up `top_p` of its mass."""
    if sampling.top_k > 0:
        least = logits.topk(min(sampling.top_k, logits.shape[-1])).values[:, -1:]
        logits = logits.masked_fill(logits < least, -torch.inf)
    if sampling.top_p < 1:
        ordered, order = logits.sort(descending=True)
        mass = ordered.softmax(-1)
        outside = mass.cumsum(-1) - mass >= sampling.top_p
        beyond = torch.zeros_like(outside).scatter(-1, order, outside)
        logits = logits.masked_fill(beyond, -torch.inf)
    return logits
