"""PPO for RLHF in small, sure steps. Public names are loaded on first use, so importing this is quick."""

from importlib import import_module
from typing import Any

from surefoot.threads import share_cores

__version__ = "0.1.0"

_HOMES = {
    "PPOConfig": "surefoot.config",
    "PPOTrainer": "surefoot.trainer",
    "TrainResult": "surefoot.trainer",
    "Completion": "surefoot.types",
    "Prompt": "surefoot.types",
    "Rollout": "surefoot.types",
    "Experience": "surefoot.types",
    "UpdateStats": "surefoot.types",
    "StepStats": "surefoot.types",
    "Reward": "surefoot.types",
    "RewardOutput": "surefoot.types",
    "ops": "surefoot.ops",
}

__all__ = [*_HOMES, "__version__"]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'surefoot' has no attribute {name!r}")
    share_cores()  # where this is what loads torch
    home = import_module(_HOMES[name])
    return home if home.__name__ == f"surefoot.{name}" else getattr(home, name)


def __dir__() -> list[str]:
    return sorted(__all__)
