"""The machine: its speed at matrix products, memory of this process, and what is written down about both."""

import gc
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import linear

from benchmarks.workloads import WORKLOADS, Shape, Workload


def describe() -> dict[str, Any]:
    """Processor, cores, memory and the versions that matter."""
    import transformers

    cpu = [line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    total = [int(line.split()[1]) for line in _lines("/proc/meminfo") if line.startswith("MemTotal")]
    return {
        "cpu": cpu[0] if cpu else platform.processor() or platform.machine(),
        "cores": cores(),
        "memory_gib": round(total[0] / 2**20, 1) if total else None,
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "cpu_bf16": cpu_has_bf16(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_has_bf16() -> bool:
    """Whether the processor multiplies bfloat16 in hardware."""
    flags = next((line for line in _lines("/proc/cpuinfo") if line.startswith("flags")), "")
    return "avx512_bf16" in flags or "amx_bf16" in flags


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []


# ---------------------------------------------------------------------------------------------- speed
def matmul_rate(shape: Shape, tokens: int, dtype: torch.dtype, device: str = "cpu") -> float:
    """Operations a second of the products of one forward pass over `tokens` tokens: every layer's, and the output's.

    The shapes are the workload's own; nothing but the products is timed, and the fastest of several counts.
    """
    attention, kv = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    sizes = [  # inputs, outputs, how often
        (shape.hidden, attention, shape.layers),
        (shape.hidden, kv, 2 * shape.layers),
        (attention, shape.hidden, shape.layers),
        (shape.hidden, shape.ffn, 2 * shape.layers),
        (shape.ffn, shape.hidden, shape.layers),
        (shape.hidden, shape.vocab, 1),
    ]
    seconds = operations = 0.0
    for inputs, outputs, count in sizes:
        seconds += count * _product_seconds(tokens, inputs, outputs, dtype, device)
        operations += count * 2 * tokens * inputs * outputs
    return operations / seconds


def square_rate(dtype: torch.dtype, device: str = "cpu", size: int = 2048) -> float:
    """Operations a second of one large square product: the most this machine does."""
    return 2 * size**3 / _product_seconds(size, size, size, dtype, device)


def _product_seconds(rows: int, inputs: int, outputs: int, dtype: torch.dtype, device: str) -> float:
    x = torch.randn(rows, inputs, dtype=dtype, device=device)
    weight = torch.randn(outputs, inputs, dtype=dtype, device=device)

    def product() -> None:
        linear(x, weight)
        if device == "cuda":
            torch.cuda.synchronize()

    return min(timings(product, at_least=5, seconds=0.5))


def timings(run: Callable[[], Any], *, at_least: int, seconds: float) -> list[float]:
    """Durations of `run`, after two that do not count, until both limits are reached."""
    run()
    run()
    found: list[float] = []
    while len(found) < at_least or sum(found) < seconds:
        began = time.perf_counter()
        run()
        found.append(time.perf_counter() - began)
    return found


def rates(w: Workload) -> dict[str, float]:
    """The rates of both precisions, on the products of one minibatch of the workload and on large squares."""
    tokens = w.minibatch_rows * (w.prompt[1] + w.response[1])
    found = {}
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        found[name] = matmul_rate(w.shape, tokens, dtype, w.device)
        found[f"square_{name}"] = square_rate(dtype, w.device)
    return found


# ---------------------------------------------------------------------------------------------- memory
def resident_bytes() -> int:
    """Memory that this process holds now."""
    return _status("VmRSS")


def peak_bytes(device: str = "cpu") -> int:
    """The most memory that this process has held: on the GPU where it works there, else the whole resident set."""
    return torch.cuda.max_memory_allocated() if device == "cuda" else _status("VmHWM")


def forget_peak() -> None:
    """Returns what is free to the system and lets the peak begin again from what is held now."""
    gc.collect()
    _trim()
    Path("/proc/self/clear_refs").write_text("5")


def _trim() -> None:
    import ctypes

    ctypes.CDLL("libc.so.6").malloc_trim(0)


def _status(name: str) -> int:
    return next(int(line.split()[1]) * 1024 for line in _lines("/proc/self/status") if line.startswith(name + ":"))


def main() -> None:
    from benchmarks.side import deliver, option_parser

    args = option_parser(["-"]).parse_args()
    deliver(rates(WORKLOADS[args.workload]), args.out)


if __name__ == "__main__":
    main()
