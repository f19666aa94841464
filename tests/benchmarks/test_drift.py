"""What the measurement of drift says where the answer is known."""

import pytest

from benchmarks import drift


def test_bfloat16_drifts_a_little_and_the_first_divergence_is_0():
    found = drift.measure(drift.of_random_weights("toy"))
    assert 1e-3 < found["mean"] < found["max"] < 0.2
    assert 0 < found["kl"] < 5e-3
    assert found["first_kl"] == 0
    assert 0.999 < found["cosine"] < 1
    assert found["norm"] == pytest.approx(1, abs=0.01)


def test_float32_does_not_drift_from_itself(monkeypatch):
    step = drift._step
    monkeypatch.setattr(drift, "_step", lambda make, precision, *rows: step(make, "float32", *rows))
    found = drift.measure(drift.of_random_weights("toy"))
    assert (found["mean"], found["max"], found["kl"], found["first_kl"]) == (0, 0, 0, 0)
    assert found["cosine"] == pytest.approx(1)
    assert found["norm"] == 1
