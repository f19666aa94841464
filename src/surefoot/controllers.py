"""What changes from step to step: KL coefficient, learning rates, the scale of scores. Each can save its state."""

import math
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from torch import Tensor
from torch.optim import Optimizer

from surefoot.ops.masking import masked_moments
from surefoot.types import AllSum


@runtime_checkable
class KLController(Protocol):
    """Sets the price of a nat of divergence. `value` is the coefficient, `target` what it steers to (if anything)."""

    value: float
    target: float

    def update(self, kl: float, episodes: int) -> None:
        """Takes the divergence of a step (in the target's unit) and how many answers it was measured on."""
        ...

    def raise_price(self, factor: float) -> None:
        """Multiplies the coefficient from here on."""
        ...

    def state_dict(self) -> dict[str, float]:
        """Everything needed to go on exactly."""
        ...

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Goes on from a saved state."""
        ...


class AdaptiveKL:
    """Ziegler et al. (2019): coef *= 1 + clip(kl / target - 1, -0.2, 0.2) * episodes / horizon.

    The target moves linearly from `target` to `final_target` over `total_episodes`, where both are given.
    """

    def __init__(
        self,
        value: float,
        target: float,
        horizon: float,
        final_target: float | None = None,
        total_episodes: int | None = None,
    ) -> None:
        self.value = value
        self.target = target
        self._first_target = target
        self._final_target = final_target
        self._horizon = horizon
        self._total_episodes = total_episodes
        self._episodes = 0
        self._raised = 1.0

    def update(self, kl: float, episodes: int) -> None:
        """Moves the coefficient by at most a fifth of itself every `horizon` episodes, then the target."""
        error = min(max(kl / self.target - 1, -0.2), 0.2)
        self.value *= 1 + error * episodes / self._horizon
        self._episodes += episodes
        self._move_target()

    def raise_price(self, factor: float) -> None:
        """Multiplies the coefficient and divides the target: with the target as it was, it would go back down."""
        self.value *= factor
        self._raised *= factor
        self._move_target()

    def _move_target(self) -> None:
        target = self._first_target
        if self._final_target is not None and self._total_episodes:
            done = min(self._episodes / self._total_episodes, 1.0)
            target = self._first_target + done * (self._final_target - self._first_target)
        self.target = target / self._raised

    def state_dict(self) -> dict[str, float]:
        """Coefficient, episodes seen, and what the price was multiplied by, if it was."""
        return {"value": self.value, "episodes": self._episodes, **_if_raised(self._raised)}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Goes on from a saved state."""
        self.value, self._episodes, self._raised = state["value"], int(state["episodes"]), state.get("raised", 1.0)
        self._move_target()


class ScheduledKL:
    """A coefficient that is fixed, or moves from `value` to `final` over `total_episodes`, linearly or by a cosine."""

    def __init__(
        self,
        value: float,
        target: float,
        shape: str = "fixed",
        final: float | None = None,
        total_episodes: int | None = None,
    ) -> None:
        self.value = value
        self.target = target
        self._first = value
        self._final = value if final is None else final
        self._shape = shape
        self._total_episodes = total_episodes
        self._episodes = 0
        self._raised = 1.0

    def update(self, kl: float, episodes: int) -> None:
        """Moves along the schedule, whatever the divergence was."""
        self._episodes += episodes
        self._move()

    def raise_price(self, factor: float) -> None:
        """Multiplies the coefficient, here and on the rest of its course."""
        self._raised *= factor
        self._move()

    def _move(self) -> None:
        self.value = self._raised * self._course()

    def _course(self) -> float:
        if self._shape == "fixed" or not self._total_episodes:
            return self._first
        left = 1 - min(self._episodes / self._total_episodes, 1.0)
        if self._shape == "cosine":
            left = 0.5 * (1 - math.cos(math.pi * left))
        return self._final + left * (self._first - self._final)

    def state_dict(self) -> dict[str, float]:
        """Episodes seen, and what the price was multiplied by, if it was; the coefficient follows from them."""
        return {"episodes": self._episodes, **_if_raised(self._raised)}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Goes on from a saved state."""
        self._episodes, self._raised = int(state["episodes"]), state.get("raised", 1.0)
        self._move()


def _if_raised(factor: float) -> dict[str, float]:
    """Nothing for 1, so that what was saved before prices could be raised is as good as ever."""
    return {} if factor == 1 else {"raised": factor}


def make_kl_controller(
    kind: str,
    *,
    value: float,
    target: float,
    horizon: float,
    final_target: float | None,
    final_value: float | None,
    total_episodes: int | None,
) -> KLController:
    """The controller called `kind`: adaptive, fixed, linear or cosine."""
    if kind == "adaptive":
        return AdaptiveKL(value, target, horizon, final_target, total_episodes)
    return ScheduledKL(value, target, kind, final_value, total_episodes)


def learning_rate_factor(step: int, *, schedule: str, warmup_steps: int, total_steps: int | None) -> float:
    """What both learning rates are multiplied by at `step` (from 0): linear warm-up, then the schedule.

    linear and cosine start at 1 after the warm-up and would reach 0 one step after the last: no step is wasted.
    """
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    if schedule == "constant" or total_steps is None:
        return 1.0
    left = max(0.0, 1 - (step - warmup_steps) / max(1, total_steps - warmup_steps))
    return left if schedule == "linear" else 0.5 * (1 - math.cos(math.pi * left))


class LearningRates:
    """The learning rates of an optimizer over a run: a course of ours, or that of a torch scheduler.

    Args:
        optimizer: whose groups have the rates to begin with.
        scheduler: replaces the course; stepped once a step.
        schedule, warmup_steps, total_steps: the course, see `learning_rate_factor`.
    """

    def __init__(
        self, optimizer: Optimizer, scheduler: Any, schedule: str, warmup_steps: int, total_steps: int | None
    ) -> None:
        self._optimizer, self._scheduler = optimizer, scheduler
        self._course: dict[str, Any] = {"schedule": schedule, "warmup_steps": warmup_steps, "total_steps": total_steps}
        self.base = [float(group["lr"]) for group in optimizer.param_groups]

    def at(self, step: int) -> list[float]:
        """Sets the rates for a step and returns them, one for each group.

        Raises:
            ValueError: they are not finite.
        """
        groups = self._optimizer.param_groups
        if self._scheduler is None:
            factor = learning_rate_factor(step, **self._course)
            for group, rate in zip(groups, self.base, strict=True):
                group["lr"] = rate * factor
        rates = [float(group["lr"]) for group in groups]
        if not all(map(math.isfinite, rates)):
            raise ValueError(f"the learning rates are {rates}: look at lr_scheduler or optimizer; nothing was trained")
        return rates

    def advance(self) -> None:
        """Takes a step on the scheduler's course."""
        if self._scheduler is not None:
            self._scheduler.step()


class ScoreScaler:
    """Divides scores by their running standard deviation; with `centre`, after subtracting their running mean.

    Mean and (unbiased) deviation are those of all scores seen so far, the current ones included (Chan et al. 1979 for
    joining the moments of two sets).
    """

    def __init__(self, *, centre: bool) -> None:
        self._centre = centre
        self._count, self._mean, self._squares = 0.0, 0.0, 0.0

    def __call__(self, scores: Tensor, counted: Tensor, all_sum: AllSum) -> Tensor:
        """Takes the counted ones of a batch into the moments and returns it scaled."""
        count, mean, variance = (float(x) for x in masked_moments(scores, counted, all_sum))
        total, gap = self._count + count, mean - self._mean
        self._squares += variance * max(count - 1, 0) + gap**2 * self._count * count / max(total, 1)
        self._mean += gap * count / max(total, 1)
        self._count = total
        deviation = math.sqrt(self._squares / (total - 1)) if total > 1 else 0.0
        centred = scores - self._mean if self._centre else scores
        return centred / deviation if deviation > 1e-8 else centred

    def state_dict(self) -> dict[str, float]:
        """Count, mean and sum of squared deviations."""
        return {"count": self._count, "mean": self._mean, "squares": self._squares}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Goes on from a saved state."""
        self._count, self._mean, self._squares = state["count"], state["mean"], state["squares"]
