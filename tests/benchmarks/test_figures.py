"""Medians, ratios of pairs and bars, on a results file whose numbers can be worked out by hand."""

import math

import pytest

from benchmarks import figures
from benchmarks.figures import BARS, Results


def run(side: str, setting: str, round_: int, seconds: float, peak: float = 1.0, **more) -> dict:
    return {
        "part": "iteration", "neighbour": False, "waiting": "", "workload": "small", "side": side, "setting": setting,
        "round": round_, "seconds": seconds, "peak_bytes": peak, **more,
    }  # fmt: skip


def results(*runs: dict, **parts) -> Results:
    return {"matmul": {}, "runs": list(runs), "sampling": [], "vocabulary": [], "rows": []} | parts


def test_a_speed_up_is_the_median_of_the_ratios_of_pairs_and_not_the_ratio_of_medians():
    found = results(
        run("trl", "like", 0, 10.0), run("surefoot", "ours", 0, 5.0),
        run("trl", "like", 1, 30.0), run("surefoot", "ours", 1, 6.0),
        run("trl", "like", 2, 12.0), run("surefoot", "ours", 2, 4.0),
    )  # fmt: skip
    assert figures.speedup(found, "small", "ours") == 3.0  # of 2, 5 and 3; the medians 12 and 5 would say 2.4
    assert figures.speedup(found, "small", "bf16") is None
    assert figures.speedup(found, "real", "ours") is None


def test_rounds_without_a_peer_make_no_pair():
    found = results(run("trl", "like", 0, 10.0), run("surefoot", "like", 0, 5.0), run("surefoot", "like", 1, 1.0))
    assert figures.speedup(found, "small", "like") == 2.0


def test_memory_is_ours_by_theirs():
    found = results(run("trl", "like", 0, 1.0, peak=8.0), run("surefoot", "ours", 0, 1.0, peak=2.0))
    assert figures.memory_ratio(found, "small", "ours") == 0.25


def test_a_slow_down_is_busy_by_quiet_of_one_side():
    found = results(
        run("surefoot", "ours", 0, 100.0),
        run("surefoot", "ours", 0, 2.0) | {"part": "busy"},
        run("surefoot", "ours", 0, 5.0) | {"part": "busy", "neighbour": True},
        run("trl", "like", 0, 7.0) | {"part": "busy", "neighbour": True},
    )
    assert figures.slowdown(found, "small") == 2.5
    assert figures.slowdown(found, "small", "trl") is None
    assert figures.slowdown(found, "small", waiting="spinning") is None


def test_the_share_of_the_rate_is_useful_operations_a_second_by_the_higher_rate(monkeypatch):
    operations = figures.Operations(sampling=10, scoring=20, reward=30, update=40)
    monkeypatch.setattr(figures, "operations_of", lambda workload, setting: operations)
    rates = {"small": {"fp32": 10.0, "square_fp32": 16.0, "bf16": 100.0, "square_bf16": 80.0}}
    found = results(
        run("surefoot", "ours", 0, 12.5, update=5.0), run("surefoot", "bf16", 0, 2.0, update=0.8), matmul=rates
    )
    assert figures.share_of_rate(found, "small", "ours", "update") == 0.5  # 8 a second of 16
    assert figures.share_of_rate(found, "small", "bf16", "update") == 0.5  # 50 a second of 100
    assert figures.share_of_rate(found, "small", "ours", "iteration") == 0.5  # 100 in 12.5 seconds
    assert figures.share_of_rate(found, "real", "ours", "update") is None


def test_sampling_is_compared_round_by_round():
    seconds = {"surefoot": [1.0, 2.0, 1.0], "generate": [2.0, 8.0, 3.0], "continuous": [9.0, 9.0, 9.0]}
    found = results(sampling=[{"workload": "ragged", "seconds": seconds, "tokens": {}}])
    assert figures.sampling_ratio(found, "ragged", "generate") == 3.0
    assert figures.sampling_ratio(found, "small", "generate") is None


def test_growth_compares_the_largest_with_the_smallest():
    vocabulary = [
        {"workload": "real", "vocab": 200, "step_bytes": 103},
        {"workload": "real", "vocab": 100, "step_bytes": 100},
    ]
    found = results(vocabulary=vocabulary)
    assert figures.vocabulary_growth(found, "real") == pytest.approx(0.03)
    assert figures.vocabulary_growth(found, "small") is None


def test_the_exponent_of_a_power_is_found():
    rows = [{"workload": "small", "rows": n, "seconds": 3 * n**1.5, "step_bytes": 7} for n in (8, 16, 32, 64)]
    found = results(rows=rows)
    assert math.isclose(figures.row_exponent(found, "small"), 1.5)
    assert figures.row_memory_growth(found, "small") == 0


def test_a_bar_is_reached_from_its_own_side():
    faster, memory = BARS[0], BARS[3]
    assert faster.met(1.3, "small")
    assert not faster.met(1.299, "small")
    assert memory.met(0.75, "small")
    assert not memory.met(0.751, "small")


def test_the_bars_are_those_that_were_promised():
    needed = {bar.name: bar.needed for bar in BARS}
    assert needed["faster, like for like, fp32"] == {"small": 1.3, "ragged": 2.0, "real": 1.4}
    assert needed["faster, ours, fp32"] == {"small": 2.2, "ragged": 3.5, "real": 2.3}
    assert needed["faster, ours, bf16"] == {"small": 4.0, "ragged": 6.0, "real": 6.0}
    assert needed["peak memory, ours"] == {"small": 0.75, "ragged": 0.75, "real": 0.5}
    assert set(needed["slow-down beside a busy process"].values()) == {2.2}
    assert needed["share of the matmul rate, update, fp32"] == {"real": 0.75}
    assert needed["sampling, faster than `transformers.generate`"] == {"small": 1.2, "ragged": 2.0}
