"""Where models are while nobody asks them: whole and at hand; frozen ones away; or all of them in shares."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch

from surefoot.models import ActorCritic
from surefoot.offload import Offloaded, frozen_models
from surefoot.rewards import RewardMix
from surefoot.rewards.sharing import SharedClassifier
from surefoot.runtime import Runtime
from surefoot.sharding import Shares, layer_names
from surefoot.stopping import StopSwitch


class Presence:
    """The contexts in which models are there to be asked.

    Args:
        models: policy, critic and reference.
        scorers: what scores answers, some of it with models of its own.
        runtime: the processes.
        stop: may be asked in the middle of a pass.
        offload: frozen models are away except while they are asked.
    """

    def __init__(
        self, models: ActorCritic, scorers: list[RewardMix], runtime: Runtime, stop: StopSwitch, *, offload: bool
    ) -> None:
        self._models, self._runtime, self._stop = models, runtime, stop
        self._rewards = [reward for scorer in scorers for reward in scorer.rewards.values()]
        own = None if models.reference.model is models.policy else models.reference.model
        self.away = Offloaded(frozen_models(own, self._rewards)) if offload else None
        self._shares: list[Shares] = []

    def cut_into_shares(self, optimizer: Any) -> None:
        """From now on this process keeps a share of all weights.

        Raises:
            ValueError: an `optimizer` that holds them whole.
        """
        if isinstance(optimizer, torch.optim.Optimizer):
            raise ValueError(
                "optimizer holds the weights as they were before shard=True cut them: give a function that makes one "
                "from the list of all trainable parameters"
            )
        self._models.shard(self._runtime)
        own = {id(m): m for m in frozen_models(None, self._rewards) if not isinstance(m, SharedClassifier)}
        self._shares = [Shares(self._runtime, [model], layer_names(model)) for model in own.values()]

    def frozen(self) -> AbstractContextManager[None]:
        """The context in which reference and reward models are there to be asked."""
        return nullcontext() if self.away is None else self.away.present()

    def asking_rewards(self) -> AbstractContextManager[None]:
        """The context in which rewards are asked: their models are there, as a whole. All processes enter it."""
        if not self._models.in_shares:
            return self.frozen()
        on_policy = any(isinstance(getattr(r, "model", None), SharedClassifier) for r in self._rewards)
        return self._models.lent([self._models.policy] if on_policy else [], self._shares)

    @contextmanager
    def passes(self) -> Iterator[None]:
        """Passes in which nothing is learned, inside `together`: they may be left at any moment.

        In lockstep they may be left before they begin, by all processes.
        """
        if not self._models.in_shares:
            with self._stop.may_be_left():
                yield
            return
        with self._runtime.together(), self._stop.may_be_left():
            pass
        with self._runtime.lockstep():
            yield
