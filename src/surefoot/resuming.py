"""A trainer into a checkpoint, and a checkpoint into a trainer that goes on exactly as the other would have.

What must be the same is compared first: options, frozen models, prompts, number of processes. Where the machine is
another, the numbers may differ in their last digits, and that is said.
"""

import json
import math
import platform
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
import transformers
from torch import Tensor, nn

from surefoot import __version__
from surefoot.changes import check_changes, stored_options
from surefoot.checkpoint import begin, finish, part_name, put, read_checkpoint, unfinished_on_failure, write_checkpoint
from surefoot.config import PPOConfig
from surefoot.models import REWARD_ADAPTER, ActorCritic
from surefoot.progress import Progress
from surefoot.rewards import RewardMix
from surefoot.runtime import Runtime
from surefoot.sampling import Ahead, ahead_of
from surefoot.sharding import cut_like, parts_of_all
from surefoot.snapshot import (
    generator_states,
    pack,
    plain,
    prompts_digest,
    restore_generators,
    unpack,
    unplain,
    weights_digest,
)
from surefoot.types import Prompt


@runtime_checkable
class Resumable(Protocol):
    """What is needed of a trainer."""

    config: PPOConfig
    runtime: Runtime
    models: ActorCritic
    optimizer: torch.optim.Optimizer
    progress: Progress
    kl_controller: Any
    score_scaler: Any
    stop_rules: Any
    faults: Any
    lr_scheduler: Any
    references: Any
    ahead: Ahead | None

    @property
    def identity(self) -> Mapping[str, str]:
        """What `identity_of` says of it."""
        ...


def save_trainer(trainer: Resumable, path: str | Path) -> None:
    """Writes everything needed to go on exactly. Called on every process; the main one writes."""
    runtime, progress = trainer.runtime, trainer.progress
    tensors, state = pack(trainer.models.trainable(), trainer.optimizer, _stateful(trainer))
    state["generators"] = runtime.gather([generator_states()])
    if trainer.config.overlap:
        asked = None if trainer.ahead is None else plain(trainer.ahead.state_dict(), "an answer")
        state["ahead"] = runtime.gather([asked])
    evaluation = progress.evaluated()
    score, gold = (None, None) if evaluation is None else (_finite(evaluation.score), _finite(evaluation.gold))
    about = {"step": progress.steps, "world_size": runtime.world_size, "evaluated": evaluation is not None,
             "score": score, "gold": gold}  # fmt: skip
    with runtime.together():
        if runtime.is_main:
            state["config"] = plain(stored_options(trainer.config), "config")
            state["identity"] = dict(trainer.identity)
            state["machine"] = machine(trainer.models.device)
            if not trainer.models.in_shares:
                write_checkpoint(path, tensors, state, about)
    if trainer.models.in_shares:
        _write_in_shares(runtime, path, tensors, state, about)


def _stateful(trainer: Resumable) -> dict[str, Any]:
    """Its parts that have a state of their own."""
    names = ("progress", "kl_controller", "score_scaler", "stop_rules", "faults", "lr_scheduler", "references")
    parts = {name: getattr(trainer, name) for name in names}
    return {name: part for name, part in parts.items() if part is not None}


def _write_in_shares(
    runtime: Runtime,
    path: str | Path,
    tensors: Mapping[str, Tensor],
    state: Mapping[str, Any],
    about: Mapping[str, Any],
) -> None:
    """A checkpoint into which every process writes its own shares; the folder is one that all of them see."""
    mine = parts_of_all(tensors, is_main=runtime.is_main)
    text = json.dumps(state, indent=1, allow_nan=False)
    size = len(text) + sum(runtime.gather([sum(t.nbytes for t in mine.values())]))
    begun: list[Path] = []
    with runtime.together():
        begun += [begin(path, size)] if runtime.is_main else []
    folder = runtime.gather(begun)[0]
    with unfinished_on_failure(folder, path, size):
        name, entry = part_name(runtime.rank, runtime.world_size), {}
        with runtime.together():
            entry = put(folder, name, mine)
        files = dict(runtime.gather([(name, entry)]))
        with runtime.together():
            if runtime.is_main:
                finish(folder, path, files, text, about)


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


@torch.no_grad()
def restore_weights(trainer: Resumable, path: str | Path) -> None:
    """Puts the trained weights of a checkpoint into the models; optimizer, counters and all else stay as they are.

    Raises:
        ValueError: not a checkpoint.
    """
    with trainer.runtime.together():
        tensors, _, _ = read_checkpoint(path)
        for name, parameter in trainer.models.trainable().items():
            parameter.copy_(cut_like(tensors[name], parameter))


def restore_trainer(
    trainer: Resumable, path: str | Path, *, allow_changes: bool = False, allow_topology_change: bool = False
) -> list[str]:
    """Goes on from what `save_trainer` wrote, in a trainer made from the same starting models and options.

    Returns:
        The options that changed, each in words.

    Raises:
        ValueError: not a checkpoint, or one of another run; nothing was changed then.
    """
    runtime = trainer.runtime
    with runtime.together():
        tensors, state, manifest = read_checkpoint(path)
        missing = sorted(_needed(state) - set(state))
        if missing:
            raise ValueError(f"{path} has no {missing[0]}: it is not a whole checkpoint of a trainer")
        changed = check_changes(unplain(state["config"]), trainer.config, allow=allow_changes)
        _check_identity(state["identity"], trainer.identity, allow=allow_changes)
        _check_processes(manifest["world_size"], runtime.world_size, allow=allow_topology_change)
        if runtime.is_main:
            _warn_of_another_machine(state["machine"], machine(trainer.models.device))
        unpack(tensors, state, trainer.models.trainable(), trainer.optimizer, _stateful(trainer))
        if runtime.rank < len(state["generators"]):
            restore_generators(state["generators"][runtime.rank])
        trainer.ahead = _asked_ahead(trainer, state.get("ahead", []))
    return changed


def _needed(state: Mapping[str, Any]) -> set[str]:
    overlaps = unplain(state.get("config", {})).get("overlap", False)
    return {"generators", "config", "identity", "machine"} | ({"ahead"} if overlaps else set())


def _asked_ahead(trainer: Resumable, asked: Sequence[Any]) -> Ahead | None:
    """What this process had asked for ahead; where the run is another now, its prompts are asked for anew."""
    found = [None if state is None else ahead_of(unplain(state)) for state in asked]
    if trainer.config.overlap and len(found) == trainer.runtime.world_size:
        return found[trainer.runtime.rank]
    if found and found[0] is not None:
        trainer.progress.generations = found[0].call  # the call was not made
    return None


def read_options(path: str | Path) -> tuple[PPOConfig, dict[str, str]]:
    """The options that a checkpoint was written under, and the digests of what its run was made of.

    Raises:
        ValueError: it is no whole checkpoint, or has an option that this version does not know.
    """
    _, state, _ = read_checkpoint(path)
    options: dict[str, Any] = unplain(state["config"])
    return PPOConfig(**options), dict(state["identity"])


# ------------------------------------------------------------------------------------------ the same run
def identity_of(
    models: ActorCritic,
    reward: RewardMix | None,
    gold: RewardMix | None,
    prompts: Sequence[Prompt],
    eval_prompts: Sequence[Prompt],
) -> dict[str, str]:
    """A digest of everything that is given and never changes: frozen weights, reward and gold models, prompts."""
    trained = {id(p) for p in models.trainable().values()}
    named = models.policy.named_parameters()
    frozen = {n: p for n, p in named if id(p) not in trained and f".{REWARD_ADAPTER}_" not in n}
    if models.reference.model is not models.policy:
        frozen |= {f"reference.{name}": p for name, p in models.reference.model.named_parameters()}
    found = {"reference": weights_digest(frozen)}
    scorers = {f"{kind} {name}": part for kind, mix in (("reward", reward), ("gold", gold)) if mix is not None
               for name, part in mix.rewards.items()}  # fmt: skip
    for name, part in scorers.items():
        model = getattr(part, "model", None)
        if isinstance(model, nn.Module) and not trained & {id(p) for p in model.parameters()}:
            found[name] = weights_digest(dict(model.named_parameters()))
    return found | {"dataset": prompts_digest(prompts), "eval_dataset": prompts_digest(eval_prompts)}


def machine(device: torch.device) -> dict[str, str]:
    """What the last digits of a number depend on."""
    return {
        "surefoot": __version__,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "python": platform.python_version(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "instruction set": f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}",
        "threads": str(torch.get_num_threads()),
    }


def _check_identity(saved: Mapping[str, str], here: Mapping[str, str], *, allow: bool) -> None:
    others = sorted(name for name in set(saved) | set(here) if saved.get(name) != here.get(name))
    if others and not allow:
        raise ValueError(
            f"{', '.join(others)}: not what the checkpoint's run had (their weights, or the tokens of the prompts, "
            "differ): give what it began with, or, where the change is meant, say --allow-changes (in Python: "
            "allow_changes=True)"
        )


def _check_processes(saved: int, here: int, *, allow: bool) -> None:
    if saved != here and not allow:
        raise ValueError(
            f"the checkpoint is of {saved} process{'es' * (saved > 1)}, this run has {here}: prompts and seeds would "
            "be the same, but sums are rounded in another order, so it would not end as it would have. Start as many, "
            "or say --allow-topology-change (in Python: allow_topology_change=True)"
        )


def _warn_of_another_machine(saved: Mapping[str, str], here: Mapping[str, str]) -> None:
    others = [f"{name} {saved.get(name)} -> {here[name]}" for name in here if saved.get(name) != here[name]]
    if others:
        warnings.warn(
            f"the run goes on under other conditions ({', '.join(others)}): its numbers may differ in their last "
            "digits from those of a run that was not stopped",
            stacklevel=3,
        )
