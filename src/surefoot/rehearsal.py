"""What passes through a model take, found by going through them with tensors that have a shape and no memory.

PyTorch's fake tensors know the device, the type and the shape of what they stand for, so a model of any size runs
through its real code, attention kernels, autocast, adapters and recomputed activations included, in a second and
without its weights. A count of the bytes that are alive then says what is kept and what the work takes.
"""

import copy
import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from surefoot.arithmetic import arithmetic
from surefoot.attention import packed_attention
from surefoot.memory import BFLOAT16, FLOAT32, Growth, Pass
from surefoot.models import disable_dropout, recompute_activations
from surefoot.networks import base_of, trunk_of
from surefoot.sharding import layer_names

_TOKENS = 2048  # of a rehearsed pass: enough for its own work to exceed that of a single weight


class Skeleton:
    """A model in shapes alone.

    Args:
        model: on the meta device, adapters and all; it is changed.
        device: where it would run.
        dtype: of its weights.
    """

    def __init__(self, model: nn.Module, device: torch.device, dtype: torch.dtype = torch.float32) -> None:
        self.model = model.eval()
        self.device = device
        self._mode = FakeTensorMode()
        with self._mode:
            _stand_in(model, device, dtype)
        self.trunk: Any = trunk_of(model)

    # ------------------------------------------------------------------------------------- weights
    @property
    def parameters(self) -> int:
        """How many numbers it has."""
        return sum(p.numel() for p in self.model.parameters())

    @property
    def lent(self) -> int:
        """How many numbers a pass has as a whole where they lie in shares: those outside of layers, and two layers."""
        names = layer_names(self.model)
        layers = [m for m in self.model.modules() if type(m).__name__ in names]
        sizes = [sum(p.numel() for p in layer.parameters()) for layer in layers]
        return self.parameters - sum(sizes) + 2 * max(sizes, default=0)

    @property
    def trained(self) -> list[int]:
        """How many numbers each trained tensor has."""
        return [p.numel() for p in self.model.parameters() if p.requires_grad]

    @property
    def linear(self) -> int:
        """How many numbers the weights of linear layers have, as decoding copies them."""
        return sum(m.weight.numel() for m in self.model.modules() if type(m) is nn.Linear)

    @property
    def output(self) -> Tensor:
        """The output matrix."""
        weight: Tensor = base_of(self.model).get_output_embeddings().weight
        return weight

    def held_in_bfloat16(self) -> int:
        """Bytes of its weights when those of linear layers are rounded; a tied output matrix is then a second one."""
        linear = [p for m in self.model.modules() if isinstance(m, nn.Linear) for p in m.parameters(recurse=False)]
        rounded = {id(p): p.numel() for p in linear}
        embeddings = {id(m.weight) for m in self.model.modules() if isinstance(m, nn.Embedding)}
        stays = sum(p.numel() for p in self.model.parameters() if id(p) not in rounded or id(p) in embeddings)
        return BFLOAT16 * sum(rounded.values()) + FLOAT32 * stays

    # ------------------------------------------------------------------------------------- passes
    def pass_(self, row: int, *, bfloat16: bool, gradient_checkpointing: bool = False) -> Pass:
        """What a pass over rows of `row` tokens takes, gradients being there already where there are any."""
        rows = -(-_TOKENS // row)
        if gradient_checkpointing:
            _recompute(self.model, lambda: arithmetic(self.device, bfloat16=bfloat16))
        with self._mode, packed_attention(self.trunk):
            run = self._runner(bfloat16)
            trains = any(p.requires_grad for p in self.model.parameters())
            if trains:
                run(1, row).sum().backward()
            seen = [self._observe(run, count, row, trains) for count in (rows, 2 * rows)]
        self.model.eval().zero_grad(set_to_none=True)
        each = rows * row
        return Pass(*(_line(each, first, second) for first, second in zip(*seen, strict=True)))

    def cache_per_token(self, *, bfloat16: bool) -> tuple[int, int]:
        """Bytes of keys and values that sampling keeps of a token in all layers, and how many layers keep any."""
        with self._mode, torch.no_grad():
            ids = torch.zeros(1, 2, dtype=torch.long, device=self.device)
            cache = self.trunk(input_ids=ids, use_cache=True).past_key_values
            kept = [layer for layer in getattr(cache, "layers", []) if getattr(layer, "keys", None) is not None]
        numbers = sum((layer.keys.numel() + layer.values.numel()) // 2 for layer in kept)
        return (BFLOAT16 if bfloat16 else FLOAT32) * numbers, max(1, len(kept))

    def _runner(self, bfloat16: bool) -> Callable[[int, int], Tensor]:
        """Runs rows end to end where the model can do it on this device, as passes do; else in a rectangle."""

        def end_to_end(rows: int, row: int) -> Tensor:
            ids = torch.zeros(1, rows * row, dtype=torch.long, device=self.device)
            with arithmetic(self.device, bfloat16=bfloat16):
                return self._states(input_ids=ids, position_ids=ids, row_lengths=[row] * rows)

        def rectangle(rows: int, row: int) -> Tensor:
            ids = torch.zeros(rows, row, dtype=torch.long, device=self.device)
            with arithmetic(self.device, bfloat16=bfloat16):
                return self._states(input_ids=ids, attention_mask=ids + 1)

        if self.device.type != "cpu":
            return rectangle
        try:
            end_to_end(2, 2)
        except (TypeError, ValueError, RuntimeError):
            return rectangle
        return end_to_end

    def _states(self, **inputs: Any) -> Tensor:
        states: Tensor = self.trunk(use_cache=False, **inputs).last_hidden_state
        return states

    def _observe(self, run: Callable[[int, int], Tensor], rows: int, row: int, trains: bool) -> tuple[int, int, int]:
        """Bytes kept, at most on the way there without a graph, and at most on the way back beyond what was kept."""
        with Alive(self.model) as alive, torch.no_grad():
            run(rows, row)
        if not trains:
            return 0, alive.most, 0
        forward = alive.most
        with Alive(self.model) as alive:
            states = run(rows, row)
            kept = alive.most = alive.now
            states.backward(torch.empty_like(states))
        return kept, forward, alive.most - kept


class Alive(TorchDispatchMode):
    """Counts the bytes of the tensors that are made while it is active, until they are gone.

    Attributes:
        now: of those that are there. most: of those that were there together.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.now = self.most = 0
        self._known: set[int] = set()
        for tensor in (*model.parameters(), *model.buffers(), *(p.grad for p in model.parameters())):
            if tensor is not None:
                self._known.add(tensor.untyped_storage()._cdata)

    def __torch_dispatch__(
        self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Called by PyTorch in place of each of its operations."""
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._meet(tensor.untyped_storage())
        return result

    def _meet(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key in self._known:
            return
        size = storage.nbytes()
        self._known.add(key)
        self.now += size
        self.most = max(self.most, self.now)
        weakref.finalize(storage, self._part, key, size)

    def _part(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size


def on_meta(make: Callable[[], nn.Module]) -> nn.Module:
    """The model that `make` makes, without memory for its weights; global random numbers stay as they are."""
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        return make()


def shapes_of(model: Any, adapter: Any = None) -> nn.Module:
    """A model like the transformers model `model`, on the meta device, with a new adapter where `adapter` says how."""
    base = base_of(model)
    made = on_meta(lambda: type(base)(copy.deepcopy(base.config)))
    return with_adapter(made, adapter)


def with_adapter(model: nn.Module, adapter: Any) -> nn.Module:
    """The model on the meta device with an adapter on it."""
    if adapter is None:
        return model
    from surefoot.lora import get_peft_model

    with torch.random.fork_rng(devices=[]):
        adapted: nn.Module = get_peft_model(model, copy.deepcopy(adapter))
        return adapted


def _stand_in(model: nn.Module, device: torch.device, dtype: torch.dtype) -> None:
    """Replaces the tensors of a model on the meta device by fake ones on `device`; tied ones stay tied."""
    made: dict[int, nn.Parameter] = {}
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                if id(parameter) not in made:
                    empty = torch.empty(parameter.shape, dtype=dtype, device=device)
                    made[id(parameter)] = nn.Parameter(empty, requires_grad=parameter.requires_grad)
                module._parameters[name] = made[id(parameter)]
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype, device=device)


def _recompute(model: Any, context: Callable[[], AbstractContextManager[Any]]) -> None:
    disable_dropout(model)
    recompute_activations(model, context)
    model.train()


def _line(tokens: int, first: int, second: int) -> Growth:
    """Through what `tokens` and twice as many take."""
    each = max(0, second - first) / tokens
    return Growth(fixed=max(0, first - each * tokens), each=each)
