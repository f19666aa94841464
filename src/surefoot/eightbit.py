"""AdamW whose moments take a byte a number instead of four; the only user of bitsandbytes (the extra `8bit`)."""

import importlib
import logging
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import torch


def eight_bit_adam(groups: Sequence[dict[str, Any]], **options: Any) -> torch.optim.Optimizer:
    """AdamW over `groups`, moments in blocks of 256 numbers with a scale each; small tensors keep theirs in float32.

    Raises:
        ValueError: bitsandbytes is not installed.
    """
    try:
        library = bitsandbytes()
    except ImportError as error:
        raise ValueError(
            f"eight_bit_adam needs bitsandbytes, which is not here ({error}): pip install 'surefoot[8bit]'"
        ) from error

    class EightBitAdam(library.optim.AdamW8bit):  # type: ignore[misc,name-defined]
        """The library's optimizer, with state that a checkpoint holds: tensors and whole numbers, side by side."""

        def state_dict(self) -> dict[str, Any]:
            """As PyTorch gives it; the library puts its tensors one level deeper, and lets entries share tables."""
            state = torch.optim.Optimizer.state_dict(self)
            entries = {
                index: {name: value.clone() if name.startswith("qmap") else value for name, value in entry.items()}
                for index, entry in state["state"].items()
            }
            return state | {"state": entries}

        def load_state_dict(self, state_dict: Mapping[str, Any], move_to_device: bool = True) -> None:
            """The counts of steps come back as whole numbers."""
            super().load_state_dict(state_dict, move_to_device)
            for entry in self.state.values():
                entry["step"] = int(entry["step"])

    optimizer: torch.optim.Optimizer = EightBitAdam(groups, **options)
    return optimizer


def bitsandbytes() -> Any:
    """The library, kept from fetching a kernel of no use here from a hub, and from saying that it could not.

    Raises:
        ImportError: it is not installed.
    """
    logger = logging.getLogger("bitsandbytes")
    level, hidden = logger.level, "kernels" not in sys.modules
    if hidden:
        sys.modules["kernels"] = None  # type: ignore[assignment]
    logger.setLevel(logging.ERROR)
    try:
        return importlib.import_module("bitsandbytes")
    finally:
        logger.setLevel(level)
        if hidden:
            del sys.modules["kernels"]
