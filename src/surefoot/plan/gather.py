"""Names in the options -> models in shapes, lengths of prompts, and the memory that there is."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from surefoot.assemble import lora_config
from surefoot.config import PPOConfig
from surefoot.loading import context_length, load_tokenizer
from surefoot.memory import LIBRARIES, Need, Work
from surefoot.needs import Shapes, need_of, tokens_of_a_pass, work_of
from surefoot.networks import trunk_of
from surefoot.rehearsal import on_meta, with_adapter
from surefoot.rollout import scoring_tokens
from surefoot.runtime import Runtime, free_memory_bytes, resident_bytes
from surefoot.setup import load_data, use_bfloat16


@dataclass(frozen=True, slots=True)
class Facts:
    """What does not change with the options that a plan tries.

    Attributes:
        queries: tokens of each prompt. device: where the run would be. base: bytes the process takes by itself.
        free: bytes that a run may take, `base` included. uncounted: rewards whose memory is not known here.
    """

    queries: tuple[int, ...]
    device: torch.device
    base: int
    free: int
    uncounted: tuple[str, ...]


def facts_of(c: PPOConfig) -> Facts:
    """Prompts are read, with the policy's tokenizer; of models only their config.

    Raises:
        ValueError: a name is missing or leads nowhere, or nothing says how long prompts are.
    """
    if not c.model_name:
        raise ValueError("model_name is missing: give it, or a --config that names it")
    device = Runtime().default_device()
    queries = _queries(c)
    _load_what_a_run_loads(c)
    on_host = device.type == "cpu"
    base = resident_bytes() + LIBRARIES if on_host else 0
    free = free_memory_bytes(device) + (resident_bytes() if on_host else 0)
    scorers = (*c.reward, *c.gold)
    known = {name for name in scorers if _is_model_folder(name)}
    uncounted = tuple(r for r in scorers if r not in known and ":" not in r and not r.endswith(".py"))
    return Facts(queries, device, base, free, uncounted)


class Reckoner:
    """What runs with one set of names and various options take; models are rehearsed once for each that needs it."""

    def __init__(self, facts: Facts, processes: int = 1) -> None:
        self.facts = facts
        self._processes = processes
        self._known: dict[PPOConfig, Need] = {}

    def need(self, c: PPOConfig) -> Need:
        """What a run with these options takes. On a CPU rows lie end to end, elsewhere in a rectangle."""
        limit = self.tokens(c) if c.max_tokens_per_microbatch == "auto" else c.max_tokens_per_microbatch
        return dataclasses.replace(self._models(c), work=self._work(c, limit), offload=c.offload_frozen)

    def tokens(self, c: PPOConfig) -> int:
        """What "auto" would be."""
        f = self.facts
        return tokens_of_a_pass(c, self._models(c), f.queries, f.free, f.device, self._processes)

    def _models(self, c: PPOConfig) -> Need:
        plain = c.replace(max_tokens_per_microbatch=None, offload_frozen=False)
        if plain not in self._known:
            f, half = self.facts, use_bfloat16(c.precision, self.facts.device)
            work = self._work(plain, None)
            self._known[plain] = need_of(
                plain,
                shapes_of_names(plain),
                work,
                device=f.device,
                bfloat16=half,
                base=f.base,
                processes=self._processes,
            )
        return self._known[plain]

    def _work(self, c: PPOConfig, limit: int | None) -> Work:
        device = self.facts.device
        padded, scoring = device.type != "cpu", scoring_tokens(device)
        return work_of(c, self.facts.queries, limit, padded=padded, processes=self._processes, scoring=scoring)


def shapes_of_names(c: PPOConfig) -> Shapes:
    """The models that the options name, in shapes."""
    name = str(c.model_name)
    adapter = lora_config(c.lora_r, c.lora_alpha) if c.lora_r else _adapter(c.adapter_name)
    own_reference = c.ref_model_name or (None if adapter is not None else name)
    return Shapes(
        policy=with_adapter(_language_model(name), adapter),
        critic=_critic(c.value_model_name or name) if c.critic == "model" else None,
        reference=None if own_reference is None else _language_model(own_reference),
        reference_adapter=c.adapter_name is not None and c.ref_model_name is None,
        rewards=[_reward(c, name) for name in (*c.reward, *c.gold) if _is_model_folder(name)],
    )


def _queries(c: PPOConfig) -> tuple[int, ...]:
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(str(c.model_name), trust_remote_code=False)
    room = context_length(_Configured(config))
    if c.dataset is not None:
        tokenizer = load_tokenizer(str(c.model_name), c.chat_template)
        prompts, _, _ = load_data(c, c.dataset, None, tokenizer, room)
        return tuple(len(p.token_ids) for p in prompts)
    longest = c.max_prompt_tokens or (None if room is None else room - c.max_new_tokens)
    if longest is None or longest < 1:
        raise ValueError("nothing says how long the prompts are: give dataset, or max_prompt_tokens")
    return (longest,)


@dataclass(frozen=True, slots=True)
class _Configured:
    config: Any


def _load_what_a_run_loads(c: PPOConfig) -> None:
    """A run imports these before it loads a model; what they take is then part of what this process takes."""
    import surefoot.trainer

    if c.lora_r or c.adapter_name:
        import surefoot.lora  # noqa: F401


def _adapter(name: str | None) -> Any:
    if name is None:
        return None
    from surefoot.lora import PeftConfig

    found = PeftConfig.from_pretrained(name)
    found.inference_mode = False
    return found


def _language_model(name: str) -> nn.Module:
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(name, trust_remote_code=False)
    return on_meta(lambda: AutoModelForCausalLM.from_config(config, dtype=torch.float32, trust_remote_code=False))


def _critic(name: str) -> nn.Module:
    return trunk_of(_language_model(name))


def _reward(c: PPOConfig, name: str) -> tuple[str, nn.Module, torch.dtype]:
    from transformers import AutoConfig
    from transformers import AutoModelForSequenceClassification as Classifier

    from surefoot.rewards.adapter import is_adapter, read_adapter

    adapter = read_adapter(name) if is_adapter(name) else None
    config = adapter.model_config if adapter else AutoConfig.from_pretrained(name, trust_remote_code=False)
    held = getattr(config, "dtype", None) or torch.float32
    model = on_meta(lambda: Classifier.from_config(config, dtype=torch.float32, trust_remote_code=False))
    if adapter is not None:
        model = with_adapter(model, _adapter(name))
        if not _shares_base(c, adapter.base):
            model.requires_grad_(True)
    return f"reward {Path(name).name}", model, held


def _shares_base(c: PPOConfig, base: str) -> bool:
    """Whether a run would most likely find the policy's base to be that of an adapter: it goes by the name here."""
    from surefoot.rewards.sharing import is_same_place

    return bool(c.lora_r or c.adapter_name) and is_same_place(str(c.model_name), base)


def _is_model_folder(name: str) -> bool:
    folder = Path(name).expanduser()
    return folder.is_dir() and any((folder / file).is_file() for file in ("config.json", "adapter_config.json"))
