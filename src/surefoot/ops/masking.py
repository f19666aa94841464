"""Statistics over the tokens that count, and the masks that say which do.

Legend: `B` responses, `R` response length. A mask is True where a token counts; whatever stands in the other places,
NaN included, changes nothing.
"""

from collections.abc import Iterable
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from surefoot.types import AllSum


class Moments(NamedTuple):
    """Number, mean and unbiased variance of the counted elements, each a 0-d tensor."""

    number: Tensor
    mean: Tensor
    variance: Tensor


def _local(x: Tensor) -> Tensor:
    return x


def masked_mean(
    x: Float[Tensor, "*shape"], mask: Bool[Tensor, "*shape"], all_sum: AllSum = _local
) -> Float[Tensor, ""]:
    """Mean of `x` where `mask` is True; 0 where nothing counts. `all_sum` makes it global over processes."""
    return masked_moments(x, mask, all_sum).mean


def masked_moments(x: Float[Tensor, "*shape"], mask: Bool[Tensor, "*shape"], all_sum: AllSum = _local) -> Moments:
    """Count, mean and unbiased (n - 1) variance over the mask; the variance is 0 where fewer than two count."""
    count = all_sum(mask.sum().to(x.dtype))
    mean = all_sum(torch.where(mask, x, 0).sum()) / count.clamp(min=1)
    squares = all_sum(torch.where(mask, x - mean, 0).square().sum())
    return Moments(count, mean, squares / (count - 1).clamp(min=1))


def masked_whiten(
    x: Float[Tensor, "*shape"], mask: Bool[Tensor, "*shape"], all_sum: AllSum = _local, eps: float = 1e-8
) -> Float[Tensor, "*shape"]:
    """Shifts to mean 0 and scales to variance 1 over the mask: (x - mean) / sqrt(variance + eps).

    The variance is the unbiased one. Where fewer than two elements count the result is 0.
    """
    x = torch.where(mask, x, 0)  # NaN in the padding would come back as 0 * NaN in a gradient
    count, mean, variance = masked_moments(x, mask, all_sum)
    return torch.where(mask & (count >= 2), (x - mean) * torch.rsqrt(variance + eps), 0)


def masked_scale(
    x: Float[Tensor, "*shape"], mask: Bool[Tensor, "*shape"], all_sum: AllSum = _local, eps: float = 1e-8
) -> Float[Tensor, "*shape"]:
    """Scales to variance 1 over the mask and keeps the mean: (x - mean) / sqrt(variance + eps) + mean.

    Where fewer than two elements count they keep their value.
    """
    x = torch.where(mask, x, 0)
    count, mean, variance = masked_moments(x, mask, all_sum)
    scaled = (x - mean) * torch.rsqrt(variance + eps) + mean
    return torch.where(mask, torch.where(count >= 2, scaled, x), 0)


def eos_mask(response_ids: Int[Tensor, "B R"], eos_ids: Iterable[int]) -> Bool[Tensor, "B R"]:
    """True up to and including the first end of sequence of each response; True everywhere where there is none."""
    ends = torch.isin(
        response_ids, torch.tensor(sorted(eos_ids), dtype=response_ids.dtype, device=response_ids.device)
    )
    ended_before = ends.long().cumsum(-1) - ends.long()
    return ended_before == 0


def length_mask(lengths: Int[Tensor, " B"], width: int) -> Bool[Tensor, "B {width}"]:
    """True on the first `lengths[i]` of `width` places of row i."""
    return torch.arange(width, device=lengths.device) < lengths[:, None]
