"""The arithmetic of the passes: bfloat16 where it was chosen, and the quicker of two float32 matrix products on a CPU.

PyTorch multiplies float32 matrices on a CPU with MKL, which knows some makes of processor better than others; oneDNN,
which PyTorch carries as well, is 1.1 to 2 times as fast on those that MKL serves badly and no slower elsewhere. Both
round to float32; they differ in the order of their sums (about 1e-6 of the largest number).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode


@contextmanager
def arithmetic(device: torch.device, *, bfloat16: bool) -> Iterator[None]:
    """While active, passes are computed in bfloat16 autocast, or in float32 by the quickest product there is."""
    quick = not bfloat16 and device.type == "cpu" and torch.backends.mkldnn.is_available()
    with (
        torch.autocast(device.type, dtype=torch.bfloat16, enabled=bfloat16),
        OneDNNLinear() if quick else nullcontext(),
    ):
        yield


class OneDNNLinear(TorchFunctionMode):
    """While active, `linear` of float32 matrices is computed by oneDNN; everything else is left alone."""

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Called by PyTorch in place of each of its functions."""
        if function is functional.linear and not kwargs and _is_float32(*args):
            return _Linear.apply(*args) if len(args) == 3 else _Linear.apply(*args, None)
        return function(*args, **(kwargs or {}))


def _is_float32(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> bool:
    tensors = (x, weight) if bias is None else (x, weight, bias)
    return x.numel() > 0 and all(
        t.dtype == torch.float32 and t.device.type == "cpu" and t.layout == torch.strided for t in tensors
    )


class _Linear(torch.autograd.Function):
    """y = x W' + b. The gradient of W stays with MKL: its operands are transposed, which oneDNN would have to copy."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x if ctx.needs_input_grad[1] else None, weight)  # a frozen weight spares the memory of x
        return _product(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, d: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        flat = d.reshape(-1, d.shape[-1])
        return (
            _product(d, weight.t(), None) if ctx.needs_input_grad[0] else None,
            flat.t() @ x.reshape(-1, x.shape[-1]) if ctx.needs_input_grad[1] else None,
            flat.sum(0) if ctx.needs_input_grad[2] else None,
        )


def _product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    product: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return product
