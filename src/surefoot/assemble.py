"""The models a user brings -> one `ActorCritic` whose first KL to its reference is exactly 0."""

import copy
from typing import Any

import torch
from torch import nn

from surefoot.models import (
    CRITIC_ADAPTER,
    REFERENCE_ADAPTER,
    ActorCritic,
    AdapterCritic,
    Critic,
    Reference,
    ValueHead,
    ValueModel,
    adapter_active,
    adapters_off,
    frozen_copy,
)
from surefoot.networks import hidden_size_of
from surefoot.ops.seeds import derive_seed


def assemble(
    model: Any,
    ref_model: Any,
    value_model: Any,
    *,
    peft_config: Any,
    critic: str,
    bfloat16: bool,
    gradient_checkpointing: bool,
    seed: int,
) -> ActorCritic:
    """Policy in float32, reference frozen, critic of the kind that was asked for.

    Raises:
        ValueError: models that cannot be used together; the argument is named.
    """
    _check_models(model, ref_model, peft_config, critic)
    with torch.random.fork_rng(devices=[]):  # peft draws its first weights from the global generator
        torch.manual_seed(derive_seed(seed, "adapters"))
        policy = _with_adapter(model, peft_config)
        adapted = hasattr(policy, "peft_config")
        if not (adapted and bfloat16):
            policy.float()
        for parameter in policy.parameters():
            if parameter.requires_grad and parameter.dtype != torch.float32:
                parameter.data = parameter.data.float()  # a step of 1e-6 vanishes in the rounding of bfloat16
        reference = _reference(policy, ref_model, adapted)
        value = _critic(policy, value_model, critic)
    for name, other in (("ref_model", reference.model), ("value_model", getattr(value, "trunk", policy))):
        _check_vocabulary(name, other, policy)
    models = ActorCritic(policy, value, reference, bfloat16=bfloat16, gradient_checkpointing=gradient_checkpointing)
    if bfloat16 and reference.model is not policy:
        hold_in_bfloat16(reference.model)  # not so a base under LoRA: others may run it without autocast, or merge it
    return models


def lora_config(r: int, alpha: int) -> Any:
    """A LoRA adapter on every linear layer, without dropout; None where the rank is 0."""
    if r == 0:
        return None
    from surefoot.lora import LoraConfig

    return LoraConfig(r=r, lora_alpha=alpha, target_modules="all-linear", lora_dropout=0.0, task_type="CAUSAL_LM")


def vocabulary_size(models: ActorCritic, tokenizer: Any, *, exact_kl: bool) -> int:
    """Tokens that the policy may write.

    Args:
        models: policy and reference.
        tokenizer: the policy's.
        exact_kl: whole distributions of policy and reference are compared.

    Raises:
        ValueError: the tokenizer has more, or the reference has another number where that matters.
    """
    both: list[Any] = [models.policy, models.reference.model]
    size, ref_size = (int(m.get_output_embeddings().weight.shape[0]) for m in both)
    if len(tokenizer) > size:
        raise ValueError(
            f"the tokenizer has {len(tokenizer)} tokens but the model only {size}: they do not belong together, or "
            "the model's embeddings were not resized"
        )
    if exact_kl and ref_size != size:
        raise ValueError(
            f"kl_penalty='full' compares whole distributions, but ref_model has {ref_size} tokens and the policy "
            f"{size}: choose another kl_penalty, or resize the reference's embeddings"
        )
    return size


def _check_models(model: Any, ref_model: Any, peft_config: Any, critic: str) -> None:
    if isinstance(model, str) or not isinstance(model, nn.Module):
        raise ValueError(f"model must be a loaded causal language model, not {model!r}: use AutoModelForCausalLM")
    embeddings: Any = getattr(model, "get_output_embeddings", None)
    if embeddings is None or embeddings() is None:
        raise ValueError(f"model is a {type(model).__name__}, which predicts no tokens: use AutoModelForCausalLM")
    if getattr(model.config, "is_encoder_decoder", False):
        raise ValueError(
            f"model is the encoder-decoder {type(model).__name__}; only causal language models are supported"
        )
    if ref_model is model:
        raise ValueError(
            "ref_model is the same object as the model, so it would be trained along with it: load it a second time, "
            "or leave it out for a frozen copy"
        )
    adapted = hasattr(model, "peft_config")
    if peft_config is not None and adapted:
        raise ValueError("peft_config was given, but the model has an adapter already: give one of the two")
    if critic == "adapter" and not adapted and peft_config is None:
        raise ValueError("critic='adapter' shares a frozen base with the policy, so the policy needs LoRA: set lora_r")
    if adapted and not any(p.requires_grad for p in model.parameters()):
        raise ValueError("model has a frozen adapter: load it with PeftModel.from_pretrained(..., is_trainable=True)")


def _check_vocabulary(name: str, other: Any, policy: Any) -> None:
    """Refuses a model that cannot read every id that the policy may write."""
    known, needed = (m.get_input_embeddings().weight.shape[0] for m in (other, policy))
    if known < needed:
        raise ValueError(
            f"{name} knows {known} tokens and the policy {needed}: it reads the policy's token ids, so it must have "
            "the same tokenizer (a reward model may have another: it is given text). Where only the padding of the "
            f"embeddings differs, {name}.resize_token_embeddings({needed}) makes room"
        )


def _with_adapter(model: Any, peft_config: Any) -> Any:
    if peft_config is None:
        if not hasattr(model, "peft_config"):
            model.requires_grad_(True)
        return model
    from surefoot.lora import get_peft_model

    return get_peft_model(model, peft_config)


def _reference(policy: Any, ref_model: Any, adapted: bool) -> Reference:
    """What was given; else the policy as it starts: a copy, or with LoRA the base or a frozen copy of its adapter."""
    if ref_model is not None:
        first = next(policy.parameters())
        return Reference(ref_model.requires_grad_(False).eval().to(first.device, first.dtype))
    if not adapted:
        return Reference(frozen_copy(policy))
    if _is_fresh(policy):
        return Reference(policy, lambda: adapters_off(policy))
    _copy_adapter(policy, REFERENCE_ADAPTER)
    return Reference(policy, lambda: adapter_active(policy, REFERENCE_ADAPTER))


def hold_in_bfloat16(model: nn.Module) -> None:
    """Rounds the weights of linear layers once, as autocast would at every pass: the same numbers, half the memory.

    Embeddings and norms stay as they are, as under autocast; an output matrix tied to the embeddings is untied.
    """
    from transformers.pytorch_utils import Conv1D

    for layer in model.modules():
        if isinstance(layer, nn.Linear | Conv1D):
            for name, parameter in layer.named_parameters(recurse=False):
                setattr(layer, name, nn.Parameter(parameter.detach().bfloat16(), requires_grad=False))


def _is_fresh(policy: Any) -> bool:
    """Whether the adapter does nothing yet: every LoRA B is 0, and nothing but LoRA is trained."""
    trained = [(n, p) for n, p in policy.named_parameters() if p.requires_grad]
    second = [p for n, p in trained if "lora_B" in n or "lora_embedding_B" in n]
    return all("lora_" in n for n, _ in trained) and not any(p.any() for p in second)


def _copy_adapter(policy: Any, name: str) -> None:
    """Adds a frozen copy of the active adapter."""
    active = policy.active_adapter
    policy.add_adapter(name, copy.deepcopy(policy.peft_config[active]))
    parameters = dict(policy.named_parameters())
    for key, parameter in parameters.items():
        if f".{name}." in key:
            parameter.data.copy_(parameters[key.replace(f".{name}.", f".{active}.")].data)
            parameter.requires_grad_(False)
    policy.set_adapter(active)


def _critic(policy: Any, value_model: Any, kind: str) -> Critic:
    if value_model is not None:
        return _trainable(ValueModel(value_model))
    if kind == "model":
        base = policy
        if hasattr(policy, "peft_config"):
            base = copy.deepcopy(policy).merge_and_unload()
        return _trainable(ValueModel(copy.deepcopy(base)))
    width = hidden_size_of(policy)
    if kind == "head":
        return ValueHead(width)
    active = policy.active_adapter
    policy.add_adapter(CRITIC_ADAPTER, copy.deepcopy(policy.peft_config[active]))
    policy.set_adapter(active)
    for name, parameter in policy.named_parameters():
        if f".{CRITIC_ADAPTER}." in name:
            parameter.data = parameter.data.float()
            parameter.requires_grad_(True)
    return AdapterCritic(width)


def _trainable(critic: ValueModel) -> ValueModel:
    return critic.float().requires_grad_(True)
