"""The smallest change of the options with which a run fits. What alters no number is tried first."""

from collections.abc import Callable, Iterator
from typing import Any

from surefoot.config import PPOConfig
from surefoot.memory import MARGIN, Need, peak

LORA_R = 16


def fits(need: Need, free: int) -> bool:
    """Whether the fullest stage leaves the margin of the reckoning free."""
    return peak(need).total <= (1 - MARGIN) * free


def smallest_change(
    c: PPOConfig, need_of: Callable[[PPOConfig], Need], free: int, *, bfloat16: bool
) -> dict[str, Any] | None:
    """Options to set so that the run fits, or None where nothing that is tried does.

    Args:
        c: options with which it does not fit.
        need_of: what a run takes.
        free: bytes that there are.
        bfloat16: the device multiplies in bfloat16.
    """
    for changes in _candidates(c, bfloat16):
        changed = c.replace(**changes)
        need = need_of(changed)
        if fits(need, free):
            return changes
        tokens = _tokens_that_fit(changed, need, need_of, free)
        if tokens is not None:
            return changes | {"max_tokens_per_microbatch": tokens}
    return None


def _candidates(c: PPOConfig, bfloat16: bool) -> Iterator[dict[str, Any]]:
    """Nothing but smaller passes; then one change alone; then ever more together."""
    steps: list[dict[str, Any]] = []
    if not c.gradient_checkpointing:
        steps.append({"gradient_checkpointing": True})
    if not c.offload_frozen and not c.shard:
        steps.append({"offload_frozen": True})
    if not c.eight_bit_adam and not c.shard:
        steps.append({"eight_bit_adam": True})
    if bfloat16 and c.precision == "float32":
        steps.append({"precision": "bfloat16"})
    if not c.lora_r and c.adapter_name is None:
        steps.append({"lora_r": LORA_R} | ({"critic": "head"} if c.critic == "model" else {}))
    yield {}
    yield from steps
    together: dict[str, Any] = {}
    for number, step in enumerate(steps):
        together = together | step
        if number:
            yield together


def _tokens_that_fit(c: PPOConfig, need: Need, need_of: Callable[[PPOConfig], Need], free: int) -> int | None:
    """The most tokens of a pass, halving from what there are to a single row, with which it fits."""
    tokens, row = need.work.pass_tokens // 2, need.work.row_tokens
    while tokens >= row:
        rows = tokens // row
        if fits(need_of(c.replace(max_tokens_per_microbatch=rows * row)), free):
            return rows * row
        if rows == 1:
            return None
        tokens //= 2
    return None
