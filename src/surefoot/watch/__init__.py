"""The over-optimisation watch: signs that the score still rises while the answers do not get better."""

from surefoot.watch.rules import Alarm, alarms, gold_alarm, told, warnings
from surefoot.watch.signals import Look, Signals, gold_fall, look_of_samples, signals

__all__ = [
    "Alarm",
    "Look",
    "Signals",
    "alarms",
    "gold_alarm",
    "gold_fall",
    "look_of_samples",
    "signals",
    "told",
    "warnings",
]
