"""Rewards: how good an answer is, said by functions, by reward models here or behind HTTP, or by a weighted mix.

`make_reward` accepts all of them. `ModelReward` is loaded on first use, as it needs transformers.
"""

from typing import TYPE_CHECKING, Any

from surefoot.rewards.failure import RewardError, RewardUnavailableError
from surefoot.rewards.function import FunctionReward
from surefoot.rewards.mix import RewardMix, make_reward
from surefoot.rewards.remote import RemoteReward

if TYPE_CHECKING:
    from surefoot.rewards.model import ModelReward

__all__ = [
    "FunctionReward",
    "ModelReward",
    "RemoteReward",
    "RewardError",
    "RewardMix",
    "RewardUnavailableError",
    "make_reward",
]


def __getattr__(name: str) -> Any:
    if name != "ModelReward":
        raise AttributeError(f"module 'surefoot.rewards' has no attribute {name!r}")
    from surefoot.rewards.model import ModelReward

    return ModelReward
