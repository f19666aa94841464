"""A language model taken apart: a trunk that gives every token a state, and a head that reads states as logits.

Taken apart, only the states that predict a response token meet the vocabulary, some at a time, and the rows of a pass
need no padding. No family of models is known by name: whether a model can be run that way is tried once, on a few
tokens, against the model's own forward pass.

Legend: `T` tokens of all rows of a pass, `n` any number of states, `H` hidden width, `V` vocabulary.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from surefoot.attention import packed_attention
from surefoot.display import brief
from surefoot.rows import Rows

_TRIED = 8  # tokens of the trial


class Trunk:
    """The transformer below a model's head, adapters inside it included."""

    def __init__(self, module: Any) -> None:
        self.module = module
        self.packs = False
        self.packs = self._can_pack()

    def states(self, rows: Rows) -> Float[Tensor, "T H"]:
        """The last hidden state of every token. Rows of different lengths lie end to end where the model can do it."""
        if self.packs and len(set(rows.lengths)) > 1 and _packing_pays(rows.ids.device):
            return self._end_to_end(rows)
        ids, mask = rows.padded()
        states: Tensor = self.module(input_ids=ids, attention_mask=mask.long(), use_cache=False).last_hidden_state
        return states[mask]

    def packing(self) -> AbstractContextManager[Any]:
        """The context in which rows may lie end to end, to stay in for the backward pass of recomputed activations."""
        return packed_attention(self.module) if self.packs else nullcontext()

    def _end_to_end(self, rows: Rows) -> Float[Tensor, "T H"]:
        with packed_attention(self.module):
            output = self.module(
                input_ids=rows.ids[None], position_ids=rows.positions[None], row_lengths=rows.lengths, use_cache=False
            )
        states: Tensor = output.last_hidden_state
        return states.squeeze(0)

    @torch.no_grad()
    def _can_pack(self) -> bool:
        """Whether two rows end to end give what they give in a rectangle, tried as `_packing_pays` has it."""
        device = next(self.module.parameters()).device
        if device.type not in ("cpu", "cuda") or self.module.config._attn_implementation != "sdpa":
            return False
        rows = _trial_rows((3, _TRIED - 3), self.module)
        with torch.autocast("cuda", torch.bfloat16, enabled=device.type == "cuda"):
            try:
                packed = self._end_to_end(rows)
            except (TypeError, ValueError, RuntimeError):  # it takes no positions, no lengths, or one row at a time
                return False
            return same_numbers(packed, self.states(rows), torch.bfloat16 if device.type == "cuda" else None)


class Head:
    """What a causal language model makes of its trunk's states: output matrix, scaling, cap and all."""

    def __init__(self, model: Any) -> None:
        self._model = base_of(model)
        self._trunk = trunk_of(model)
        self._read = self._way()

    def __call__(self, states: Float[Tensor, "n H"]) -> Float[Tensor, "n V"]:
        """Logits of the token after each state."""
        return self._read(states)

    def _through_the_model(self, states: Tensor) -> Tensor:
        """The model's own forward pass, with states put where its trunk would have made them."""
        ids = torch.zeros(1, len(states), dtype=torch.long, device=states.device)
        with _giving(self._trunk, self._output_type, states):
            logits: Tensor = self._model(input_ids=ids, use_cache=False).logits
        return logits.squeeze(0)

    def _output_matrix(self, states: Tensor) -> Tensor:
        logits: Tensor = self._model.get_output_embeddings()(states)
        return logits

    @torch.no_grad()
    def _way(self) -> Callable[[Tensor], Tensor]:
        """The first of the ways that gives the model's own logits.

        Raises:
            ValueError: none does.
        """
        ids = _trial_rows((_TRIED,), self._trunk).ids[None]
        output = self._trunk(input_ids=ids, use_cache=False)
        self._output_type = type(output)
        states, wanted = output.last_hidden_state[0], self._model(input_ids=ids, use_cache=False).logits[0]
        for way in (self._through_the_model, self._output_matrix):
            if same_numbers(way(states), wanted):
                return way
        raise ValueError(
            f"model is a {type(self._model).__name__}, whose logits are not a function of its trunk's last states; it "
            "is not supported"
        )


@contextmanager
def _giving(trunk: nn.Module, output_type: Callable[..., Any], states: Tensor) -> Iterator[None]:
    """While active, the trunk returns `states`, whatever it is called with."""
    output = output_type(last_hidden_state=states[None])
    trunk.forward = lambda *_, **__: output
    try:
        yield
    finally:
        del trunk.forward


def _trial_rows(lengths: tuple[int, ...], trunk: Any) -> Rows:
    """Rows of tokens that the trunk's vocabulary, however small, has."""
    embedding = trunk.get_input_embeddings()
    device = embedding.weight.device
    each = [torch.arange(n, device=device) for n in lengths]
    nothing = torch.zeros(0, dtype=torch.long, device=device)
    ids = torch.arange(sum(lengths), device=device) % embedding.weight.shape[0]
    return Rows(ids, torch.cat(each), lengths, nothing, nothing, torch.tensor(lengths, device=device).cumsum(0) - 1)


def _packing_pays(device: torch.device) -> bool:
    """Rows end to end: on a CPU one after the other; on a GPU in one kernel, which there is in half precision only."""
    return device.type == "cpu" or torch.is_autocast_enabled(device.type)


def same_numbers(x: Tensor, y: Tensor, computed_in: torch.dtype | None = None) -> bool:
    """Equal but for rounding: within a thousandth of the largest number, or a few roundings of a half precision."""
    rounding = float(torch.finfo(computed_in or y.dtype).eps)
    tolerance = max(1e-3, 8 * rounding) * float(y.abs().max())
    return x.shape == y.shape and bool(torch.allclose(x, y, rtol=0, atol=tolerance))


# ---------------------------------------------------------------------------------------------- parts of models
def base_of(model: Any) -> Any:
    """The transformers model inside an adapter's wrapper; any other model is itself."""
    return model.get_base_model() if hasattr(model, "peft_config") and hasattr(model, "get_base_model") else model


def trunk_of(model: Any) -> nn.Module:
    """The transformer below a model's head; adapters inside it stay in it."""
    base = base_of(model)
    prefix = getattr(base, "base_model_prefix", "")
    trunk: nn.Module = getattr(base, prefix, base) if prefix else base
    return trunk


def score_shift(config: Any, name: str) -> float:
    """What centring takes off the scores of reward model `name`: its config's `score_shift`, 0 where there is none.

    Raises:
        ValueError: it is no finite number.
    """
    shift = getattr(config, "score_shift", 0.0)
    if isinstance(shift, bool) or not isinstance(shift, int | float) or not math.isfinite(shift):
        raise ValueError(
            f"reward model {name!r} has score_shift={brief(shift)}: scores are centred by a finite number"
        )
    return float(shift)


def hidden_size_of(model: Any) -> int:
    """Width of the last hidden state."""
    config = model.config.get_text_config() if hasattr(model.config, "get_text_config") else model.config
    head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    width = getattr(head, "in_features", None) or config.hidden_size
    return int(width)
