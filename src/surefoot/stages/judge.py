"""A reward model judged on held-out pairs: how often it is right, whether it knows how sure it is, what it follows.

Legend: `n` pairs, `margin` = score of the chosen answer - score of the rejected one. A reward model says that the
chosen answer is better with probability sigmoid(margin) (Bradley and Terry, 1952). How sure it is of whichever answer
it prefers is sigmoid(|margin|), from 1/2 to 1; that it is right is margin > 0; a tie is right by half.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from surefoot.stages.card import Agreement, RewardCard, Slice
from surefoot.stages.shares import group_numbers, mean_with_interval, rank_correlation, share_of

SIMILAR = 0.1
"""Answers are of similar length when they differ by no more than this share of the longer one."""
_EDGES = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


def judge_reward(
    chosen_scores: Sequence[float],
    rejected_scores: Sequence[float],
    chosen_lengths: Sequence[float],
    rejected_lengths: Sequence[float],
    *,
    second: tuple[Sequence[float], Sequence[float]] | None = None,
    second_name: str = "second scorer",
    prompts: Sequence[object] | None = None,
    seed: int = 0,
) -> RewardCard:
    """Judges the scores of held-out pairs.

    Args:
        chosen_scores: a score for the better answer of each pair.
        rejected_scores: one for the worse.
        chosen_lengths: tokens of the better answers.
        rejected_lengths: of the worse.
        second: the scores (chosen, rejected) that another scorer gives to the same pairs.
        second_name: what it is called.
        prompts: what tells prompts apart, one for each pair; pairs of one prompt are drawn together. None: each pair
            has a prompt of its own.
        seed: of the drawings for the intervals.

    Raises:
        ValueError: no pair, lists of different lengths, or a score that is not finite.
    """
    chosen, rejected = _numbers(chosen_scores, "chosen_scores"), _numbers(rejected_scores, "rejected_scores")
    lengths = _numbers(chosen_lengths, "chosen_lengths"), _numbers(rejected_lengths, "rejected_lengths")
    groups = np.arange(len(chosen)) if prompts is None else group_numbers(prompts)
    _check_counts(len(chosen), rejected_scores=rejected, chosen_lengths=lengths[0], rejected_lengths=lengths[1],
                  prompts=groups)  # fmt: skip
    margin = chosen - rejected
    right, says = _right(margin), _sigmoid(np.abs(margin))
    longer = _right(lengths[0] - lengths[1])
    rule, by_rule = ("longer", longer) if longer.mean() >= 0.5 else ("shorter", 1 - longer)
    slicer = _Slicer(right, says, by_rule, groups)
    calibration = slicer.cut(_sureness_bins(says))
    return RewardCard(
        pairs=len(chosen),
        prompts=len(set(groups.tolist())),
        ties=int((margin == 0).sum()),
        accuracy=share_of(right, groups),
        log_loss=float(np.logaddexp(0, -margin).mean()),
        says=float(says.mean()),
        calibration=calibration,
        calibration_error=calibration_error(says, right),
        calibration_chance=_error_by_chance(says, seed),
        by_margin=slicer.cut(_quarters(np.abs(margin))),
        by_length=slicer.cut(_length_bins(*lengths)),
        length_rule=rule,
        length_accuracy=float(by_rule.mean()),
        beyond_length=mean_with_interval(right - by_rule, groups, seed),
        length_correlation=rank_correlation(
            np.concatenate([chosen, rejected]), np.concatenate(lengths), np.concatenate([groups, groups]), seed
        ),
        chosen_mean=float(chosen.mean()),
        rejected_mean=float(rejected.mean()),
        spread=float(np.concatenate([chosen, rejected]).std()),
        margin_mean=float(margin.mean()),
        margin_spread=float(margin.std()),
        second=None if second is None else _agreement(second_name, margin, second, groups),
    )


def calibration_error(says: np.ndarray, right: np.ndarray) -> float:
    """Expected calibration error: sum over tenths of sureness of (pairs / n) |mean right - mean sureness|."""
    which = _tenth(says)
    off = np.bincount(which, right - says, minlength=len(_EDGES) - 1)
    return float(np.abs(off).sum() / len(says))


# ---------------------------------------------------------------------------------------------- slices


@dataclass(frozen=True, slots=True)
class _Slicer:
    right: np.ndarray
    says: np.ndarray
    by_rule: np.ndarray
    groups: np.ndarray

    def cut(self, kinds: Sequence[tuple[str, np.ndarray]]) -> tuple[Slice, ...]:
        """A slice for each kind that has pairs."""
        return tuple(
            Slice(
                name,
                float(self.says[m].mean()),
                share_of(self.right[m], self.groups[m]),
                float(self.by_rule[m].mean()),
            )
            for name, m in kinds
            if m.any()
        )


def _tenth(says: np.ndarray) -> np.ndarray:
    """0 for a sureness in [0.5, 0.6), ..., 4 for one in [0.9, 1]."""
    found: np.ndarray = np.clip(np.searchsorted(_EDGES, says, side="right") - 1, 0, len(_EDGES) - 2)
    return found


def _sureness_bins(says: np.ndarray) -> list[tuple[str, np.ndarray]]:
    which = _tenth(says)
    return [(f"{_EDGES[i]:.0%} to {_EDGES[i + 1]:.0%}", which == i) for i in range(len(_EDGES) - 1)]


def _quarters(size: np.ndarray) -> list[tuple[str, np.ndarray]]:
    """Four kinds of equal number, by rank of |margin|; equal margins stay together."""
    first, middle, last = np.quantile(size, [0.25, 0.5, 0.75])
    edges = [(0.0, first), (first, middle), (middle, last), (last, float(size.max()))]
    which = (size[:, None] > [first, middle, last]).sum(1)
    return [(f"{low:.2f} to {high:.2f}", which == i) for i, (low, high) in enumerate(edges)]


def _length_bins(chosen: np.ndarray, rejected: np.ndarray) -> list[tuple[str, np.ndarray]]:
    similar = np.abs(chosen - rejected) <= SIMILAR * np.maximum(chosen, rejected)
    return [
        ("chosen is shorter", ~similar & (chosen < rejected)),
        ("of similar length", similar),
        ("chosen is longer", ~similar & (chosen > rejected)),
    ]


# ---------------------------------------------------------------------------------------------- parts


def _numbers(values: Sequence[float], name: str) -> np.ndarray:
    found = np.asarray(values, dtype=float)
    if found.ndim != 1 or not len(found):
        raise ValueError(f"{name} must be a list of at least one number, found an array of shape {found.shape}")
    bad = np.flatnonzero(~np.isfinite(found))
    if len(bad):
        raise ValueError(f"{name}[{bad[0]}] is {found[bad[0]]}: a pair can only be judged by finite numbers")
    return found


def _check_counts(count: int, **others: np.ndarray) -> None:
    for name, values in others.items():
        if len(values) != count:
            raise ValueError(f"{count} chosen_scores but {len(values)} {name}: give one for each pair")


def _right(margin: np.ndarray) -> np.ndarray:
    found: np.ndarray = (np.sign(margin) + 1) / 2
    return found


def _sigmoid(x: np.ndarray) -> np.ndarray:
    found: np.ndarray = 1 / (1 + np.exp(-x))
    return found


def _error_by_chance(says: np.ndarray, seed: int, draws: int = 1000) -> float:
    """99 % of the calibration errors of a reward that is right exactly as often as it says are below this."""
    generator = np.random.default_rng([seed, len(says)])
    errors = [calibration_error(says, (generator.random(len(says)) < says).astype(float)) for _ in range(draws)]
    return float(np.quantile(errors, 0.99))


def _agreement(
    scorer: str, margin: np.ndarray, second: tuple[Sequence[float], Sequence[float]], groups: np.ndarray
) -> Agreement | None:
    """None where there is no pair that both of them decide."""
    other = _numbers(second[0], "second[0]") - _numbers(second[1], "second[1]")
    if len(other) != len(margin):
        raise ValueError(
            f"{len(margin)} pairs but {len(other)} of the second scorer: give its scores of the same pairs"
        )
    decided = (margin != 0) & (other != 0)
    if not decided.any():
        return None
    a, b, g = _right(margin[decided]), _right(other[decided]), groups[decided]
    raw = share_of((a == b).astype(float), g)
    chance = float(a.mean() * b.mean() + (1 - a.mean()) * (1 - b.mean()))
    beyond = (raw.value - chance) / (1 - chance) if chance < 1 else 0.0
    return Agreement(
        scorer=scorer,
        accuracy=share_of(_right(other), groups),
        raw=raw,
        by_chance_errors=chance,
        kappa=2 * raw.value - 1,
        kappa_of_errors=beyond,
        ties=int((~decided).sum()),
    )
