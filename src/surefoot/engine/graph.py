"""One step of decoding as a GPU likes it: recorded once, and replayed for every token without Python in between.

A decoding step is hundreds of small kernels, which a GPU runs faster than Python can name them. Recorded as a CUDA
graph they are started together. A recording is of fixed places in memory: so the new column is written where a tensor
says, all columns of the room are attended to, and a mask hides those that hold nothing yet.

Legend: `B` rows, `C` columns of the room, `V` vocabulary.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers.cache_utils import Cache, DynamicLayer

from surefoot.engine.cache import GrowingLayer


class _FixedLayer(DynamicLayer):
    """The room of a growing layer, all of it, with the new column where `column` says."""

    def __init__(self, rooms: tuple[Tensor, Tensor], column: Int[Tensor, " 1"]) -> None:
        super().__init__()
        self.is_initialized = True
        self._column, self._rooms = column, rooms
        self.keys, self.values = rooms

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Writes the next token's column; gives the whole room."""
        for room, states in zip(self._rooms, (key_states, value_states), strict=True):
            room.index_copy_(2, self._column, states.to(room.dtype))
        return self._rooms


class FixedStep:
    """The next tokens of a batch -> the logits after them, all in fixed places.

    Args:
        model: the policy.
        cache: of layers that all grow in place and forget nothing yet; they stay the owners of their rooms.
        padding: columns of each row that are no tokens, counted like `width`.
        width: columns of the batch so far.

    Raises:
        ValueError: the cache has layers of other kinds.
    """

    def __init__(self, model: nn.Module, cache: Cache, padding: Sequence[int], width: int) -> None:
        layers: list[Any] = cache.layers
        if not all(type(layer) is GrowingLayer and layer.kept >= layer.rooms[0].shape[2] for layer in layers):
            raise ValueError("a step has fixed places only where every layer keeps all its keys and values")
        self._model, self._layers = model, layers
        rooms = layers[0].rooms
        device, unused = rooms[0].device, layers[0].end - width
        self._ids = torch.zeros(len(padding), 1, dtype=torch.long, device=device)
        self._column = torch.zeros(1, dtype=torch.long, device=device)
        self._padding = torch.tensor([[n + unused] for n in padding], device=device)
        self._columns = torch.arange(rooms[0].shape[2], device=device)
        self._fixed = Cache(layers=[_FixedLayer(layer.rooms, self._column) for layer in layers])
        self._places = [room.data_ptr() for room in rooms]
        self._graph: Any = None
        self._logits: Tensor | None = None

    def fits(self, cache: Cache, rows: int) -> bool:
        """Whether `cache` is still where it was, with as many rows, and has room for one more column."""
        layer: Any = cache.layers[0]
        return (
            type(layer) is GrowingLayer
            and rows == len(self._ids)
            and [room.data_ptr() for room in layer.rooms] == self._places
            and layer.end < layer.rooms[0].shape[2]
        )

    def again(self, newest: Sequence[int]) -> Float[Tensor, "B V"]:
        """The step that the growing layers have just made, made once more in fixed places; nothing grows."""
        return self._run(newest, self._layers[0].end - 1)

    def record(self) -> None:
        """Records the step for `__call__`, which works without a recording too. `again` must have been called."""
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._logits = self._pass()

    def __call__(self, newest: Sequence[int]) -> Float[Tensor, "B V"]:
        """Logits after the newest token of every row, which joins the cache; they hold until the next call."""
        logits = self._run(newest, self._layers[0].end)
        for layer in self._layers:
            layer.advance()
        return logits

    def _run(self, newest: Sequence[int], column: int) -> Tensor:
        self._ids.copy_(torch.tensor(newest)[:, None])
        self._column.fill_(column)
        if self._graph is None:
            return self._pass()
        self._graph.replay()
        assert self._logits is not None
        return self._logits

    def _pass(self) -> Tensor:
        seen = (self._columns <= self._column) & (self._columns >= self._padding)
        output = self._model(
            input_ids=self._ids,
            position_ids=self._column - self._padding,
            attention_mask=seen[:, None, None],
            past_key_values=self._fixed,
            use_cache=True,
        )
        logits: Tensor = output.logits[:, -1].float()
        return logits
