"""Saving and restoring a run exactly: tensors as safetensors, the rest as JSON, in a folder whole or absent."""

import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

FORMAT = 1


def write_checkpoint(path: str | Path, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
    """Writes a checkpoint folder. Until it is complete it does not have its name.

    Raises:
        FileExistsError: there is something at `path` already.
    """
    path = Path(path)
    if path.exists():
        raise FileExistsError(f"{path} exists already; a checkpoint is never written over another")
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    try:
        save_file(
            {name: t.detach().cpu().contiguous() for name, t in tensors.items()}, unfinished / "tensors.safetensors"
        )
        (unfinished / "state.json").write_text(json.dumps({"format": FORMAT} | dict(state), indent=1))
        for file in unfinished.iterdir():
            with file.open("rb") as written:
                os.fsync(written.fileno())
        unfinished.rename(path)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise


def read_checkpoint(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and state of a checkpoint folder.

    Raises:
        ValueError: it is not a checkpoint, or of a format that is not known here.
    """
    path = Path(path)
    if not (path / "state.json").is_file() or not (path / "tensors.safetensors").is_file():
        raise ValueError(f"{path} is not a checkpoint: it needs state.json and tensors.safetensors")
    state = json.loads((path / "state.json").read_text())
    if state.get("format") != FORMAT:
        raise ValueError(f"{path} has checkpoint format {state.get('format')!r}; this version reads {FORMAT}")
    return load_file(path / "tensors.safetensors"), state


def optimizer_state(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], list[dict[str, float]]]:
    """An optimizer's moments as named tensors, and the numbers of its groups."""
    state = optimizer.state_dict()
    tensors = {}
    for index, entry in state["state"].items():
        for name, value in entry.items():
            if value is not None:
                tensors[f"{index}.{name}"] = torch.as_tensor(value)
    groups = [{k: v for k, v in group.items() if isinstance(v, int | float)} for group in state["param_groups"]]
    return tensors, groups


def restore_optimizer(
    optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], groups: Sequence[Mapping[str, float]]
) -> None:
    """Puts saved moments and group numbers back into an optimizer made over the same parameters."""
    state = optimizer.state_dict()
    entries: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, name = key.split(".", 1)
        entries.setdefault(int(index), {})[name] = value
    merged = [old | dict(new) for old, new in zip(state["param_groups"], groups, strict=True)]
    optimizer.load_state_dict({"state": entries, "param_groups": merged})


def pack(
    parameters: Mapping[str, Tensor], optimizer: torch.optim.Optimizer, parts: Mapping[str, Any]
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the state of a checkpoint. `parts` are objects with `state_dict` and `load_state_dict`."""
    moments, groups = optimizer_state(optimizer)
    tensors = dict(parameters) | {f"optimizer.{name}": t for name, t in moments.items()}
    return tensors, {"optimizer": groups} | {name: part.state_dict() for name, part in parts.items()}


@torch.no_grad()
def unpack(
    tensors: Mapping[str, Tensor],
    state: Mapping[str, Any],
    parameters: Mapping[str, Tensor],
    optimizer: torch.optim.Optimizer,
    parts: Mapping[str, Any],
) -> None:
    """Puts a checkpoint back into the parts of a trainer that was made like the one it came from.

    Raises:
        ValueError: it is of other models.
    """
    saved = {name for name in tensors if not name.startswith("optimizer.")}
    unmatched = sorted(saved ^ set(parameters))
    if unmatched:
        raise ValueError(f"the checkpoint is of other models: {unmatched[0]} is on one side only")
    for name, parameter in parameters.items():
        parameter.copy_(tensors[name])
    moments = {name.removeprefix("optimizer."): t for name, t in tensors.items() if name.startswith("optimizer.")}
    restore_optimizer(optimizer, moments, state["optimizer"])
    for name, part in parts.items():
        part.load_state_dict(state[name])
