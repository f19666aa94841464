"""The run folder and the trackers beside it."""

import importlib.metadata
import json
import logging
import math

import numpy as np
import pytest

from surefoot import tracking
from surefoot.config import PPOConfig
from surefoot.settings import load_settings
from surefoot.tracking import RunFolder, environment, make_tracker
from surefoot.types import StepStats


def stats(step, **more):
    return StepStats({"step": step, "episode": 8 * step, "objective/kl": 0.5 * step} | more)


@pytest.fixture
def folder(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.start(PPOConfig(), ["surefoot", "ppo"])
    return folder


def strictly(line):
    def refuse(word):
        raise AssertionError(f"{word} is not JSON")

    return json.loads(line, parse_constant=refuse)


# ------------------------------------------------------------------------------------------ the folder
def test_steps_evaluations_and_samples_come_back_as_they_were_written(folder):
    samples = [
        {"row": 0, "response": "first\nsecond\u2028third \u202e", "score": 1.5},
        {"row": 1, "response": "é 漢 🙂"},
    ]
    folder.log_step(stats(1, early=True), samples, with_samples=True)
    folder.log_step(stats(2), samples, with_samples=False)
    folder.log_evaluation(2, 16, {"eval/score": 0.25}, samples)
    assert folder.read_metrics() == [
        {"step": 1, "episode": 8, "objective/kl": 0.5, "early": True},
        {"step": 2, "episode": 16, "objective/kl": 1.0},
    ]
    assert folder.read_evaluations() == [{"step": 2, "episode": 16, "metrics": {"eval/score": 0.25}}]
    assert folder.read_samples("step", 1) == samples
    assert folder.read_samples("step", 2) == []
    assert folder.read_samples("eval", 2) == samples
    assert folder.sample_steps("step") == [1]
    assert folder.lines == 2


def test_arrays_stay_out_of_the_metrics_file(folder):
    folder.log_step(stats(1, dist=np.zeros(3)), [], with_samples=False)
    assert "dist" not in folder.read_metrics()[0]


def test_numbers_that_are_not_finite_are_null_and_named_on_disk_and_restored_on_reading(folder):
    folder.log_step(stats(1, **{"ppo/loss/value": math.nan, "ppo.grad": -math.inf}), [], with_samples=False)
    line = strictly((folder.path / "metrics.jsonl").read_text())
    assert line["ppo/loss/value"] is None
    assert line["nonfinite"] == {"ppo/loss/value": "nan", "ppo.grad": "-inf"}
    found = folder.read_metrics()[0]
    assert math.isnan(found["ppo/loss/value"])
    assert found["ppo.grad"] == -math.inf
    assert "nonfinite" not in found


def test_numbers_inside_samples_and_evaluations_are_restored_too(folder):
    folder.log_evaluation(0, 0, {"eval/kl": math.inf}, [{"scores": {"a.b": math.nan, "c": 1.0}}])
    strictly((folder.path / "samples" / "eval_000000.jsonl").read_text())
    assert folder.read_evaluations()[0]["metrics"]["eval/kl"] == math.inf
    scores = folder.read_samples("eval", 0)[0]["scores"]
    assert math.isnan(scores["a.b"])
    assert scores["c"] == 1.0


def test_half_a_character_from_a_byte_tokenizer_survives(folder):
    folder.log_step(stats(1), [{"response": "broken \udce9 text"}], with_samples=True)
    assert folder.read_samples("step", 1) == [{"response": "broken \udce9 text"}]


def test_half_a_line_left_by_a_crash_is_not_read_and_is_cut_off_by_the_next_line(folder, caplog):
    folder.log_step(stats(1), [], with_samples=False)
    with (folder.path / "metrics.jsonl").open("ab") as file:
        file.write(b'{"step": 2, "objec')
    assert [m["step"] for m in folder.read_metrics()] == [1]
    assert folder.lines == 1
    with caplog.at_level(logging.WARNING, "surefoot"):
        folder.log_step(stats(2), [], with_samples=False)
    assert [m["step"] for m in folder.read_metrics()] == [1, 2]
    assert "metrics.jsonl ended in half a line" in caplog.text


def test_a_file_of_nothing_but_half_a_line_is_repaired_to_nothing(folder):
    (folder.path / "metrics.jsonl").write_bytes(b'{"st')
    folder.log_step(stats(1), [], with_samples=False)
    assert [m["step"] for m in folder.read_metrics()] == [1]


def test_a_broken_line_in_the_middle_is_told_with_its_file_and_number(folder):
    (folder.path / "metrics.jsonl").write_text('{"step": 1}\n{"step": \n{"step": 3}\n')
    with pytest.raises(ValueError, match=r"metrics\.jsonl, line 2 "):
        folder.read_metrics()


def test_a_folder_with_another_run_is_refused_unless_resumed(folder):
    folder.log_step(stats(1), [], with_samples=False)
    with pytest.raises(ValueError, match="holds another run already"):
        RunFolder(folder.path).start(PPOConfig())
    RunFolder(folder.path).start(PPOConfig(), resume=True)
    assert folder.lines == 1


def test_an_empty_folder_that_exists_is_taken(tmp_path):
    RunFolder(tmp_path).start(PPOConfig(), ["surefoot"])
    assert (tmp_path / "config.yaml").exists()


def test_a_file_in_the_folders_place_is_refused(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(ValueError, match="is a file"):
        RunFolder(tmp_path / "run").claim()


def test_truncating_drops_every_trace_past_the_step_and_nothing_before(folder):
    for step in (1, 2, 3):
        folder.log_step(stats(step, loss=math.nan), [{"row": step}], with_samples=True)
        folder.log_evaluation(step, 8 * step, {"eval/score": float(step)}, [{"row": step}])
    folder.finish("finished")
    assert folder.truncate_after(2, {1, 2}) == 1
    assert [m["step"] for m in folder.read_metrics()] == [1, 2]
    assert math.isnan(folder.read_metrics()[0]["loss"])
    assert [e["step"] for e in folder.read_evaluations()] == [1, 2]
    assert folder.sample_steps("step") == folder.sample_steps("eval") == [1, 2]
    assert not (folder.path / "result.json").exists()


def test_a_run_says_why_it_ended_until_it_is_resumed(folder):
    folder.finish("patience: no better score")
    assert json.loads((folder.path / "result.json").read_text())["reason"] == "patience: no better score"
    folder.start(PPOConfig(), resume=True)
    assert not (folder.path / "result.json").exists()


def test_statistics_without_a_step_are_refused(folder):
    with pytest.raises(ValueError, match='stats has no "step"'):
        folder.log_step(StepStats({"a": 1.0}), [], with_samples=False)


def test_samples_of_an_unknown_kind_are_refused(folder):
    with pytest.raises(ValueError, match="'step' or 'eval'"):
        folder.read_samples("train", 1)


def test_looking_at_a_folder_that_does_not_exist_makes_nothing(tmp_path):
    folder = RunFolder(tmp_path / "none")
    assert folder.read_metrics() == folder.read_evaluations() == []
    assert folder.lines == 0
    assert not folder.path.exists()


def test_the_written_options_read_back_as_the_same_config(tmp_path):
    config = PPOConfig(model_name="m", max_new_tokens=7, reward=("a:b",), prompt_template="API key: {prompt}")
    RunFolder(tmp_path).start(config, [])
    assert load_settings([tmp_path / "config.yaml"]) == config


def test_the_written_options_hold_no_password_of_an_address(tmp_path):
    RunFolder(tmp_path).start(PPOConfig(reward=("https://joe:s3cr3t@example.org/score",)), [])
    assert "s3cr3t" not in (tmp_path / "config.yaml").read_text()


def test_the_environment_names_versions_device_threads_and_command(folder):
    found = json.loads((folder.path / "environment.json").read_text())
    assert found["packages"]["torch"].count(".") == 2
    assert found["threads"] >= 1
    assert found["device"]
    assert found["command"] == "surefoot ppo"
    assert found["packages"]["trl"] == importlib.metadata.version("trl")


def test_a_package_that_was_run_as_a_module_is_named_so_that_one_can_type_it():
    found = environment(["/somewhere/surefoot/__main__.py", "ppo", "--steps", "3"])
    assert found["command"] == "python -m surefoot ppo --steps 3"


# ------------------------------------------------------------------------------------------ secrets
@pytest.mark.parametrize(
    "arguments", [["--hub-token", "two words"], ["--hub-token=two words"], ["--key", "-dash words"]]
)
def test_secrets_of_a_command_are_blanked_whole(arguments):
    command = environment(["/somewhere/bin/surefoot", *arguments, "--steps", "3"])["command"]
    assert "words" not in command
    assert command.startswith("surefoot --")
    assert command.endswith("--steps 3")


# ------------------------------------------------------------------------------------------ trackers
def test_no_tracker_is_made_where_none_is_asked_for(tmp_path):
    assert make_tracker(None, "run", tmp_path) is None


def test_an_unknown_tracker_is_refused_with_the_known_ones(tmp_path):
    with pytest.raises(ValueError, match=r"log_with='wandbb' is not a tracker; known are .*tensorboard.*wandb"):
        make_tracker("wandbb", "run", tmp_path)


@pytest.mark.parametrize(
    ("name", "package"), [("tensorboard", r'"surefoot\[tensorboard\]"'), ("comet_ml", "comet-ml")]
)
def test_a_missing_package_is_told_with_the_command_that_installs_it(tmp_path, monkeypatch, name, package):
    monkeypatch.setattr(tracking.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ValueError, match=f"pip install {package}"):
        make_tracker(name, "run", tmp_path)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboards_event_file_holds_the_numbers(tmp_path):
    pytest.importorskip("tensorboard")
    tracker = make_tracker("tensorboard", "run", tmp_path)
    tracker.log({"objective/kl": 0.5, "ppo/loss/value": math.nan}, 3)
    tracker.log({"objective/kl": 0.75}, 4)
    tracker.finish()
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(e.step, e.value) for e in events.Scalars("objective/kl")] == [(3, 0.5), (4, 0.75)]
    assert events.Tags()["scalars"] == ["objective/kl"]


def test_a_tracker_that_fails_is_told_once_and_never_ends_the_run(caplog):
    class Broken:
        def log(self, values, step):
            raise ConnectionError("no route")

        def finish(self):
            raise RuntimeError("already closed")

    guarded = tracking._Guarded("broken", Broken())
    with caplog.at_level(logging.WARNING, "surefoot"):
        guarded.log({"a": 1.0}, 1)
        guarded.log({"a": 1.0}, 2)
        guarded.finish()
    assert [r.message for r in caplog.records] == [
        "the tracker broken failed (ConnectionError: no route); the run goes on without it, its own files are complete"
    ]
