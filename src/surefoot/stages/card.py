"""What is known of a reward model after held-out pairs: the numbers, how they read, and what they warn of."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from surefoot.evaluate.statistics import Estimate
from surefoot.report.svg import Series, chart
from surefoot.stages.shares import Share

GUESSING = math.log(2)
"""The log loss of saying 1/2 to every pair."""
FEW, TOO_GOOD, FOLLOWS, MISCALIBRATED, DISAGREES = 100, 0.95, 0.5, 0.05, 0.2
"""Fewer pairs, a higher accuracy, a stronger correlation, a larger error, a smaller kappa are warned of."""


@dataclass(frozen=True, slots=True)
class Slice:
    """The pairs of one kind.

    Attributes:
        name: of the kind. says: how sure the reward is of its preference, on average. right: how often it is right.
        length_rule: how often the length rule is right on the same pairs.
    """

    name: str
    says: float
    right: Share
    length_rule: float


@dataclass(frozen=True, slots=True)
class Agreement:
    """A second scorer on the same pairs.

    Attributes:
        scorer: what it is called. accuracy: how often it is right.
        raw: how often both prefer the same answer, of pairs without a tie.
        by_chance_errors: how often they would, were their errors independent of each other.
        kappa: Cohen's, every pair shown in both orders, so that chance agrees half of the time: 2 raw - 1.
        kappa_of_errors: the same beyond `by_chance_errors`: 0 for independent errors, 1 for the same ones.
        ties: pairs that one of the two does not decide, left out.
    """

    scorer: str
    accuracy: Share
    raw: Share
    by_chance_errors: float
    kappa: float
    kappa_of_errors: float
    ties: int


@dataclass(frozen=True, slots=True)
class RewardCard:
    """What is known of a reward model after held-out pairs.

    Attributes:
        pairs, prompts, ties: how many. accuracy: how often the chosen answer has the higher score.
        log_loss: mean of -log sigmoid(margin); saying nothing costs 0.693.
        says: how sure it is of its preferences, on average. calibration: by how sure it is.
        calibration_error: mean distance between sure and right, over those slices by their size (ECE).
        calibration_chance: what a perfectly calibrated reward stays below 99 % of the time on these pairs.
        by_margin: in quarters of the pairs, from the smallest |margin|. by_length: by the chosen answer's length.
        length_rule: "longer" or "shorter", whichever answer it is better to prefer blindly on these pairs.
        length_accuracy: how often that is right. beyond_length: accuracy less that, pair by pair.
        length_correlation: Spearman's, of scores with lengths over all answers; None where one never changes.
        chosen_mean, rejected_mean, spread, margin_mean, margin_spread: of the scores; spreads are standard deviations.
        second: agreement with a second scorer; None without one.
        warnings: what to know before it is trusted, a sentence each.
    """

    pairs: int
    prompts: int
    ties: int
    accuracy: Share
    log_loss: float
    says: float
    calibration: tuple[Slice, ...]
    calibration_error: float
    calibration_chance: float
    by_margin: tuple[Slice, ...]
    by_length: tuple[Slice, ...]
    length_rule: str
    length_accuracy: float
    beyond_length: Estimate
    length_correlation: Estimate | None
    chosen_mean: float
    rejected_mean: float
    spread: float
    margin_mean: float
    margin_spread: float
    second: Agreement | None

    @property
    def warnings(self) -> list[str]:
        """What to know before the reward model is trusted."""
        return [sentence for applies, sentence in _warnings(self) if applies]

    def as_dict(self) -> dict[str, Any]:
        """For a file."""
        return asdict(self) | {"warnings": self.warnings}

    def text(self) -> str:
        """Plain lines for the terminal."""
        ties = f", {self.ties} {'tie' if self.ties == 1 else 'ties'} by half" if self.ties else ""
        ahead = self.beyond_length
        lines = [
            f"reward    right in {self.accuracy} of {self.pairs} held-out pairs of {self.prompts} prompts{ties}",
            f'length    "the {self.length_rule} answer is better" is right in {self.length_accuracy:.1%}; the reward '
            f"is {ahead.value * 100:+.1f} points beyond it ({ahead.low * 100:+.1f} to {ahead.high * 100:+.1f})",
            f"loss      {self.log_loss:.3f}; saying nothing costs {GUESSING:.3f}",
            f"sureness  says {self.says:.1%} on average; calibration error {self.calibration_error:.3f}, of which "
            f"chance explains up to {self.calibration_chance:.3f}",
            f"scores    chosen {self.chosen_mean:.3g}, rejected {self.rejected_mean:.3g}, spread {self.spread:.3g}; "
            f"margin {self.margin_mean:.3g}, spread {self.margin_spread:.3g}",
        ]
        if self.length_correlation is not None:
            r = self.length_correlation
            lines.append(f"          rank correlation with length {r.value:.2f} ({r.low:.2f} to {r.high:.2f})")
        if self.second is not None:
            lines += _second_lines(self.second)
        for title, slices in _tables(self):
            lines += ["", *_table(title, slices, self.length_rule)]
        return "\n".join(lines + [""] * bool(self.warnings) + [f"warning   {w}" for w in self.warnings])


def calibration_chart(card: RewardCard) -> str:
    """How often the reward is right against how sure it is, as inline SVG; the dashed line is perfect calibration."""
    found = Series(
        "observed",
        [s.says for s in card.calibration],
        [s.right.value for s in card.calibration],
        "a points",
        intervals=[(s.right.low, s.right.high) for s in card.calibration],
    )
    return chart(
        "How sure and how often right",
        [Series("well calibrated", [0.5, 1.0], [0.5, 1.0], "b dash"), found],
        x_label="how sure the reward is of its preference",
        unit="share of pairs",
    )


def _warnings(card: RewardCard) -> list[tuple[bool, str]]:
    rule = f'"the {card.length_rule} answer is better"'
    a, ahead, r = card.accuracy, card.beyond_length, card.length_correlation
    off = card.calibration_error > max(MISCALIBRATED, card.calibration_chance)
    return [
        (card.pairs < FEW, f"only {card.pairs} pairs: the intervals are wide; hold out {FEW} or more"),
        (a.high < 0.5, "it prefers the rejected answers: are chosen and rejected swapped?"),
        (a.low <= 0.5 <= a.high, "it cannot be told from guessing; PPO would learn noise"),
        (ahead.high < 0, f"it is worse than {rule}"),
        (
            ahead.low <= 0 <= ahead.high and a.low > 0.5,
            f"it cannot be told from {rule}: PPO may learn length and nothing else",
        ),
        (
            a.value > TOO_GOOD,
            f"right in {a.value:.1%}, which pairs judged by people do not allow (about 65 to 80 % is usual): look for "
            "held-out pairs that were learnt, or for what gives the answer away, as a writer's habits or an ending",
        ),
        (
            off,
            f"{_sureness(card)} (it says {card.says:.0%} on average and is right in {a.value:.0%}): its order of "
            "answers may be good, the size of its scores is not",
        ),
        (
            card.log_loss >= GUESSING,
            f"its loss of {card.log_loss:.3f} is no better than saying nothing ({GUESSING:.3f})",
        ),
        (
            r is not None and abs(r.value) > FOLLOWS,
            f"its scores follow length (rank correlation {0 if r is None else r.value:.2f}): watch the length of "
            "answers during PPO",
        ),
        (
            card.second is not None and card.second.kappa < DISAGREES,
            "the second scorer hardly agrees with it beyond chance",
        ),
    ]


def _sureness(card: RewardCard) -> str:
    if card.says > card.accuracy.high:
        return "it is too sure"
    return "it is not sure enough" if card.says < card.accuracy.low else "it does not know how sure it can be"


def _second_lines(second: Agreement) -> list[str]:
    ties = f"; {second.ties} pairs left out that one of them does not decide" if second.ties else ""
    return [
        f"second    {second.scorer} is right in {second.accuracy}; agrees in {second.raw} of {second.raw.count} "
        f"pairs, Cohen's kappa {second.kappa:.2f}{ties}",
        f"          independent errors would agree in {second.by_chance_errors:.1%}; kappa of errors "
        f"{second.kappa_of_errors:.2f}",
    ]


def _tables(card: RewardCard) -> list[tuple[str, tuple[Slice, ...]]]:
    return [("how sure", card.calibration), ("|margin|", card.by_margin), ("length", card.by_length)]


def _table(title: str, slices: Sequence[Slice], rule: str) -> list[str]:
    head = f"{title:<18} {'pairs':>6} {'says':>7} {'is right':>24} {f'the {rule} is':>14}"
    return [
        head,
        *(f"{s.name:<18} {s.right.count:>6} {s.says:>7.1%} {s.right!s:>24} {s.length_rule:>14.1%}" for s in slices),
    ]
