"""Values that suit a model of some size, and words about values that lie far outside what is known to work."""

from collections.abc import Mapping
from typing import Any

from surefoot import limits

_BY_SIZE = ("learning_rate", "cliprange", "ppo_epochs", "init_kl_coef", "target_kl")
JUDGED = ("learning_rate", "engine", "importance_cap", "overlap", *(name for name, *_ in limits.BANDS))
"""The options that there may be a word about."""


def values_for(num_parameters: int, *, adapter: bool) -> dict[str, Any]:
    """The recommended values of the options that depend on a policy's size; sources: docs/details.md."""
    billions = num_parameters / 1e9
    values = dict(zip(_BY_SIZE, next(row for most, row in limits.BY_SIZE if billions <= most), strict=True))
    return values | {"learning_rate": values["learning_rate"] * (10 if adapter else 1)}


def sentences(values: Mapping[str, Any], num_parameters: int, *, adapter: bool) -> list[str]:
    """One plain sentence for each value of `JUDGED` that lies far outside what is known to work at this size."""
    best, rate = values_for(num_parameters, adapter=adapter)["learning_rate"], values["learning_rate"]
    size = f"{num_parameters / 1e9:.2g}B" if num_parameters >= 1e8 else f"{num_parameters / 1e6:.2g}M"
    reach = 20 if num_parameters >= 5e7 else 2000  # toy models bear, and need, far larger rates
    found = []
    if rate > best * reach:
        found.append(
            f"learning_rate={rate:g} is far above the {best:g} recommended for {size} parameters: the policy usually "
            "collapses (KL explodes, ratio leaves the clip range)"
        )
    if 0 < rate < best / 100:
        found.append(
            f"learning_rate={rate:g} is far below the {best:g} recommended for {size} parameters: expect no visible "
            "learning"
        )
    if values["overlap"] and values["importance_cap"] is None:
        found.append(
            "overlap learns from answers of weights that are a step old, and nothing corrects for it: set "
            "importance_cap=2"
        )
    elif values["engine"] == "vllm" and values["importance_cap"] is None:
        found.append(
            "engine='vllm' draws answers with other roundings than the policy is trained with, and nothing corrects "
            "for it: set importance_cap=2"
        )
    for name, low, high, why in limits.BANDS:
        value = values[name]
        if value is not None and not low <= value <= high:
            found.append(f"{name}={value:g} lies outside {low:g}-{high:g}: {why}")
    return found
