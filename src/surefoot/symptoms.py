"""What the statistics of steps warn of while a run goes on; each warning is given once."""

import logging
from collections.abc import Mapping
from typing import Any

_LOG = logging.getLogger("surefoot")

NEGATIVE_KL = -0.05
"""Nats per token. The mean of k1 has noise; this far below 0 it is something else."""
CONSTANT_STEPS = 3


class Symptoms:
    """Looks at every step. `speak` says whether this process is the one that warns."""

    def __init__(self, *, speak: bool) -> None:
        self._speak = speak
        self._said: set[str] = set()
        self._constant = 0

    def look(self, stats: Mapping[str, Any], rows: int) -> None:
        """The statistics of a step, and how many answers it had."""
        kl = float(stats["objective/kl_per_token"])
        if kl < NEGATIVE_KL:
            self._warn("kl", _NEGATIVE_KL_WORDS, kl)
        if rows == 1:
            self._warn("one", _ONE_WORDS)
        self._constant = self._constant + 1 if rows > 1 and stats["ppo/std_scores"] == 0 else 0
        if self._constant == CONSTANT_STEPS:
            self._warn("constant", _CONSTANT_WORDS, CONSTANT_STEPS, stats["ppo/mean_scores"])

    def _warn(self, symptom: str, words: str, *numbers: float) -> None:
        if self._speak and symptom not in self._said:
            _LOG.warning(words, *numbers)
        self._said.add(symptom)


_NEGATIVE_KL_WORDS = (
    "the KL divergence from the reference is %.3g nats per token, clearly negative: the answers were not drawn from "
    "the policy that scores them. Look for: a temperature, top_k or top_p at sampling that PPOConfig does not have; "
    "answers of another model or of older weights; texts that were tokenised again; dropout or other chance in the "
    "model; padding or positions that differ between sampling and scoring"
)
_ONE_WORDS = (
    "a step has a single answer: its score cannot be compared with others, so whitened advantages say only which of "
    "its tokens did better than its others. Make batch_size larger"
)
_CONSTANT_WORDS = (
    "all answers of %d steps in a row have the same score (now %.4g): nothing can be learned from that but the KL "
    "price. Try the reward on a few answers with `surefoot reward-test`"
)
