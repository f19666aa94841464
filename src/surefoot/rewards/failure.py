"""What a broken reward looks like: one error with the sample shown, and the checks that raise it."""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from surefoot.display import visible
from surefoot.types import Prompt

logger = logging.getLogger("surefoot")

LARGEST = 3.4e38
"""Scores become float32; beyond this they would turn into infinity there."""


class RewardError(ValueError):
    """A reward gave no usable score, so nothing may be trained on this batch.

    Attributes:
        reward: name of the reward.
        row: number of the prompt in its file, or None where the whole batch is meant.
    """

    def __init__(self, reward: str, reason: str, prompt: Prompt | None = None, response: str | None = None) -> None:
        self.reward = reward
        self.row = None if prompt is None else prompt.index
        where = "" if prompt is None else f" at row {prompt.index}"
        lines = [f"reward {reward!r}{where}: {reason}"]
        if prompt is not None:
            lines.append(f"  prompt:   {shown(prompt.text)}")
        if response is not None:
            lines.append(f"  response: {shown(response)}")
        super().__init__("\n".join(lines))


class RewardUnavailableError(RewardError):
    """A reward service gave no scores, and waiting longer was not allowed. The same batch may be asked for later."""


class NotFiniteError(ValueError):
    """A score is a number, but none that float32 holds."""


def shown(text: str, limit: int = 240) -> str:
    """`text` in quotes, its middle left out when it is long, everything unprintable escaped."""
    if len(text) > limit:
        half = limit // 2
        return f"{shown(text[:half])} ...({len(text) - 2 * half} characters)... {shown(text[-half:])}"
    return f'"{visible(str(text))}"'


def number(value: Any) -> float | None:
    """`value` as a float: a number, a bool, or a tensor or array of one element; None stays None.

    Raises:
        NotFiniteError: NaN, infinity, and what float32 cannot hold; the message is half a sentence.
        ValueError: anything else.
    """
    if value is None:
        return None
    raw = value.tolist() if hasattr(value, "tolist") else value
    while isinstance(raw, list) and len(raw) == 1:
        raw = raw[0]
    if raw is None or isinstance(raw, str | bytes) or not hasattr(raw, "__float__"):
        raise ValueError(f"returned {shown(repr(value), 80)} ({type(value).__name__}) where a number is needed")
    try:
        result = float(raw)
    except OverflowError as error:
        raise NotFiniteError("returned a whole number too large for a float") from error
    if not math.isfinite(result):
        raise NotFiniteError(f"returned {result}, which is not a finite number")
    if abs(result) > LARGEST:
        raise NotFiniteError(f"returned {result:g}, which float32 cannot hold: scale the reward down")
    return result


def check_scores(
    name: str,
    values: Any,
    prompts: Sequence[Prompt],
    completions: Sequence[str],
    read: Callable[[Any], Any] = number,
    *,
    finite: bool = True,
) -> list[float | None]:
    """One float or None for each answer out of whatever came back for the batch.

    Where scores need not be `finite`, one that is not becomes NaN, and whoever trains leaves the answer out.

    Raises:
        RewardError: not a list, the wrong count, or a value that is no finite number.
    """
    values = values.tolist() if hasattr(values, "tolist") else values
    if isinstance(values, str | bytes | Mapping) or not isinstance(values, Sequence):
        reason = f"returned {type(values).__name__} where a list of {len(prompts)} scores is needed"
        raise RewardError(name, reason, prompts[0], completions[0])
    if len(values) != len(prompts):
        reason = f"returned {len(values)} scores for {len(prompts)} answers; the first of them:"
        raise RewardError(name, reason, prompts[0], completions[0])
    scores: list[float | None] = []
    for value, prompt, completion in zip(values, prompts, completions, strict=True):
        try:
            scores.append(read(value))
        except ValueError as error:
            if finite or not isinstance(error, NotFiniteError):
                raise RewardError(name, str(error), prompt, completion) from error
            scores.append(math.nan)
    return scores


class Extras:
    """Collects the further numbers that a reward reports and averages each at the end."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._values: dict[str, list[float]] = {}

    def add(self, key: str, value: Any) -> None:
        """Takes a number, or every number of a list, an array or a tensor. Texts cannot be averaged: said once."""
        value = value.tolist() if hasattr(value, "tolist") else value
        if isinstance(value, list | tuple):
            for item in value:
                self.add(key, item)
        elif isinstance(value, bool | int | float):
            self._values.setdefault(key, []).append(float(value))
        elif value is not None and (self._name, key) not in _SAID:
            _SAID.add((self._name, key))
            kind = type(value).__name__
            logger.info("reward %r reports %r as %s: only numbers are recorded", self._name, key, kind)

    def means(self) -> dict[str, float]:
        """Mean of everything that came under each key."""
        return {key: sum(values) / len(values) for key, values in self._values.items()}


_SAID: set[tuple[str, str]] = set()
