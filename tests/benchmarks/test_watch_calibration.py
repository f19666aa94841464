"""The rules of the watch on a walk made by hand, and the choice of a threshold."""

import numpy as np
import pytest

from benchmarks.watch_calibration import Walk, best_by_gold, by_gold, by_signal, calibrated, tried
from surefoot.watch import Look, signals


def a_walk(gold_means, truth=None):
    """Gold of four answers around each mean; the proxy rises by 1 and the divergence by 2 at each look."""
    looks = [
        Look(step=n, scores=[n - 1.0, n + 1.0] * 2, lengths=[3.0] * 4, kl=[2.0 * n] * 4, answers=[list("abc")] * 4,
             gold=[g - 0.5, g + 0.5, g - 0.4, g + 0.6])
        for n, g in enumerate(gold_means)
    ]  # fmt: skip
    return Walk(np.array(gold_means if truth is None else truth), looks, signals(looks))


HUMP = a_walk([0.0, 2.0, 4.0, 3.9, 1.0])
RISE = a_walk([0.0, 1.0, 2.0, 3.0, 4.0])


def test_a_signal_stops_at_its_threshold_and_keeps_the_look_before():
    assert by_signal("kl")(HUMP, 5.0) == (2, True)
    assert by_signal("kl")(HUMP, 99.0) == (4, False)
    assert by_signal("kl", -1)(HUMP, 0.0) == (4, False)


def test_gold_stops_when_it_has_fallen_and_keeps_its_best_look():
    assert by_gold(4)(HUMP, 3.0) == (2, True)
    assert by_gold(4)(RISE, 1.0) == (4, False)


def test_the_best_by_gold_is_kept_without_an_alarm():
    assert best_by_gold(4)(HUMP, 0.0) == (2, False)


def test_what_is_kept_is_a_share_of_the_peak_and_alarms_count_on_controls():
    found = tried(by_signal("kl"), 5.0, [HUMP], [RISE, a_walk([0.0, 1.0])])
    assert found.kept == found.worst == 1.0
    assert found.false == 0.5
    assert found.controls == pytest.approx((2 / 4 + 1) / 2)


def test_the_threshold_keeps_most_gold_among_those_with_few_false_alarms():
    over, controls = [a_walk([0.0, 4.0, 3.0, 2.0, 1.0])], [a_walk([0.0, 1.0, 2.0])]  # the control ends at 4 nats
    assert calibrated(by_signal("kl"), (3.0, 5.0, 7.0), over, controls) == 5.0
    assert calibrated(by_signal("kl"), (3.0, 4.0), over, controls) == 4.0  # none is quiet: the mildest
