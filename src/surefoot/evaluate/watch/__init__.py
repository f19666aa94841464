"""The over-optimisation watch: signs that the score still rises while the answers do not get better."""

from surefoot.evaluate.watch.signals import Look, Signals, gold_fall, look_of_samples, signals

__all__ = ["Look", "Signals", "gold_fall", "look_of_samples", "signals"]
