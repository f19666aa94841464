"""The policy's weights as a folder that vLLM loads: whole or not there, and it says which version it is.

    <home>/weights_000003/
      config.json, model.safetensors, tokenizer.json, ...    as AutoModelForCausalLM loads them, adapters merged
      surefoot.json                                          version, sizes of files, number of tensors, tied ones

It is written under another name and renamed when it is complete.
"""

import contextlib
import copy
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from surefoot.engine.vllm.worker import MANIFEST

_SHARED_MEMORY = Path("/dev/shm")


def make_home(model: nn.Module) -> Path:
    """A folder of our own for weights: in shared memory where three times as much as they take is free."""
    need = 3 * sum(p.numel() * p.element_size() for p in model.parameters())
    roomy = os.access(_SHARED_MEMORY, os.W_OK) and shutil.disk_usage(_SHARED_MEMORY).free > need
    return Path(tempfile.mkdtemp(prefix="surefoot-vllm-", dir=_SHARED_MEMORY if roomy else None))


def write_weights(home: Path, version: int, policy: Any, tokenizer: Any, dtype: torch.dtype) -> Path:
    """Writes the weights of a version; the folder, complete.

    Args:
        home: where it is written.
        version: its number.
        policy: the model, in its adapter or not.
        tokenizer: the policy's.
        dtype: what the numbers are rounded to.

    Raises:
        OSError: there is no room, or it cannot be written. ValueError: the weights are spread over processes.
    """
    place, unfinished = home / f"weights_{version:06d}", home / "unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    model = _merged(policy)
    state = {name: _rounded(tensor, dtype) for name, tensor in model.state_dict().items()}
    with _without_bars():
        model.save_pretrained(unfinished, state_dict=state)
    tokenizer.save_pretrained(unfinished)
    files = sorted(unfinished.glob("*.safetensors"))
    names = [name for file in files for name in _names(file)]
    manifest = {
        "version": version,
        "files": {file.name: file.stat().st_size for file in files},
        "tensors": len(names),
        "tied": _tied(model, names),
    }
    (unfinished / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
    return unfinished.rename(place)


@contextlib.contextmanager
def _without_bars() -> Iterator[None]:
    """A bar for every step would draw over what the run shows."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _merged(policy: Any) -> Any:
    """The model without its adapter's layers, their product added to the weights: a copy, the policy is as it was."""
    if not hasattr(policy, "peft_config"):
        return policy
    return copy.deepcopy(policy).merge_and_unload(adapter_names=[policy.active_adapter])


def _rounded(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    if hasattr(tensor, "full_tensor"):
        raise ValueError("engine='vllm' needs whole weights, but these are spread over processes: use 'transformers'")
    return tensor.detach().to(dtype) if tensor.is_floating_point() else tensor.detach()


def _names(file: Path) -> list[str]:
    with safe_open(file, "pt") as tensors:
        return list(tensors.keys())


def _tied(model: Any, names: list[str]) -> dict[str, str]:
    """Output weights that are not in the files because they are those of the embeddings -> where they are."""
    output, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    if output is None or output.weight is not embedding.weight:
        return {}
    where = {id(module): name for name, module in model.named_modules()}
    tied, source = f"{where[id(output)]}.weight", f"{where[id(embedding)]}.weight"
    return {} if tied in names else {tied: source}
