"""The runner: what it starts, what it refuses, and one toy workload from end to end."""

import pytest

from benchmarks import launch, neutral, run
from benchmarks.ours import Ours
from benchmarks.workloads import WORKLOADS, make_prompts

SAME = {"workload": "small", "side": "trl", "setting": "like", "optimizer_steps": 16, "prompt_tokens": 2048,
        "response_tokens": 2048, "weights": "abc"}  # fmt: skip


def test_runs_of_different_work_are_not_compared():
    run.check_same(SAME | {"side": "surefoot"}, [SAME])
    run.check_same(SAME | {"workload": "real", "weights": "def"}, [SAME])
    with pytest.raises(RuntimeError, match="optimizer_steps 4 and 16"):
        run.check_same(SAME | {"optimizer_steps": 4}, [SAME])
    with pytest.raises(RuntimeError, match="weights"):
        run.check_same(SAME | {"weights": "xyz"}, [SAME])


def test_every_process_is_given_the_same_threads_and_no_wait_policy(monkeypatch):
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    env = launch.environment(threads=2)
    assert env["OMP_NUM_THREADS"] == "2"
    assert "OMP_WAIT_POLICY" not in env
    assert env["HF_HUB_OFFLINE"] == "1"


def test_only_complete_runs_are_kept(capsys):
    with pytest.raises(SystemExit):
        run.options(["--save", "--workload", "small"])
    assert "complete runs" in capsys.readouterr().err
    assert run.options(["--save"]).part == ["iteration", "busy", "sampling", "vocabulary", "rows"]


def test_a_quick_run_is_the_toy_once():
    args = run.options(["--quick", "--no-peer"])
    assert (args.workload, args.repeats) == (["toy"], 1)
    assert run.sides(args, "toy")[0] == ("surefoot", "like")


def test_an_iteration_of_ours_does_the_work_that_the_workload_says():
    w = WORKLOADS["toy"]
    side = Ours(w, "like")
    side.warm_up()
    found = side.iterate()
    assert found["optimizer_steps"] == w.epochs * w.minibatches
    assert found["response_tokens"] == sum(make_prompts(w).response_lengths)
    stages = sum(found[name] for name in ("sampling", "scoring", "reward", "update", "other"))
    assert stages == pytest.approx(found["seconds"])
    assert all(found[name] > 0 for name in ("sampling", "scoring", "reward", "update"))


@pytest.mark.slow
@pytest.mark.multi
def test_the_toy_runs_from_end_to_end(capsys, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(launch.ROOT / "src"))
    kept = {}
    monkeypatch.setattr(run, "keep", kept.update)
    run.main(["--quick", "--no-peer", "--threads", "1", "--setting", "ours", "--part", "iteration"])
    printed = capsys.readouterr().out
    assert "| toy | surefoot |" in printed
    assert kept == {}  # nothing is kept unless it was asked for


def test_a_difference_of_rounding_is_told_from_none():
    before = {"ids": "a", "losses": [[1.0, 0.0], [2.0, 4.0]], "weights": ["b", "c"]}
    assert neutral.difference(before, dict(before)) is None
    after = before | {"losses": [[1.0, 0.0], [2.0, 4.004]], "weights": ["b", "d"]}
    assert neutral.difference(before, after) == "losses, weights differ; the losses by up to 1.0e-03 of themselves"
