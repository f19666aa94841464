"""How long attention in bfloat16 takes on a CPU, there and back: `python -m benchmarks.attention`.

The heads of *real* (9 of width 64), rows of several lengths, milliseconds, the best of ten: PyTorch's kernel, and
`surefoot.short_attention`, with how far their gradients lie from those in float64, as part of their norm.
"""

import argparse
import time
from collections.abc import Callable

from benchmarks import ours  # noqa: F401 - surefoot before torch, so that its choice about threads holds

# isort: split
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from surefoot.phases import memory_kept
from surefoot.short_attention import LONGEST, short_attention

HEADS, WIDTH = 9, 64
ROWS = ((1, 128), (16, 32), (16, 64), (8, 128), (16, 128), (4, 256), (2, 512))


def timed(attend: Callable[..., Tensor], tensors: list[Tensor], d: Tensor, rounds: int) -> tuple[float, float, float]:
    """Milliseconds there and back, and the error of the gradients."""
    exact = [x.detach().double().requires_grad_() for x in tensors]
    wanted = torch.autograd.grad(scaled_dot_product_attention(*exact, is_causal=True), exact, d.double())
    there, back = [], []
    for _ in range(rounds):
        began = time.perf_counter()
        output = attend(*tensors, is_causal=True)
        turned = time.perf_counter()
        found = torch.autograd.grad(output, tensors, d)
        there.append(turned - began)
        back.append(time.perf_counter() - turned)
    error = max(float((a.double() - b).norm() / b.norm()) for a, b in zip(found, wanted, strict=True))
    return 1000 * min(there), 1000 * min(back), error


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    rounds = parser.parse_args().rounds
    print(f"used up to {LONGEST} tokens\nrows x tokens   PyTorch: there, back (error)   ours: there, back (error)")
    with memory_kept():
        for rows, tokens in ROWS:
            tensors = [
                torch.randn(rows, HEADS, tokens, WIDTH, dtype=torch.bfloat16).requires_grad_() for _ in range(3)
            ]
            d = torch.randn(rows, HEADS, tokens, WIDTH, dtype=torch.bfloat16)
            told = [timed(way, tensors, d, rounds) for way in (scaled_dot_product_attention, short_attention)]
            words = "   ".join(f"{there:6.2f}, {back:6.2f} ({error:.4f})" for there, back, error in told)
            print(f"{rows:4} x {tokens:4}        {words}", flush=True)


if __name__ == "__main__":
    main()
