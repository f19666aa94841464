"""A reward model that is a LoRA adapter on the policy's own frozen base, so that no second base is held in memory."""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification

from surefoot.models import REWARD_ADAPTER, adapter_active, gradients_as_they_were
from surefoot.networks import base_of, trunk_of
from surefoot.rewards.adapter import RewardAdapter, read_adapter, tokenizer_source
from surefoot.rewards.model import ModelReward

_LOG = logging.getLogger("surefoot")

_PLAIN = {"peft_type", "task_type", "peft_version", "auto_mapping", "base_model_name_or_path", "inference_mode",
          "r", "lora_alpha", "lora_dropout", "rank_pattern", "alpha_pattern", "use_rslora", "fan_in_fan_out",
          "target_modules", "exclude_modules", "layers_to_transform", "layers_pattern", "modules_to_save"}  # fmt: skip
"""What may differ among adapters that leave their base as it is; whatever else is set may change it."""

_NO_MATTER = {"architectures", "dtype", "torch_dtype", "transformers_version", "_name_or_path", "use_cache",
              "pad_token_id", "bos_token_id", "eos_token_id", "num_labels", "id2label", "label2id",
              "problem_type", "score_shift"}  # fmt: skip
"""What of a model's config does not change its states."""


class SharedClassifier(nn.Module):
    """A classifier whose trunk is the policy's, under an adapter of its own. Its parameters are adapter and head.

    Args:
        classifier: the whole, the policy's trunk in it.
        policy: of peft; it holds the adapter.
        adapter: the adapter's name.
    """

    def __init__(self, classifier: Any, policy: nn.Module, adapter: str) -> None:
        super().__init__()
        self.config = classifier.config
        self._shared = (classifier, policy)  # in a tuple, since most of their weights are not this module's
        self._adapter = adapter
        for name, parameter in classifier.named_parameters():
            if f".{adapter}." in name or not name.startswith(f"{classifier.base_model_prefix}."):
                self.register_parameter(name.replace(f".{adapter}", "").replace(".", "/"), parameter)

    def get_input_embeddings(self) -> nn.Module:
        """The policy's."""
        embeddings: nn.Module = self._shared[0].get_input_embeddings()
        return embeddings

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Any:
        """What the classifier alone would say; the policy is left as it was."""
        classifier, policy = self._shared
        with adapter_active(policy, self._adapter):
            return classifier(input_ids=input_ids, attention_mask=attention_mask)


def adapter_reward(folder: str, policy: Any, special_tokens: Sequence[str] = ()) -> ModelReward:
    """The reward model of an adapter's folder, on the policy's base where that is the same, else on one of its own."""
    adapter, name = read_adapter(folder), Path(folder).name
    reason = "there is no policy beside it" if policy is None else why_apart(policy, adapter)
    if reason is not None:
        _LOG.info("reward %r has a base of its own in memory: %s", name, reason)
        return ModelReward(folder, special_tokens=special_tokens)
    _LOG.info("reward %r shares the policy's base: only its adapter and head are added", name)
    model = on_base_of(policy, adapter)
    return ModelReward(model, tokenizer_source(folder), name, special_tokens=special_tokens)


def on_base_of(policy: Any, adapter: RewardAdapter) -> SharedClassifier:
    """The classifier on the policy's base, to which its adapter is added, frozen. There is nothing in `why_apart`."""
    classifier = _without_weights(adapter)
    trunk = trunk_of(policy)
    setattr(classifier, classifier.base_model_prefix, trunk)
    like = next(trunk.parameters())
    head = {name: tensor.to(like.device, like.dtype) for name, tensor in adapter.head.items()}
    classifier.load_state_dict(head, strict=False, assign=True)
    shared = SharedClassifier(classifier.eval(), policy, _add_adapter(policy, adapter))
    return shared.requires_grad_(False).eval()


def why_apart(policy: Any, adapter: RewardAdapter) -> str | None:
    """Why an adapter cannot be on the policy's base; None where it can."""
    return next(_obstacles(policy, adapter), None)


def _obstacles(policy: Any, adapter: RewardAdapter) -> Iterator[str]:
    """Each in words, those first that are found fast."""
    if not hasattr(policy, "peft_config"):
        yield "all weights of the policy are trained"
        return
    yield from _of_the_policy(policy)
    yield from _of_the_adapter(adapter)
    base = base_of(policy)
    if not is_same_place(str(base.config.name_or_path), adapter.base):
        yield f"its base is {adapter.base}, the policy's is {base.config.name_or_path}"
    if _that_matters(base.config) != _that_matters(adapter.model_config):
        yield "the config of its base is not the policy's"
    whole = _without_weights(adapter)
    if whole.base_model_prefix != base.base_model_prefix or type(trunk_of(whole)) is not type(trunk_of(policy)):
        yield f"a {type(whole).__name__} is built differently from the policy's {type(base).__name__}"
    trunk = f"{whole.base_model_prefix}."
    if {name for name in whole.state_dict() if not name.startswith(trunk)} != set(adapter.head):
        yield "it has weights for more, or for less, than the head"
    modules = dict(base.named_modules())
    if not all(name.startswith(trunk) and name.split(".lora_")[0] in modules for name in adapter.lora):
        yield "it has LoRA where the policy has no layer"
    yield from _of_the_weights(policy, adapter.base)


def _of_the_policy(policy: Any) -> Iterator[str]:
    names = [name for name, parameter in policy.named_parameters() if parameter.requires_grad]
    if str(policy.peft_config[policy.active_adapter].peft_type) not in ("LORA", "PeftType.LORA") or not all(
        ".lora_" in name for name in names
    ):
        yield "more of the policy is trained than LoRA"
    if any(".lora_embedding_" in name for name, _ in policy.named_parameters()):
        yield "the policy has LoRA on its embeddings"


def _of_the_adapter(adapter: RewardAdapter) -> Iterator[str]:
    from surefoot.lora import LoraConfig

    if not isinstance(adapter.config, LoraConfig):
        yield "it is not LoRA"
        return
    plain, options = LoraConfig().to_dict(), adapter.config.to_dict()
    if options["init_lora_weights"] in (True, False, "gaussian"):  # other ways take something out of the base
        del options["init_lora_weights"]
    unusual = [name for name, value in options.items() if name not in _PLAIN and value != plain.get(name)]
    if unusual:
        yield f"it has {', '.join(unusual)}, which may change the base"
    if not all(name.endswith((".lora_A.weight", ".lora_B.weight")) for name in adapter.lora):
        yield "it has more than LoRA on linear layers"


def _of_the_weights(policy: Any, base: str) -> Iterator[str]:
    """What the policy's trunk has must be what is in the files of the base, number by number."""
    trunk, prefix = trunk_of(policy), f"{base_of(policy).base_model_prefix}."
    places = _places(base)
    for full, parameter in trunk.named_parameters():
        if ".lora_" in full:
            continue
        name = full.replace(".base_layer.", ".")
        key = next((k for k in (prefix + name, name) if k in places), None)
        if key is None:
            yield f"no safetensors file of {base} has {prefix}{name}, so that it cannot be compared with the policy's"
            return
        if not _is_same(places[key], key, parameter):
            yield f"{name} of the policy is not that of {base}"
            return


def _is_same(file: str, key: str, parameter: Tensor) -> bool:
    from safetensors import safe_open

    with safe_open(file, framework="pt") as tensors:
        saved: Tensor = tensors.get_tensor(key)
    return saved.shape == parameter.shape and torch.equal(saved.to(parameter.device).float(), parameter.float())


def _places(model: str) -> Mapping[str, str]:
    """Name of each saved tensor of a model -> the safetensors file that it is in. Only files on this machine count."""
    from safetensors import safe_open

    index = _file(model, "model.safetensors.index.json")
    if index is not None:
        names: dict[str, str] = json.loads(Path(index).read_text(encoding="utf-8"))["weight_map"]
        files = {part: _file(model, part) for part in set(names.values())}
        return {name: str(files[part]) for name, part in names.items() if files[part] is not None}
    whole = _file(model, "model.safetensors")
    if whole is None:
        return {}
    with safe_open(whole, framework="pt") as tensors:
        return dict.fromkeys(tensors.keys(), whole)


def _file(model: str, name: str) -> str | None:
    from transformers.utils.hub import cached_file

    found: str | None = cached_file(
        model,
        name,
        local_files_only=True,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    return found


def is_same_place(one: str, other: str) -> bool:
    """Whether two names of models lead to the same one."""
    paths = [Path(name).expanduser() for name in (one, other)]
    return one == other or (all(path.is_dir() for path in paths) and paths[0].samefile(paths[1]))


def _that_matters(config: Any) -> dict[str, Any]:
    return {name: value for name, value in config.to_dict().items() if name not in _NO_MATTER}


def _without_weights(adapter: RewardAdapter) -> Any:
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        return AutoModelForSequenceClassification.from_config(adapter.model_config, trust_remote_code=False)


def _add_adapter(policy: Any, adapter: RewardAdapter) -> str:
    """Puts the adapter's weights beside the policy's own, frozen and not active; gives the name it has there."""
    from surefoot.lora import LoraConfig

    used, active = set(policy.peft_config), policy.active_adapter
    name = next(n for i in range(len(used) + 1) if (n := f"{REWARD_ADAPTER}_{i}") not in used)
    c = adapter.config
    config = LoraConfig(
        r=c.r,
        lora_alpha=c.lora_alpha,
        rank_pattern=c.rank_pattern,
        alpha_pattern=c.alpha_pattern,
        use_rslora=c.use_rslora,
        fan_in_fan_out=c.fan_in_fan_out,
        target_modules=sorted({key.split(".lora_")[0] for key in adapter.lora}),
        task_type=policy.peft_config[active].task_type,
    )
    with torch.random.fork_rng(devices=[]), gradients_as_they_were(policy):
        policy.add_adapter(name, config)
        policy.set_adapter(active)
    parameters = dict(base_of(policy).named_parameters())
    with torch.no_grad():
        for key, tensor in adapter.lora.items():
            parameters[key.removesuffix("weight") + f"{name}.weight"].copy_(tensor)
    return name
