"""The arithmetic of the passes: bfloat16 where it was chosen, and on a CPU the quicker of two ways to a result.

PyTorch multiplies float32 matrices on a CPU with MKL, which knows Intel's processors better than others; oneDNN, which
PyTorch carries as well, is 1.1 to 2 times as fast on the others, and on Intel's a tenth slower. Both round to float32;
they differ in the order of their sums (about 1e-6 of the largest number).
"""

import functools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from surefoot.short_attention import QuickAttention


@contextmanager
def arithmetic(device: torch.device, *, bfloat16: bool) -> Iterator[None]:
    """While active, passes are computed in bfloat16 autocast, or in float32 by the quickest product there is.

    A pass without gradients is PyTorch's own in bfloat16, and in float32 on Intel's processors: a mode would change
    nothing about it, and be called for each of its thousand functions, a seventh of the time of a token.
    """
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bfloat16), _mode(device, bfloat16=bfloat16):
        yield


def _mode(device: torch.device, *, bfloat16: bool) -> AbstractContextManager[Any]:
    """What is put in the place of PyTorch's own functions."""
    learns = torch.is_grad_enabled()
    if device.type != "cpu":
        return nullcontext()
    if bfloat16:
        return QuickAttention() if learns else nullcontext()
    gains = torch.backends.mkldnn.is_available() and (learns or not _made_by_intel())
    return QuickLinear() if gains else nullcontext()


class QuickLinear(TorchFunctionMode):
    """While active, `linear` of float32 matrices is computed by the quicker product; everything else is left alone.

    Gradients of weights that have one already are added to it where they are made. On their way through autograd they
    would be matrices of their own for a moment: of an output matrix, as large as the vocabulary.
    """

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Called by PyTorch in place of each of its functions."""
        if function is functional.linear and not kwargs and _is_float32(*args):
            return _Linear.apply(*args) if len(args) == 3 else _Linear.apply(*args, None)
        if function is functional.embedding and _is_plain(*args, **(kwargs or {})):
            return _Embedding.apply(*args[:2], (kwargs or {}).get("padding_idx"))
        return function(*args, **(kwargs or {}))


def _is_float32(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> bool:
    tensors = (x, weight) if bias is None else (x, weight, bias)
    return x.numel() > 0 and all(
        t.dtype == torch.float32 and t.device.type == "cpu" and t.layout == torch.strided for t in tensors
    )


def _is_plain(ids: Tensor, weight: Tensor, *rest: Any, padding_idx: int | None = None, **options: Any) -> bool:
    """An embedding of float32 on a CPU, without options that would make it more than a choice of rows."""
    unusual = rest or any(options.get(name) for name in ("max_norm", "scale_grad_by_freq", "sparse"))
    return not unusual and weight.dtype == torch.float32 and ids.device.type == weight.device.type == "cpu"


def _added(weight: Tensor, add: Callable[[Tensor], Any]) -> bool:
    """Adds a gradient to the one that `weight` has; False where it has none yet."""
    if not weight.is_leaf or weight.grad is None:
        return False
    add(weight.grad)
    return True


class _Linear(torch.autograd.Function):
    """y = x W' + b. The gradient of W is MKL's: its operands are transposed, which oneDNN would have to copy."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x if ctx.needs_input_grad[1] else None, weight)  # a frozen weight spares the memory of x
        return _product(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, d: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        flat = d.reshape(-1, d.shape[-1])
        gradient = None
        if ctx.needs_input_grad[1]:
            seen = x.reshape(-1, x.shape[-1])
            if not _added(weight, lambda grad: grad.addmm_(flat.t(), seen)):
                gradient = flat.t() @ seen
        return (
            _product(d, weight.t(), None) if ctx.needs_input_grad[0] else None,
            gradient,
            flat.sum(0) if ctx.needs_input_grad[2] else None,
        )


class _Embedding(torch.autograd.Function):
    """y = W[ids]; the row of a padding token learns nothing."""

    @staticmethod
    def forward(ctx: Any, ids: Tensor, weight: Tensor, padding_idx: int | None = None) -> Tensor:
        ctx.save_for_backward(ids, weight)
        ctx.padding_idx = padding_idx
        return functional.embedding(ids, weight)

    @staticmethod
    def backward(ctx: Any, d: Tensor) -> tuple[None, Tensor | None, None]:
        ids, weight = ctx.saved_tensors
        if ctx.padding_idx is not None:
            d = d.masked_fill((ids == ctx.padding_idx % len(weight)).unsqueeze(-1), 0)
        rows, flat = ids.flatten(), d.flatten(0, -2)
        if _added(weight, lambda grad: grad.index_add_(0, rows, flat)):
            return None, None, None
        return None, torch.zeros_like(weight).index_add_(0, rows, flat), None


def _product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    product: Tensor
    if _made_by_intel():
        product = torch.ops.aten.linear(x, weight, bias)
    else:
        product = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return product


@functools.cache
def _made_by_intel(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether this processor is one of Intel's; no, where the system does not say."""
    return cpuinfo.is_file() and "GenuineIntel" in cpuinfo.read_text(encoding="utf-8", errors="replace")
