"""When a run ends, and why. The state is saved with the run."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from surefoot.peers import AbandonedError

STOPPED = "stopped: "
"""How the reason of a run begins that somebody asked to stop."""


class StopSwitch:
    """Asks a run to stop: at once where nothing would be lost, else as soon as that is so."""

    def __init__(self) -> None:
        self._asked: str | None = None
        self._open = False

    @property
    def asked(self) -> str | None:
        """Who asked; None where nobody did."""
        return self._asked

    def ask(self, who: str) -> None:
        """Called by a signal handler, or by anybody in the main thread.

        Raises:
            AbandonedError: inside `may_be_left`.
        """
        self._asked = who
        if self._open:
            self._open = False
            raise AbandonedError(who)

    @contextmanager
    def may_be_left(self) -> Iterator[None]:
        """Something that can be left at any moment and done again later.

        Raises:
            AbandonedError: the run was asked to stop, before or meanwhile.
        """
        self._open = True
        try:
            if self._asked is not None:
                raise AbandonedError(self._asked)
            yield
        finally:
            self._open = False


@dataclass
class StopRules:
    """The rules of a run; each method says in words why the run should end now, or nothing.

    Attributes:
        total_steps: steps of the run. kl_ceiling: limit in nats per response token.
        target_reward, target_evals: evaluation score that ends the run when held so many evaluations in a row.
        patience: evaluations without a better score.
        best, held, without_gain, kl_per_token: state.
    """

    total_steps: int | None = None
    kl_ceiling: float | None = None
    target_reward: float | None = None
    target_evals: int = 1
    patience: int | None = None
    best: float | None = None
    held: int = 0
    without_gain: int = 0
    kl_per_token: float = 0.0

    def after_step(self, steps: int, kl_per_token: float) -> str | None:
        """After a step: the KL ceiling, then the planned end."""
        self.kl_per_token = kl_per_token
        return self._of_steps(steps)

    def after_evaluation(self, score: float) -> str | None:
        """After an evaluation: the goal, then patience."""
        improved = math.isfinite(score) and (self.best is None or score > self.best)
        self.best = score if improved else self.best
        self.without_gain = 0 if improved else self.without_gain + 1
        self.held = self.held + 1 if self.target_reward is not None and score >= self.target_reward else 0
        return self._of_evaluations()

    def standing(self, steps: int) -> str | None:
        """What the rules say of the state as it is: a run that goes on from its last checkpoint ends again at once."""
        return self._of_evaluations() or self._of_steps(steps)

    def _of_steps(self, steps: int) -> str | None:
        if self.kl_ceiling is not None and self.kl_per_token > self.kl_ceiling:
            return (
                f"kl_ceiling: {self.kl_per_token:.3g} nats per token from the reference, more than "
                f"{self.kl_ceiling:g}. Go back to a checkpoint from before, and lower learning_rate or ppo_epochs, "
                "raise init_kl_coef, or make the rewards smaller (use_score_scaling); early_stop_kl bounds each update"
            )
        if self.ends_with(steps):
            return f"finished: all {steps} steps are done"
        return None

    def ends_with(self, steps: int) -> bool:
        """Whether the planned end comes with that step."""
        return self.total_steps is not None and steps >= self.total_steps

    def _of_evaluations(self) -> str | None:
        if self.target_reward is not None and self.held >= self.target_evals:
            return f"target_reward: {self.target_reward:g} reached and held for {self.held} evaluations"
        if self.patience is not None and self.best is not None and self.without_gain >= self.patience:
            return f"patience: no better evaluation than {self.best:.4g} in {self.without_gain} evaluations"
        return None

    def state_dict(self) -> dict[str, float | None]:
        """The best score, the two counts, and the last divergence."""
        return {name: getattr(self, name) for name in ("best", "held", "without_gain", "kl_per_token")}

    def load_state_dict(self, state: Mapping[str, float | None]) -> None:
        """Goes on from a saved state."""
        self.best = state["best"]
        self.held, self.without_gain = int(state["held"] or 0), int(state["without_gain"] or 0)
        self.kl_per_token = float(state["kl_per_token"] or 0.0)


ENDED = ("finished", "target_reward", "patience", "kl_ceiling", "watch")
"""How the reason of a run that needs no more begins. Any other (a callback, a signal) leaves it to be gone on with."""
