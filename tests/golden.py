"""The recorded numbers under tests/data, as tensors. `from golden import case`."""

import functools
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

DATA = Path(__file__).parent / "data"


@functools.cache
def _all_cases() -> dict[str, Any]:
    return json.loads((DATA / "cases.json").read_text())


def case(name: str) -> dict[str, Any]:
    """A case of cases.json: lists of numbers become float32 tensors, `mask` becomes boolean."""
    return {key: _as_tensor(key, value) for key, value in _all_cases()[name].items()}


def _as_tensor(key: str, value: Any) -> Any:
    if not isinstance(value, list):
        return value
    return torch.tensor(value).bool() if key == "mask" else torch.tensor(value)


def close(actual: Tensor | float, expected: Tensor | float, tolerance: float = 1e-6) -> None:
    """Asserts equality to an absolute and relative tolerance, of numbers or tensors alike."""
    torch.testing.assert_close(
        torch.as_tensor(actual, dtype=torch.float64), torch.as_tensor(expected, dtype=torch.float64),
        atol=tolerance, rtol=tolerance,
    )  # fmt: skip
