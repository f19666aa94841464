"""The weights of linear layers as decoding reads them: in the precision of the products, and column by column."""

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn


@contextlib.contextmanager
def ready_for_decoding(model: nn.Module) -> Iterator[None]:
    """Gives every linear layer a copy of its weight for the while; the weights themselves are not touched.

    Under autocast a frozen weight would be converted in every pass. On a CPU a product of few rows first packs a
    weight that stands row by row, in a quarter of its time; one that stands column by column is read as it is.
    """
    layers = [m for m in model.modules() if type(m) is nn.Linear and type(m.weight.data) is Tensor]
    weights = [layer.weight for layer in layers]
    try:
        for layer in layers:
            layer.weight = nn.Parameter(_ready(layer.weight.data), requires_grad=False)
        yield
    finally:
        for layer, weight in zip(layers, weights, strict=True):
            layer.weight = weight


def _ready(weight: Tensor) -> Tensor:
    kind = weight.device.type
    if torch.is_autocast_enabled(kind):
        weight = weight.to(torch.get_autocast_dtype(kind))
    return weight.t().contiguous().t() if kind == "cpu" else weight
