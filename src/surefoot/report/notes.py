"""Things in a run's numbers that a person should look at, in plain words. They are pointers, never proof."""

import itertools
import math
from collections.abc import Callable, Sequence

from surefoot.ranks import spearman
from surefoot.report.numbers import WINDOW, Run, number
from surefoot.watch.rules import told


def notes(run: Run) -> list[str]:
    """One or two sentences for everything unusual; empty where nothing is."""
    if not run.metrics:
        return []
    return [sentence for check in _CHECKS if (sentence := check(run))]


def alarm_notes(run: Run) -> list[str]:
    """What the watch said of the evaluations, in their order; it may quote answers."""
    return [f"Step {e['step']}: {told(alarm)}." for e in run.evaluations for alarm in e.get("alarms", ())]


def entropies(run: Run) -> list[float]:
    """Entropy per token at every step; of step APIs that did not record it, the mean surprise of the answers."""
    exact = run.series("ppo/policy/entropy")
    return exact if any(math.isfinite(e) for e in exact) else run.series("objective/entropy")


def _no_spread(run: Run) -> str:
    spreads = run.series("ppo/std_scores")
    flat = [step for step, spread in zip(_steps(run), spreads, strict=True) if spread == 0]
    if not flat or not any(size != 1 for size in _batch_sizes(run)):
        return ""
    return (
        f"All answers of a batch had the same score in {len(flat)} of {len(spreads)} steps (first: step {flat[0]}). "
        "Such a batch teaches nothing about the reward. Look at these samples: does the reward tell them apart?"
    )


def _kl_far(run: Run) -> str:
    kl, target = _last(run, "objective/kl_per_token"), _last(run, "objective/target_kl")
    if not kl > 2 * target:
        return ""
    return (
        f"Over the last {_window(run)} the KL per token was {kl:.3g} nats, above twice its target of {target:.3g}. "
        "Look at the last samples: do they still read like the model they started from?"
    )


def _kl_negative(run: Run) -> str:
    kl = _last(run, "objective/kl_per_token")
    if not kl < -0.01:
        return ""
    return (
        f"Over the last {_window(run)} the KL per token was negative ({kl:.3g} nats). Its mean cannot be when "
        "the policy itself sampled the answers. Look at how these samples were made: with top-k or top-p?"
    )


def _entropy_gone(run: Run) -> str:
    entropy = [e for e in entropies(run) if math.isfinite(e)]
    if len(entropy) < 2 or not entropy[0] > 0 or not _mean(entropy[-WINDOW:]) < entropy[0] / 10:
        return ""
    return (
        f"Entropy fell from {entropy[0]:.3g} to {_mean(entropy[-WINDOW:]):.3g}, less than a tenth. "
        "Look at the last samples: do different prompts get the same answer?"
    )


def _cut_off(run: Run) -> str:
    rate = _last(run, "tokens/truncated_rate")
    if not rate > 0.8:
        return ""
    return (
        f"Over the last {_window(run)} {rate:.0%} of the answers were cut off before their end. "
        "Look at these samples: is max_new_tokens too small, or has the policy unlearned to stop?"
    )


def _critic_lost(run: Run) -> str:
    explained = _last(run, "ppo/val/explained_variance", "ppo/val/var_explained")
    if not explained < 0:
        return ""
    return (
        f"Over the last {_window(run)} the critic explained {explained:.2f} of the returns' variance. "
        "A constant would do better. Look at the value loss: does it still fall? Is its learning rate off?"
    )


def _ratio_off(run: Run) -> str:
    ratios = run.series("ppo/policy/first_ratio")
    off = [(abs(r - 1), r, s) for r, s in zip(ratios, _steps(run), strict=True) if abs(r - 1) > 0.05]
    if not off:
        return ""
    _, ratio, step = max(off)
    return (
        f"Before its first gradient step an update should see a ratio of 1; in {len(off)} steps it did not "
        f"(farthest: {ratio:.3g} at step {step}). Look at dropout, precision and who sampled these answers."
    )


def _not_finite(run: Run) -> str:
    names = sorted({k for m in run.metrics for k, v in m.items() if isinstance(v, float) and not math.isfinite(v)})
    if not names:
        return ""
    shown = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
    return f"Some numbers were not finite: {shown}. Look at the steps where their curves have gaps."


def _skipped(run: Run) -> str:
    skipped = sum(x for x in run.series("ppo/policy/skipped_minibatches") if math.isfinite(x))
    if not skipped:
        return ""
    return (
        f"{skipped:.0f} minibatches were left out because their ratio was beyond ratio_threshold. "
        "Look at the approximate KL around those steps: is the learning rate too high?"
    )


def _length_pays(run: Run) -> str:
    both = [(number(s.get("length")), number(s.get("score"))) for s in run.last_samples]
    known = [(x, y) for x, y in both if math.isfinite(x + y)]
    rho = spearman([x for x, _ in known], [y for _, y in known])
    if len(known) < 10 or not abs(rho) >= 0.7:
        return ""
    return (
        f"In the last samples the score follows the length (Spearman {rho:+.2f}). "
        "Look at these samples: are they better, or only " + ("longer?" if rho > 0 else "shorter?")
    )


_CHECKS: Sequence[Callable[[Run], str]] = (
    _not_finite,
    _no_spread,
    _kl_far,
    _kl_negative,
    _entropy_gone,
    _cut_off,
    _length_pays,
    _ratio_off,
    _skipped,
    _critic_lost,
)


def _last(run: Run, *names: str) -> float:
    """Mean over the last steps of the first of these statistics that was recorded; NaN where none was."""
    for name in names:
        known = [x for x in run.series(name)[-WINDOW:] if math.isfinite(x)]
        if known:
            return _mean(known)
    return math.nan


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _window(run: Run) -> str:
    return "step" if len(run.metrics) == 1 else f"{min(WINDOW, len(run.metrics))} steps"


def _steps(run: Run) -> list[int]:
    return [int(m["step"]) for m in run.metrics]


def _batch_sizes(run: Run) -> list[float]:
    episodes = [0.0, *run.episodes]
    return [b - a for a, b in itertools.pairwise(episodes)]
