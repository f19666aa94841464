"""What several scorers of one answer say, as one number; and a score beside that of a reference answer. Pure."""

import math
import statistics
from collections.abc import Sequence

ENSEMBLES = ("sum", "mean", "min", "uncertainty")


def together(scores: Sequence[float], ensemble: str, uncertainty_coef: float = 0.0) -> float:
    """One score out of those that several rewards gave one answer.

    sum: Σ s. mean: Σ s / n. min: the least, the worst case. uncertainty: mean - coefficient · Σ (s - mean)² / n.
    The last three are the ensembles of Coste et al. 2023, "Reward Model Ensembles Help Mitigate Overoptimization".

    Args:
        scores: at least one.
        ensemble: one of `ENSEMBLES`.
        uncertainty_coef: what a unit of variance between the rewards costs.
    """
    if ensemble == "sum":
        return sum(scores)
    if ensemble == "min":
        return min(scores) if all(map(math.isfinite, scores)) else math.nan
    mean = sum(scores) / len(scores)
    if ensemble == "mean" or not math.isfinite(mean):
        return mean
    return mean - uncertainty_coef * statistics.fmean((score - mean) * (score - mean) for score in scores)


def shaped(score: float, reference: float, shaping: str) -> float:
    """A score beside that of the reference's own answer to the same prompt.

    center: s - r. sigmoid: 1 / (1 + exp(r - s)), the probability that a Bradley-Terry reward model gives to the
    answer's being preferred: Preference As Reward of Fu et al. 2025, "Reward Shaping to Mitigate Reward Hacking in
    RLHF", with one reference answer. It is bounded, so that no answer is worth more than being preferred for sure.
    """
    if shaping == "none":
        return score
    gap = score - reference
    return gap if shaping == "center" else 0.5 * (1 + math.tanh(gap / 2))  # the same as the logistic, never overflows
