"""Models -> what they answer to the held-out prompts, how far that is from the baseline, and what scorers say of it.

Legend: `P` prompts, `K` answers to each. Every model draws with the same random numbers: answer k to prompt p has the
seed of (seed, p, k), whoever answers.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from surefoot.assemble import lora_config
from surefoot.checkpoint import read_checkpoint
from surefoot.engine.transformers import TransformersEngine
from surefoot.evaluate.runs import is_checkpoint, options_in, run_of
from surefoot.loading import context_length, end_ids, load_adapter, load_policy
from surefoot.models import CRITIC_ADAPTER, ActorCritic, Reference, ValueHead
from surefoot.networks import hidden_size_of
from surefoot.ops.seeds import derive_seed
from surefoot.rewards import RewardMix
from surefoot.rollout import Response, collect
from surefoot.runtime import Runtime
from surefoot.setup import use_bfloat16
from surefoot.statistics import sequence_kl
from surefoot.types import Completion, Prompt, Sampling


@dataclass(frozen=True, slots=True)
class Answers:
    """What one model did.

    Attributes:
        completions: prompt by prompt, K to each.
        values: name -> [P, K]: "kl" (nats per answer), "length" (tokens), "ended" (1 or 0), and what scorers say:
            "proxy" and "gold/<name>".
        seconds: of sampling, and of the passes for the divergence.
        exact: whether the divergence was summed over the vocabulary at every token.
    """

    completions: Sequence[Completion]
    values: Mapping[str, np.ndarray]
    seconds: float = 0.0
    exact: bool = True

    def part(self, answers: slice) -> "Answers":
        """Some of the answers to each prompt."""
        prompts, each = next(iter(self.values.values())).shape
        kept = [c for p in range(prompts) for c in self.completions[p * each : (p + 1) * each][answers]]
        return replace(self, completions=kept, values={name: x[:, answers] for name, x in self.values.items()})


def load_model(name: str, adapter: str | None, option: str) -> nn.Module:
    """A model by its name, with the adapter that is named on it; a folder with an adapter alone brings its base.

    A checkpoint is the policy of its run, with the weights that it had there.
    """
    device = Runtime().default_device()
    folder = Path(name).expanduser()
    if is_checkpoint(folder):
        return _load_checkpoint(folder, option)
    if adapter is None and (folder / "adapter_config.json").is_file() and not (folder / "config.json").is_file():
        from surefoot.lora import PeftConfig

        base = str(PeftConfig.from_pretrained(str(folder)).base_model_name_or_path or "")
        return load_adapter(load_policy(base, device=device, option=f"{option} (the base of {name})"), str(folder))
    model = load_policy(name, device=device, option=option)
    return model if adapter is None else load_adapter(model, adapter)


def _load_checkpoint(folder: Path, option: str) -> nn.Module:
    """The policy that a run began with, and on it the trained weights of a checkpoint.

    Raises:
        ValueError: its run says nothing of the policy, or has another one than the checkpoint is of.
    """
    options = options_in(run_of(folder))
    if not options.get("model_name"):
        raise ValueError(f"{option}={str(folder)!r}: its run's config.yaml, two folders up, names no model_name")
    policy: Any = load_model(str(options["model_name"]), options.get("adapter_name"), option)
    if options.get("lora_r"):
        from surefoot.lora import get_peft_model

        policy = get_peft_model(policy, lora_config(int(options["lora_r"]), int(options["lora_alpha"])))
    tensors = read_checkpoint(folder)[0]
    weights = {name.removeprefix("policy."): t for name, t in tensors.items() if name.startswith("policy.")}
    mine = {name: t for name, t in weights.items() if f".{CRITIC_ADAPTER}." not in name}
    there = dict(policy.named_parameters())
    wrong = [name for name, t in mine.items() if name not in there or there[name].shape != t.shape]
    if wrong or not mine:
        raise ValueError(
            f"{option}={str(folder)!r} is of another model than its run names: {(wrong or ['weights'])[0]}"
        )
    with torch.no_grad():
        for name, tensor in mine.items():
            there[name].copy_(tensor)
    return policy  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Sampler:
    """Asks models for answers to the same prompts, beside the same baseline.

    Attributes:
        baseline: loaded; the divergence is from it.
        precision: as the option of that name.
    """

    baseline: nn.Module
    tokenizer: Any
    prompts: Sequence[Prompt]
    sampling: Sampling
    seed: int
    precision: str = "auto"
    _bfloat16: bool = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_bfloat16", use_bfloat16(self.precision, next(self.baseline.parameters()).device))

    @torch.no_grad()
    def answers(self, policy: nn.Module, each: int) -> Answers:
        """`each` answers of `policy` to every prompt.

        Raises:
            ValueError: it has no room for prompt and answer.
        """
        room = context_length(policy)
        longest = max(len(p.token_ids) for p in self.prompts) + self.sampling.max_new_tokens
        if room is not None and room < longest:
            raise ValueError(f"prompt and answer take up to {longest} tokens, but one model reads only {room}")
        began = time.perf_counter()
        reference = Reference(self.baseline.requires_grad_(False).eval())
        models = ActorCritic(policy, ValueHead(hidden_size_of(policy)), reference, bfloat16=self._bfloat16)
        ends = end_ids(policy, self.tokenizer) | set(self.sampling.stop_token_ids)
        engine = TransformersEngine(policy, self.tokenizer, ends, autocast=models.sampling)
        rows = [prompt.token_ids for prompt in self.prompts for _ in range(each)]
        seeds = [derive_seed(self.seed, "compare", p.index, k) for p in self.prompts for k in range(each)]
        completions = engine.generate(rows, seeds, self.sampling)
        kl = np.zeros(len(rows))
        if policy is not self.baseline:
            kl = self._divergence(models, rows, completions)
        shape = (len(self.prompts), each)
        values = {
            "kl": kl.reshape(shape),
            "length": np.array([float(len(c.token_ids)) for c in completions]).reshape(shape),
            "ended": np.array([float(c.finish_reason == "stop") for c in completions]).reshape(shape),
        }
        exact = self._estimator(policy) == "full"
        return Answers(completions, values, time.perf_counter() - began, exact)

    def _estimator(self, policy: nn.Module) -> str:
        """How the divergence is computed: over the whole vocabulary, where policy and baseline have the same."""
        return "full" if _width(policy) == _width(self.baseline) else "k1"

    def _divergence(
        self, models: ActorCritic, rows: Sequence[Sequence[int]], said: Sequence[Completion]
    ) -> np.ndarray:
        responses = [Response(c.token_ids, [True] * len(c.token_ids), c.logprobs, c.finish_reason != "stop")
                     for c in said]  # fmt: skip
        rollout, _ = collect(
            models, rows, responses, temperature=self.sampling.temperature, kl_penalty=self._estimator(models.policy)
        )
        kl: np.ndarray = sequence_kl(rollout.kl, rollout.response_mask).double().cpu().numpy()
        return kl


def scored(answers: Answers, prompts: Sequence[Prompt], scorers: Mapping[str, RewardMix]) -> Answers:
    """The answers with what each scorer says of them beside the other values.

    Raises:
        RewardError: a scorer fails, or has no number for an answer.
    """
    each = len(answers.completions) // len(prompts)
    asked = [prompt for prompt in prompts for _ in range(each)]
    said = {name: np.array(mix(asked, list(answers.completions)).scores) for name, mix in scorers.items()}
    values = {name: x.reshape(len(prompts), each) for name, x in said.items()}
    return replace(answers, values={**answers.values, **values})


def _width(model: Any) -> int:
    return int(model.get_output_embeddings().weight.shape[0])
