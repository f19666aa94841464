"""How many operations a workload needs: multiplications and additions of matrix products, padding and waste left out.

With `T = prompt + response - 1` tokens of a row that predict something, `R` of its response, and of the model hidden
width `H`, layers `L`, width of all heads `A`, of all key-value heads `K`, feed-forward width `F` and vocabulary `V`:

    trunk(T)  = 2 T L (2 H A + 2 H K + 3 H F)  +  2 A L T (T + 1)       linear layers, causal attention
    head(R)   = 2 R H V                                                 only response tokens meet the output matrix

    update    = epochs x sum over rows of 3 (trunk + head)              once forward, twice backward
                with a value model of its own: + 3 trunk a row
                with LoRA: frozen matrices 2 instead of 3 (nothing but the gradient of their input), and
                + 3 x 2 T L r (sums of inputs and outputs of the adapted matrices)
    scoring   = sum over rows of 2 (trunk + head)                       policy with its critic, and the reference
                with a value model of its own: + trunk a row
    reward    = sum over rows of trunk
    sampling  = sum over rows of trunk + head                           every token through the model once

Norms, activations, softmax, embeddings, the value head and the optimizer are not counted: they are no matrix products
worth naming. What an implementation does beyond this (padding, logits of prompts, recomputation) is not counted
either, so a share of the matmul rate says how much of the machine goes into what the algorithm asks for.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.workloads import Shape


@dataclass(frozen=True)
class Operations:
    """Operations of one iteration by stage."""

    sampling: int
    scoring: int
    reward: int
    update: int

    @property
    def iteration(self) -> int:
        return self.sampling + self.scoring + self.reward + self.update


def count(
    shape: Shape,
    prompts: Sequence[int],
    responses: Sequence[int],
    *,
    epochs: int,
    value_model: bool,
    lora_r: int = 0,
) -> Operations:
    """The formula above for rows of the given lengths."""
    rows = [(p + r - 1, r) for p, r in zip(prompts, responses, strict=True)]
    linears = sum(linear_layers(shape, t) for t, _ in rows)
    attentions = sum(attention(shape, t) for t, _ in rows)
    heads = sum(2 * r * shape.hidden * shape.vocab for _, r in rows)
    adapters = sum(2 * t * shape.layers * lora_r * _adapted_widths(shape) for t, _ in rows)
    trunk = linears + attentions
    times = 2 if lora_r else 3
    policy = times * (linears + heads) + 3 * (attentions + adapters)
    return Operations(
        sampling=trunk + heads,
        scoring=2 * (trunk + heads) + value_model * trunk,
        reward=trunk,
        update=epochs * (policy + value_model * 3 * trunk),
    )


def linear_layers(shape: Shape, tokens: int) -> int:
    """Operations of the linear layers of a trunk."""
    heads, kv = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    weights = 2 * shape.hidden * heads + 2 * shape.hidden * kv + 3 * shape.hidden * shape.ffn
    return 2 * tokens * shape.layers * weights


def attention(shape: Shape, tokens: int) -> int:
    """Operations of causal attention over one row: scores, and sums of values."""
    return 2 * shape.heads * shape.head_dim * shape.layers * tokens * (tokens + 1)


def _adapted_widths(shape: Shape) -> int:
    """Inputs plus outputs of all matrices of a layer: an adapter of rank r adds r times as many weights."""
    h, heads, kv, ffn = shape.hidden, shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim, shape.ffn
    return 2 * (h + heads) + 2 * (h + kv) + 3 * (h + ffn)
