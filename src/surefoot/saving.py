"""The trained models in transformers' own format, and the critic beside them."""

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from surefoot.models import CRITIC_ADAPTER, ActorCritic, AdapterCritic, ValueHead, ValueModel
from surefoot.sharding import cut_like, whole


def save_models(models: ActorCritic, tokenizer: Any, path: Path, *, is_main: bool) -> None:
    """Writes policy and tokenizer so that AutoModelForCausalLM loads them, and the critic in critic/ beside.

    Called on every process; the main one writes.
    """
    if is_main or models.in_shares:
        policy, critic = models.assembled_policy(keep=is_main), critic_tensors(models)
    if is_main:
        save_policy(policy, tokenizer, path)
        save_critic(models, path.parent / "critic", critic)


def save_policy(policy: Any, tokenizer: Any, path: Path) -> None:
    """Writes the policy so that AutoModelForCausalLM loads it, with its tokenizer.

    An adapter is written as an adapter where its base can be found again by name, and merged where it cannot.
    """
    if hasattr(policy, "peft_config"):
        base = policy.peft_config[policy.active_adapter].base_model_name_or_path
        if base and Path(base).exists():
            policy.save_pretrained(path, selected_adapters=[policy.active_adapter])
        else:
            copy.deepcopy(policy).merge_and_unload(adapter_names=[policy.active_adapter]).save_pretrained(path)
    else:
        policy.save_pretrained(path)
    tokenizer.save_pretrained(path)


def critic_tensors(models: ActorCritic) -> dict[str, torch.Tensor]:
    """The critic's own weights, by name, as a whole; called on every process."""
    return {name: whole(t.detach()).cpu() for name, t in _tensors(models).items()}


def save_critic(models: ActorCritic, path: Path, tensors: Mapping[str, torch.Tensor] | None = None) -> None:
    """Writes the critic's own weights as safetensors, with a note of its kind; `tensors` are those, if known."""
    path.mkdir(parents=True, exist_ok=True)
    found = critic_tensors(models) if tensors is None else tensors
    save_file({name: t.contiguous().clone() for name, t in found.items()}, path / "critic.safetensors")
    (path / "critic.json").write_text(json.dumps({"kind": _kind(models.critic)}))


def load_critic(models: ActorCritic, path: str | Path) -> None:
    """Puts a saved critic back into models whose critic is of the same kind and shape.

    Raises:
        ValueError: it is of another kind.
    """
    kind = json.loads((Path(path) / "critic.json").read_text())["kind"]
    if kind != _kind(models.critic):
        raise ValueError(f"{path} holds a critic of kind {kind!r}, but this trainer's is {_kind(models.critic)!r}")
    saved = load_file(Path(path) / "critic.safetensors")
    with torch.no_grad():
        for name, tensor in _tensors(models).items():
            tensor.copy_(cut_like(saved[name], tensor))


def _kind(critic: nn.Module) -> str:
    return {ValueHead: "head", AdapterCritic: "adapter", ValueModel: "model"}[type(critic)]


def _tensors(models: ActorCritic) -> dict[str, torch.Tensor]:
    adapter = {f"adapter.{n}": p for n, p in models.policy.named_parameters() if f".{CRITIC_ADAPTER}." in n}
    return {**models.critic.state_dict(), **adapter}
