"""The products of a model's linear layers: `python -m benchmarks.products [--workload real] [--rounds 5]`.

Every weight once, as a decoding step (few rows) or a pass (many) multiplies them: as PyTorch does (by MKL in float32),
by oneDNN, and by either with weights that it has arranged once. Each way in turn; prints the median milliseconds of
all products together.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Mapping

from benchmarks import ours  # noqa: F401 - surefoot before torch, so that its choice about threads holds

# isort: split
import torch
from torch import Tensor, nn

from benchmarks.workloads import WORKLOADS, load_library, make_policy

ROWS = (4, 8, 32, 128, 512, 1024)
ARRANGED_ROWS = 128
"""With more rows arranging weights wins nothing, and takes the memory of all of them again."""


def ways(weights: list[Tensor], rows: int) -> Mapping[str, Callable[[], None]]:
    """Name of a way -> all products of `rows` rows in it."""
    inputs = {w.shape[1]: torch.randn(rows, w.shape[1], dtype=w.dtype) for w in weights}
    x = [inputs[w.shape[1]] for w in weights]
    mkldnn, mkl = torch.ops.mkldnn, torch.ops.mkl
    half = weights[0].dtype == torch.bfloat16
    columns = [w.t().contiguous().t() for w in weights]
    found: dict[str, Callable[[], None]] = {
        "as PyTorch has it": lambda: _all(torch.ops.aten.linear(a, w, None) for a, w in zip(x, weights, strict=True)),
        "column by column": lambda: _all(torch.ops.aten.linear(a, w, None) for a, w in zip(x, columns, strict=True)),
        "oneDNN": lambda: _all(_onednn(a, w) for a, w in zip(x, weights, strict=True)),
    }
    if rows <= ARRANGED_ROWS:
        once = [mkldnn._reorder_linear_weight(w, rows) for w in weights]
        found["oneDNN, arranged"] = lambda: _all(_onednn(a, w) for a, w in zip(x, once, strict=True))
    if rows <= ARRANGED_ROWS and not half:
        packed = [mkl._mkl_reorder_linear_weight(w, rows) for w in weights]
        found["MKL, arranged"] = lambda: _all(
            mkl._mkl_linear(a, p, w, None, rows) for a, p, w in zip(x, packed, weights, strict=True)
        )
    return found


def _onednn(x: Tensor, weight: Tensor) -> Tensor:
    product: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", [], "")
    return product


def _all(products: object) -> None:
    for _ in products:  # type: ignore[attr-defined]
        pass


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workload", choices=[n for n, w in WORKLOADS.items() if w.device == "cpu"], default="real")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    load_library()
    linear = [m for m in make_policy(WORKLOADS[args.workload]).modules() if isinstance(m, nn.Linear)]
    for dtype in (torch.float32, torch.bfloat16):
        weights = [m.weight.detach().to(dtype) for m in linear]
        size = sum(w.numel() * w.itemsize for w in weights) / 1e6
        what = f"{len(weights)} weights of {size:.0f} MB in {dtype}"
        print(f"{args.workload}, {what}; milliseconds, medians of {args.rounds}")
        for rows in ROWS:
            seconds: dict[str, list[float]] = {}
            each = ways(weights, rows)
            for _ in range(args.rounds):
                for name, run in each.items():
                    began = time.perf_counter()
                    run()
                    seconds.setdefault(name, []).append(time.perf_counter() - began)
            told = (f"{name} {1e3 * statistics.median(times):.1f}" for name, times in seconds.items())
            print(f"{rows:>5} rows  {'   '.join(told)}", flush=True)


if __name__ == "__main__":
    main()
