"""The order of rows in which those of like length come together, so that short ones carry little padding."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch.utils.data import Sampler
from transformers.trainer_pt_utils import get_length_grouped_indices


class ByLength(Sampler[int]):
    """transformers' order by length, drawn from the seed and the epoch alone: a run that goes on finds it again.

    Args:
        tokens: of each row.
        batch_size: rows of an optimizer step.
        seed: of the draw.
    """

    def __init__(self, tokens: Sequence[int], batch_size: int, seed: int) -> None:
        self._tokens, self._batch_size, self._seed = tokens, batch_size, seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by the trainer before each pass through the rows."""
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._tokens)

    def __iter__(self) -> Iterator[int]:
        drawn = torch.Generator().manual_seed(self._seed + self._epoch)
        return iter(get_length_grouped_indices(self._tokens, self._batch_size, generator=drawn))


def row_tokens(row: Mapping[str, Any]) -> int:
    """Tokens of a row as TRL's trainers hold it; a pair is as long as its longer answer, its prompt included."""
    if "input_ids" in row:
        return len(row["input_ids"])
    return len(row.get("prompt_ids", ())) + max(len(row["chosen_ids"]), len(row["rejected_ids"]))
