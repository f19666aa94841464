"""What the reference's own answer to each prompt scores: the measure that `reward_shaping` puts scores beside."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch

from surefoot.config import PPOConfig
from surefoot.engine.transformers import TransformersEngine
from surefoot.models import ActorCritic
from surefoot.ops.seeds import derive_seed
from surefoot.rewards import RewardMix
from surefoot.runtime import Runtime
from surefoot.setup import sampling_of
from surefoot.types import Prompt


class ReferenceScores:
    """The score of one answer of the frozen reference to each prompt, asked for when the prompt first comes.

    The answer is drawn as the policy's are, with random numbers of its own that depend on seed and prompt alone; so
    that a prompt's measure is the same in every epoch, on any number of processes, and after a stop.

    Attributes:
        known: row of a prompt -> score; all processes know all of them, and they are in every checkpoint.
    """

    def __init__(self, config: PPOConfig, models: ActorCritic, tokenizer: Any, end_ids: Iterable[int]) -> None:
        self.known: dict[int, float] = {}
        self._config, self._reference = config, models.reference
        self._engine = TransformersEngine(models.reference.model, tokenizer, end_ids, autocast=models.arithmetic)

    @torch.no_grad()
    def of(self, prompts: Sequence[Prompt], score: Callable[..., Any]) -> dict[int, float]:
        """What is not known yet of these prompts, by their rows; nothing is kept by this.

        Args:
            prompts: of this process.
            score: the `RewardMix` of the run.
        """
        new = {p.index: p for p in prompts if p.index not in self.known}
        if not new:
            return {}
        rows = list(new.values())
        seeds = [derive_seed(self._config.seed, "reference", row) for row in new]
        with self._reference.active():
            answers = self._engine.generate([p.token_ids for p in rows], seeds, sampling_of(self._config, {}))
        return dict(zip(new, score(rows, answers).scores, strict=True))

    def keep(self, mine: Mapping[int, float], runtime: Runtime) -> None:
        """Everybody's new ones become known to all."""
        self.known |= dict(runtime.gather(list(mine.items())))

    def state_dict(self) -> dict[str, Any]:
        """All that are known."""
        return {"known": dict(self.known)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from a saved state."""
        self.known = dict(state["known"])


def reference_scores_of(
    config: PPOConfig, models: ActorCritic, tokenizer: Any, end_ids: Iterable[int], reward: RewardMix | None
) -> ReferenceScores | None:
    """Where scores are shaped by a reference, what keeps its scores.

    Args:
        config: the options.
        models: whose reference answers.
        tokenizer: the policy's.
        end_ids: of tokens that end an answer.
        reward: of `train`; without it there is nothing to be shaped.
    """
    if config.reward_shaping == "none" or reward is None:
        return None
    return ReferenceScores(config, models, tokenizer, end_ids)
