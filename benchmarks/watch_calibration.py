"""Thresholds of the watch, chosen on worlds whose truth is known and tried on others (benchmarks/mini_gao.py).

    python -m benchmarks.watch_calibration

Every world is walked from the reference to the lowest price in 25 looks. At each look the watch sees 64 answers with
their proxy scores, divergences and letters and, where it has a budget, their gold scores. A rule stops at the first
look where its signal passes its threshold and goes back to the look before or, with gold, to the best one by gold.

A world over-optimises if gold ends at least a fifth below its peak, as a share of the peak's gain; it is a control if
gold ends within a twentieth of it. Worlds between the two are left out. The threshold of a rule is the one that keeps
most gold on a first set of worlds with at most a tenth of false alarms on its controls; the table is of a second set.
"""

import argparse
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks import mini_gao
from benchmarks.report import table
from surefoot.watch import Look, Signals, gold_fall, signals

ANSWERS = 64
OVER, CONTROL = 0.2, 0.05
FALSE_ALARMS = 0.1


@dataclass(frozen=True)
class Walk:
    """One world. truth: the exact gain of gold at each look, in standard deviations of the reference."""

    truth: np.ndarray
    looks: Sequence[Look]
    signals: Sequence[Signals]

    @property
    def lost(self) -> float:
        """Part of the peak's gain that is gone at the end."""
        return 1 - float(self.truth[-1] / self.truth.max())


def walk(problem: mini_gao.Problem, seed: int, answers: int = ANSWERS) -> Walk:
    generator = np.random.default_rng(seed)
    policies = [mini_gao.reference(problem)] + [mini_gao.optimum(problem, beta) for beta in mini_gao.BETAS]
    exact = np.array([mini_gao.mean_gold(policy, problem) for policy in policies])
    spread = mini_gao.gold_of(mini_gao.sample(policies[0], 20_000, generator), problem).std()
    looks = []
    for step, policy in enumerate(policies):
        texts = mini_gao.sample(policy, answers, generator)
        looks.append(
            Look(
                step=step,
                scores=mini_gao.proxy_of(texts, problem).tolist(),
                lengths=[float(mini_gao.LENGTH)] * answers,
                kl=[policy.kl] * answers,
                answers=texts.tolist(),
                gold=mini_gao.gold_of(texts, problem).tolist(),
            )
        )
    return Walk((exact - exact[0]) / spread, looks, signals(looks))


# ---------------------------------------------------------------------------------------------- rules
Rule = Callable[[Walk, float], tuple[int, bool]]
"""(walk, threshold) -> the look whose model is kept, and whether there was an alarm."""


def by_signal(name: str, sign: float = 1.0) -> Rule:
    """Stops at the first look whose signal, times `sign`, passes the threshold; keeps the look before."""

    def rule(w: Walk, threshold: float) -> tuple[int, bool]:
        for place, s in enumerate(w.signals[1:], start=1):
            if sign * getattr(s, name) >= sign * threshold:
                return place - 1, True
        return len(w.signals) - 1, False

    return rule


def by_gold(labels: int) -> Rule:
    """Stops where gold, of so many answers a look, lies `threshold` standard errors below its best; keeps the best."""

    def rule(w: Walk, threshold: float) -> tuple[int, bool]:
        looks = [_first(look, labels) for look in w.looks]
        for place in range(1, len(looks)):
            fall = gold_fall(looks[: place + 1])
            if fall.z >= threshold:
                return fall.best, True
        return len(looks) - 1, False

    return rule


def best_by_gold(labels: int) -> Rule:
    """Never stops; keeps the best look by gold of so many answers."""
    return lambda w, _: (int(np.argmax([np.mean(look.gold[:labels]) for look in w.looks])), False)


def _first(look: Look, count: int) -> Look:
    kept = {name: getattr(look, name)[:count] for name in ("scores", "lengths", "kl", "answers", "gold")}
    return Look(step=look.step, **kept)


RULES: dict[str, tuple[Rule, Sequence[float]]] = {
    "no watch": (by_signal("kl"), (math.inf,)),
    "KL above": (by_signal("kl"), (2, 4, 6, 8, 10, 12, 15, 20)),
    "nats for 1 SD of score above": (by_signal("kl_price"), (4, 6, 8, 10, 12, 16, 20, 30, 50)),
    "share outside above": (by_signal("outside"), (0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.99)),
    "distinct pairs below": (by_signal("distinct", -1), (0.08, 0.06, 0.05, 0.04, 0.03, 0.02, 0.015, 0.01)),
    "commonest phrase above": (by_signal("common_phrase"), (0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)),
    "gap above": (by_signal("gap"), (0.5, 1, 1.5, 2, 2.5, 3, 4)),
    **{f"gold falls, {n} labels": (by_gold(n), (1, 1.5, 2, 2.5, 3, 3.5, 4, 4.5, 5, 6)) for n in (8, 16, 32, 64)},
    **{f"best by gold, {n} labels": (best_by_gold(n), (0.0,)) for n in (8, 16, 32, 64)},
}


# ---------------------------------------------------------------------------------------------- scores of rules
@dataclass(frozen=True)
class Found:
    """kept: gold of the kept model over the peak, mean over worlds that over-optimise. worst: the least of them.
    false: share of controls with an alarm. controls: gold kept over the peak there."""

    kept: float
    worst: float
    false: float
    controls: float


def tried(rule: Rule, threshold: float, over: Sequence[Walk], controls: Sequence[Walk]) -> Found:
    kept = [_kept(w, rule(w, threshold)[0]) for w in over]
    in_controls = [(_kept(w, place), alarm) for w in controls for place, alarm in [rule(w, threshold)]]
    share = float(np.mean([alarm for _, alarm in in_controls]))
    return Found(float(np.mean(kept)), min(kept), share, float(np.mean([k for k, _ in in_controls])))


def calibrated(rule: Rule, thresholds: Sequence[float], over: Sequence[Walk], controls: Sequence[Walk]) -> float:
    """The threshold that keeps most gold with few enough false alarms; the mildest where none has few enough."""
    found = {t: tried(rule, t, over, controls) for t in thresholds}
    allowed = {t: f for t, f in found.items() if f.false <= FALSE_ALARMS} or {thresholds[-1]: found[thresholds[-1]]}
    return max(allowed, key=lambda t: allowed[t].kept)


def _kept(w: Walk, place: int) -> float:
    return float(w.truth[place] / w.truth.max())


def worlds(seeds: Sequence[int]) -> tuple[list[Walk], list[Walk]]:
    """Those that over-optimise, and controls; of each seed one world with a quarter of the labels turned round."""
    walks = [walk(mini_gao.made(seed, flipped=flipped), seed) for seed in seeds for flipped in (0.25, 0.0)]
    return [w for w in walks if w.lost >= OVER], [w for w in walks if w.lost <= CONTROL]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", type=int, default=60, help="seeds in each of the two sets")
    n = parser.parse_args().worlds
    first, second = worlds(range(n)), worlds(range(1000, 1000 + n))
    print(f"calibrated on {len(first[0])} worlds that over-optimise and {len(first[1])} controls; "
          f"tried on {len(second[0])} and {len(second[1])}\n")  # fmt: skip
    lines = []
    for name, (rule, thresholds) in RULES.items():
        threshold = calibrated(rule, thresholds, *first)
        f = tried(rule, threshold, *second)
        lines.append([name, f"{threshold:g}", *(f"{100 * x:.0f} %" for x in (f.kept, f.worst, f.false, f.controls))])
    head = ("rule", "threshold", "gold kept of its peak", "worst world", "false alarms", "gold kept, controls")
    print(table(head, lines))


if __name__ == "__main__":
    main()
