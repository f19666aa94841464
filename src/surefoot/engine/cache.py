"""Key-value caches whose rows come and go while their answers grow.

A cache of transformers copies all it holds once a token, to put the new column beside the others. Here the layers that
keep keys and values get room at the right, where a new column is written in place. All rows end on the same column; a
shorter row has padding on its left, which the attention mask hides.

Legend: `B` rows, `H` heads, `C` columns, `D` size of a head.
"""

import sys
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import (
    Cache,
    DummyLayer,
    DynamicLayer,
    DynamicSlidingWindowLayer,
    LinearAttentionLayer,
)

_ROOM, _ROOM_ON_GPU = 32, 256
"""Columns of room at the right: what is copied once in so many tokens costs nothing beside the tokens. On a GPU a step
is recorded anew for new room."""


class GrowingLayer(DynamicLayer):
    """Keys and values of one layer of full or of sliding attention, [B, H, C, D] each, written in place.

    Attributes:
        length: columns seen so far; a sliding window keeps only the last of them.
        keys, values: views of what is kept.
        rooms: keys and values with the room around them; `end`: the column of it that comes next.
        kept: columns that are kept at most.

    Args:
        layer: as a model's first pass has left it.
    """

    keys: Tensor
    values: Tensor

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.is_initialized, self.is_sliding = True, layer.is_sliding
        self.length: int = layer.get_seq_length()
        self.kept = getattr(layer, "sliding_window", sys.maxsize) - 1
        kind, dtype = layer.keys.device.type, layer.keys.dtype
        if torch.is_autocast_enabled(kind):  # every product would convert all that is kept: it is kept converted
            dtype = torch.get_autocast_dtype(kind)
        self.rooms: tuple[Tensor, Tensor] = (layer.keys.to(dtype), layer.values.to(dtype))
        self.end = layer.keys.shape[2]
        self._show()

    def _show(self) -> None:
        first = self.end - min(self.length, self.kept)
        self.keys, self.values = (room[:, :, first : self.end] for room in self.rooms)

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Takes the columns of the next token; gives all that this token attends to."""
        if self.end == self.rooms[0].shape[2]:
            self.join([])
        first = self.end - self.keys.shape[2]
        for room, states in zip(self.rooms, (key_states, value_states), strict=True):
            room[:, :, self.end : self.end + 1] = states
        self.advance()
        keys, values = (room[:, :, first : self.end] for room in self.rooms)
        return keys, values

    def advance(self) -> None:
        """Counts in a column that has been written into the room."""
        self.end += 1
        self.length += 1
        self._show()

    def join(self, others: Sequence["GrowingLayer"]) -> None:
        """Moves into new room, with the rows of `others` below its own."""
        layers = [self, *others]
        self.rooms = _below([x.keys for x in layers]), _below([x.values for x in layers])
        self.end = self.rooms[0].shape[2] - _room(self.rooms[0].device)
        self.length = max(x.length for x in layers)
        self._show()

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Leaves row beam_idx[i] in place i; only rows that change their place are copied."""
        moved = beam_idx != torch.arange(len(beam_idx), device=beam_idx.device)
        for room in self.rooms:
            room[: len(beam_idx)][moved] = room[beam_idx[moved]]
        self.rooms = (self.rooms[0][: len(beam_idx)], self.rooms[1][: len(beam_idx)])
        self._show()

    def trim(self, columns: int) -> None:
        """Forgets the first `columns`."""
        self.length -= columns
        self._show()

    def get_seq_length(self) -> int:
        """Columns seen so far."""
        return self.length

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """How many columns the next `query_length` tokens attend to, and the number of the first of them."""
        kept = self.keys.shape[2]
        return kept + query_length, self.length - kept


def give_room(cache: Cache) -> None:
    """Makes the layers that keep keys and values grow in place."""
    layers: list[Any] = cache.layers
    for i, layer in enumerate(layers):
        if type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) and layer.is_initialized:
            layers[i] = GrowingLayer(layer)


def select(cache: Cache, rows: Sequence[int], device: torch.device) -> None:
    """Leaves row rows[i] in place i."""
    index: Any = torch.tensor(rows, device=device)
    cache.reorder_cache(index)


def can_join(cache: Cache) -> bool:
    """Whether other rows can be taken in: all layers are of kinds whose rows can be put below one another."""
    return all(type(layer) in (GrowingLayer, LinearAttentionLayer, DummyLayer) for layer in cache.layers)


def join(cache: Cache, others: Sequence[Cache]) -> None:
    """Takes the rows of `others` in below those of `cache`, layer by layer, and leaves nothing in them."""
    for layer in cache.layers:
        joining: list[Any] = [other.layers.pop(0) for other in others]
        if isinstance(layer, GrowingLayer):
            layer.join(joining)
        elif isinstance(layer, LinearAttentionLayer):
            for name in ("conv_states", "recurrent_states"):
                states = [getattr(x, name) for x in (layer, *joining)]
                states[0].update({i: torch.cat([x[i] for x in states]) for i, x in states[0].items() if x is not None})


def trim(cache: Cache, columns: int) -> None:
    """Forgets the first `columns`, which are padding in every row."""
    for layer in cache.layers:
        if isinstance(layer, GrowingLayer):
            layer.trim(columns)


def _below(parts: Sequence[Tensor]) -> Tensor:
    """Tensors [B, H, C, D] below one another, zeros on the left of the narrower, and room of zeros at the right."""
    rows, columns = sum(len(part) for part in parts), max(part.shape[2] for part in parts)
    width = columns + _room(parts[0].device)
    joined = parts[0].new_zeros(rows, parts[0].shape[1], width, parts[0].shape[3])
    first = 0
    for part in parts:
        joined[first : first + len(part), :, columns - part.shape[2] : columns] = part
        first += len(part)
    return joined


def _room(device: torch.device) -> int:
    return _ROOM_ON_GPU if device.type == "cuda" else _ROOM
