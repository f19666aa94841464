"""Everything that a run needs to go on exactly, as named tensors and plain numbers, and back again."""

import hashlib
import json
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from surefoot.sharding import cut_like
from surefoot.types import Prompt

_MOMENTS = "optimizer."


def pack(
    parameters: Mapping[str, Tensor], optimizer: torch.optim.Optimizer, parts: Mapping[str, Any]
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the state of a trainer. `parts` are objects with `state_dict` and `load_state_dict`.

    Raises:
        TypeError: a part, or the optimizer, has state of a kind that cannot be written.
    """
    moments, groups = optimizer_state(optimizer)
    tensors = dict(parameters) | {f"{_MOMENTS}{name}": t for name, t in moments.items()}
    state = {name: plain(part.state_dict(), name) for name, part in parts.items()}
    return tensors, {"optimizer": groups, "tensors": sorted(tensors), "parts": state}


@torch.no_grad()
def unpack(
    tensors: Mapping[str, Tensor],
    state: Mapping[str, Any],
    parameters: Mapping[str, Tensor],
    optimizer: torch.optim.Optimizer,
    parts: Mapping[str, Any],
) -> None:
    """Puts what `pack` gave back into the parts of a trainer that was made like the one it came from.

    Raises:
        ValueError: it is of other models, of another optimizer or of other parts; nothing was changed then.
    """
    _check_match(tensors, parameters)
    _check_state(tensors, state, parts)
    trained = [p for group in optimizer.param_groups for p in group["params"]]
    moments = {}
    for name in tensors:
        if name.startswith(_MOMENTS):
            index = int(name.removeprefix(_MOMENTS).split(".", 1)[0])
            like = trained[index] if index < len(trained) else tensors[name]
            moments[name.removeprefix(_MOMENTS)] = cut_like(tensors[name], like)
    restore_optimizer(optimizer, moments, state["optimizer"])
    for name, parameter in parameters.items():
        parameter.copy_(cut_like(tensors[name], parameter))
    for name, part in parts.items():
        part.load_state_dict(unplain(state["parts"][name]))


def _check_match(tensors: Mapping[str, Tensor], parameters: Mapping[str, Tensor]) -> None:
    unmatched = sorted({name for name in tensors if not name.startswith(_MOMENTS)} ^ set(parameters))
    if unmatched:
        raise ValueError(f"the checkpoint is of other models: {unmatched[0]} is on one side only")
    for name, parameter in parameters.items():
        here, there = (tuple(parameter.shape), parameter.dtype), (tuple(tensors[name].shape), tensors[name].dtype)
        if here != there:
            raise ValueError(f"the checkpoint is of other models: {name} is {there} in it and {here} here")


def _check_state(tensors: Mapping[str, Tensor], state: Mapping[str, Any], parts: Mapping[str, Any]) -> None:
    for name in ("tensors", "optimizer", "parts"):
        if name not in state:
            raise ValueError(f"the checkpoint lacks {name}: it is not whole")
    if set(state["tensors"]) != set(tensors):
        raise ValueError(f"the checkpoint lacks {min(set(state['tensors']) ^ set(tensors))}: it is not whole")
    if set(state["parts"]) != set(parts):
        name = min(set(state["parts"]) ^ set(parts))
        raise ValueError(f"the checkpoint and this trainer differ in {name}: only one of the two has it")
    for name, part in parts.items():
        missing = sorted(set(map(str, part.state_dict())) - set(map(str, unplain(state["parts"][name]))))
        if missing:
            raise ValueError(f"the checkpoint lacks {name}.{missing[0]}: it is not whole, or of another version")


# ------------------------------------------------------------------------------------------ optimizers
def optimizer_state(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    """An optimizer's moments as named tensors, and the options of its groups.

    Raises:
        TypeError: it keeps something else than tensors and numbers.
    """
    state = optimizer.state_dict()
    tensors = {}
    for index, entry in state["state"].items():
        for name, value in entry.items():
            if value is not None and not isinstance(value, Tensor | int | float):
                raise TypeError(
                    f"{type(optimizer).__name__} keeps {name!r} as a {type(value).__name__}, which a checkpoint does "
                    "not hold: choose an optimizer whose state is tensors and numbers"
                )
            if value is not None:
                tensors[f"{index}.{name}"] = torch.as_tensor(value)
    groups = [{k: v for k, v in group.items() if k != "params"} for group in state["param_groups"]]
    return tensors, [plain(group, f"group {i} of the optimizer") for i, group in enumerate(groups)]


def restore_optimizer(
    optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], groups: Sequence[Mapping[str, Any]]
) -> None:
    """Puts saved moments and group options back into an optimizer made over the same parameters.

    Raises:
        ValueError: its groups are others.
    """
    state = optimizer.state_dict()
    if len(groups) != len(state["param_groups"]):
        raise ValueError(
            f"the checkpoint's optimizer has {len(groups)} groups of parameters, this one {len(state['param_groups'])}"
        )
    entries: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, name = key.split(".", 1)
        entries.setdefault(int(index), {})[name] = value
    merged = [old | unplain(new) for old, new in zip(state["param_groups"], groups, strict=True)]
    optimizer.load_state_dict({"state": entries, "param_groups": merged})


# ------------------------------------------------------------------------------------------ plain values
_KIND = "kind of value"


def plain(value: Any, where: str) -> Any:
    """The value as JSON can hold it, without losing what JSON has no word for: tuples, odd keys, NaN and infinity.

    Raises:
        TypeError: a value that is more than numbers, texts, lists, tuples and mappings; `where` names it.
    """
    if isinstance(value, float) and value - value != 0:
        return {_KIND: "float", "value": str(value)}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list):
        return [plain(item, where) for item in value]
    if isinstance(value, tuple):
        return {_KIND: "tuple", "value": [plain(item, where) for item in value]}
    if isinstance(value, Mapping):
        if all(isinstance(key, str) for key in value) and _KIND not in value:
            return {key: plain(item, f"{where}.{key}") for key, item in value.items()}
        return {_KIND: "pairs", "value": [[plain(k, where), plain(v, f"{where}.{k}")] for k, v in value.items()]}
    raise TypeError(f"{where} is a {type(value).__name__}, which a checkpoint does not hold: only plain values are")


def unplain(value: Any) -> Any:
    """What `plain` was given."""
    if isinstance(value, list):
        return [unplain(item) for item in value]
    if not isinstance(value, dict):
        return value
    if _KIND not in value:
        return {key: unplain(item) for key, item in value.items()}
    return _MAKERS[value[_KIND]](unplain(value["value"]))


_MAKERS: Mapping[str, Callable[[Any], Any]] = {"float": float, "tuple": tuple, "pairs": dict}


# ------------------------------------------------------------------------------------------ generators
def generator_states() -> dict[str, Any]:
    """The process-wide generators of Python, NumPy and torch. Surefoot draws from none of them, but a reward may."""
    numpy_state: Any = np.random.get_state(legacy=False)  # noqa: NPY002 - the one that people's rewards draw from
    devices = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {
        "python": plain(random.getstate(), "the generator of Python"),
        "numpy": plain(numpy_state | {"state": _as_list(numpy_state["state"])}, "the generator of NumPy"),
        "torch": [bytes(state.tolist()).hex() for state in (torch.get_rng_state(), *devices)],
    }


def restore_generators(state: Mapping[str, Any]) -> None:
    """Puts the process-wide generators back to where they were."""
    random.setstate(unplain(state["python"]))
    numpy_state = unplain(state["numpy"])
    numpy_state["state"]["key"] = np.array(numpy_state["state"]["key"], dtype=np.uint32)
    np.random.set_state(numpy_state)  # noqa: NPY002 - see above
    cpu, *devices = [torch.tensor(list(bytes.fromhex(text)), dtype=torch.uint8) for text in state["torch"]]
    torch.set_rng_state(cpu)
    if len(devices) == torch.cuda.device_count():
        for index, device in enumerate(devices):
            torch.cuda.set_rng_state(device, index)


def _as_list(state: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in state.items()}


# ------------------------------------------------------------------------------------------ identity
def weights_digest(named: Mapping[str, Tensor]) -> str:
    """Tells frozen weights from others: a hash of names, shapes, types and the sum of each tensor's bits.

    The sum is of whole numbers, so it is exact and the same on every device; it takes one pass over the memory.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(named.items()):
        bits = tensor.detach().contiguous().view(_INTEGERS[tensor.element_size()])
        total = int(bits.sum(dtype=torch.int64)) if tensor.numel() else 0
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype} {total}\n".encode())
    return digest.hexdigest()


_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def prompts_digest(prompts: Sequence[Prompt]) -> str:
    """Tells a list of prompts from any other: a hash of their token ids and other columns, in order."""
    digest = hashlib.sha256()
    for prompt in prompts:
        digest.update(len(prompt.token_ids).to_bytes(8, "little"))
        digest.update(np.asarray(prompt.token_ids, dtype="<i8").tobytes())
        columns = [[str(name), value] for name, value in prompt.columns.items()]
        digest.update(json.dumps(columns, default=lambda value: type(value).__name__).encode())
    return digest.hexdigest()
