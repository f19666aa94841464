"""The demo's intervals against closed forms."""

import math
import random

import pytest

from surefoot.evaluate.statistics import Measure, compare


def test_equal_values_leave_no_room_for_chance():
    found = compare(Measure("m", [2.0] * 10, [5.0] * 10))
    assert (found.before.low, found.before.value, found.before.high) == (2.0, 2.0, 2.0)
    assert (found.change.low, found.change.value, found.change.high) == (3.0, 3.0, 3.0)


def test_the_interval_of_a_mean_is_that_of_the_normal_law():
    values = [random.Random(7).gauss(0, 1) for _ in range(1)] + [random.Random(i).gauss(0, 1) for i in range(400)]
    mean = sum(values) / len(values)
    deviation = math.sqrt(sum((v - mean) ** 2 for v in values) / len(values))
    found = compare(Measure("m", values, values)).before
    assert found.value == pytest.approx(mean)
    reach = 1.96 * deviation / math.sqrt(len(values))
    assert found.high - found.value == pytest.approx(reach, rel=0.1)
    assert found.value - found.low == pytest.approx(reach, rel=0.1)


def test_the_change_is_resampled_in_pairs():
    before = [float(i) for i in range(50)]  # wide intervals, yet every prompt gained exactly 1
    found = compare(Measure("m", before, [b + 1 for b in before]))
    assert found.before.high - found.before.low > 5
    assert found.change.low == pytest.approx(1)
    assert found.change.high == pytest.approx(1)
    assert found.change.direction == 1


def test_weights_make_it_a_ratio_of_sums():
    found = compare(Measure("m", [1.0, 3.0], [2.0, 2.0], [1.0, 9.0], [4.0, 4.0]))
    assert found.before.value == pytest.approx(4 / 10)
    assert found.after.value == pytest.approx(4 / 8)


@pytest.mark.parametrize(("shift", "direction"), [(3.0, 1), (-3.0, -1), (0.0, 0)])
def test_a_direction_is_claimed_only_beyond_chance(shift, direction):
    noise = [random.Random(i).gauss(0, 1) for i in range(60)]
    centred = [n - sum(noise) / len(noise) for n in noise]
    assert compare(Measure("m", [0.0] * 60, [n + shift for n in centred])).change.direction == direction


@pytest.mark.parametrize(("before", "after"), [([1.0], []), ([], []), ([1.0, 2.0], [1.0])])
def test_prompts_without_a_partner_are_refused(before, after):
    with pytest.raises(ValueError, match=r"score: .* values before and .* after"):
        compare(Measure("score", before, after))
