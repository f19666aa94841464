"""The same command again: `surefoot ppo` on a folder that holds a run, however that run ended."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
from fake_service import Service, honest, said
from stopped_runs import differences, left_by

from surefoot.cli import main
from surefoot.kept import steps_in
from surefoot.lock import FolderLock
from surefoot.snapshot import generator_states, restore_generators

RUNNER = Path(__file__).with_name("kill_runs.py")
SETTINGS = """\
model_name: model
dataset: prompts.jsonl
reward: judge.py:noisy
output_dir: run
batch_size: 4
mini_batch_size: 2
max_new_tokens: 5
eval_prompts: 2
eval_every: 2
ppo_epochs: 1
steps: 4
learning_rate: 1e-3
save_every: 1
keep_checkpoints: 9
"""
JUDGE = """\
import random
import numpy
import torch
random.seed(1)
numpy.random.seed(1)
torch.manual_seed(1)


def noisy(text):
    return sum(text.count(v) for v in "aeiou") + random.random() + float(torch.rand(()))
"""

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder with everything a run needs."""
    folder = tmp_path_factory.mktemp("world")
    tiny.tiny_llama(num_hidden_layers=1).save_pretrained(folder / "model")
    tiny.tiny_tokenizer().save_pretrained(folder / "model")
    (folder / "prompts.jsonl").write_text("".join(json.dumps({"prompt": f"Question {i}?"}) + "\n" for i in range(12)))
    (folder / "judge.py").write_text(JUDGE)
    (folder / "run.yaml").write_text(SETTINGS)
    return folder


def ppo(*arguments):
    sys.modules.pop("judge", None)
    return main(["ppo", "--config", "run.yaml", "--quiet", *arguments])


def never_stopped(world, name, *arguments):
    """What a run leaves that was never stopped, in a folder of this name."""
    before, here = json.dumps(generator_states()), Path.cwd()
    os.chdir(world)
    try:
        assert ppo(*arguments) == 0
    finally:
        os.chdir(here)
        restore_generators(json.loads(before))
    (world / "run").rename(world / name)
    return left_by(world / name)


@pytest.fixture(scope="module")
def whole(world):
    return never_stopped(world, "whole")


@pytest.fixture(scope="module")
def whole_of_thirty(world):
    return never_stopped(world, "whole_of_thirty", "--steps", "30")


@pytest.fixture
def folder(world, whole, tmp_path, monkeypatch):
    """A new place with the same files, and the whole run in `run`."""
    before = json.dumps(generator_states())
    shutil.copytree(world, tmp_path / "here", ignore=shutil.ignore_patterns("whole*"))
    shutil.copytree(world / "whole", tmp_path / "here" / "run")
    monkeypatch.chdir(tmp_path / "here")
    yield tmp_path / "here"
    restore_generators(json.loads(before))


def killed_after(step):
    """Makes `run` what a kill after a step would have left: its lines and samples reach one step further."""
    run = Path("run")
    (run / "result.json").unlink()
    shutil.rmtree(run / "model")
    for number, path in steps_in(run / "checkpoints").items():
        if number > step:
            shutil.rmtree(path)
    (run / "checkpoints" / ".unfinished-step_000099-x").mkdir()
    (run / "checkpoints" / ".unfinished-step_000099-x" / "tensors.safetensors").write_bytes(b"half")


def content(folder):
    return {str(p): p.read_bytes() for p in sorted(Path(folder).rglob("*")) if p.is_file() and p.name != ".lock"}


def test_the_same_command_again_goes_on_and_ends_as_if_never_stopped(folder, whole, capsys, caplog):
    killed_after(2)
    assert main(["ppo", "--config", "run.yaml"]) == 0
    out = capsys.readouterr().out
    assert "run       4 steps of 4 answers, in run; goes on from step 2" in out
    assert "2 steps past step 2 are made again" in caplog.text
    assert "before (step 0)" in out
    assert "(first " in out
    assert differences(whole, left_by("run")) == []
    assert [p.name for p in Path("run/checkpoints").iterdir() if p.name.startswith(".")] == []


def test_resume_and_a_folder_name_do_the_same_under_its_own_settings(folder, whole):
    killed_after(3)
    Path("run.yaml").unlink()
    sys.modules.pop("judge", None)
    assert main(["ppo", "--resume", "run", "--quiet"]) == 0
    assert differences(whole, left_by("run")) == []


def test_a_run_that_had_ended_says_so_and_nothing_is_touched(folder, capsys):
    before = content("run")
    assert ppo() == 0
    assert capsys.readouterr().out == (
        "The run in run has ended: finished: all 4 steps are done.\n"
        "Raise steps (or the limit that ended it) to go on with it, or add --fresh to begin anew.\n"
    )
    assert content("run") == before


def test_more_steps_are_said_and_made(folder, capsys):
    assert ppo("--steps", "5") == 0
    out, err = capsys.readouterr()
    assert "surefoot: the run goes on with another option: steps: 4 -> 5 (when the run ends)" in err
    assert "The run ended after 5 steps: finished" in out
    steps = [json.loads(line)["step"] for line in Path("run/metrics.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("ended", [True, False])
def test_options_that_make_another_run_are_refused_and_nothing_is_touched(folder, capsys, ended):
    if not ended:
        killed_after(2)
    before = content("run")
    assert ppo("--learning-rate", "2e-3", "--seed", "5", "--keep-checkpoints", "3") == 2
    err = capsys.readouterr().err
    assert "had other options: learning_rate: 0.001 -> 0.002; seed: 0 -> 5. With these" in err
    assert "--fresh" in err
    assert "--allow-changes" in err
    assert content("run") == before
    assert ppo("--learning-rate", "2e-3", "--allow-changes") == 0
    assert "learning_rate: 0.001 -> 0.002 (another run from here on, as allowed)" in capsys.readouterr().err


def test_fresh_begins_anew_and_moves_what_was_there(folder, whole, capsys):
    before = content("run")
    for name in ("run.old", "run.old-2"):
        assert ppo("--fresh") == 0
        assert f"surefoot: what run held is now in {name}" in capsys.readouterr().err
        assert differences(whole, left_by("run")) == []
    assert {p.replace("run.old/", "run/", 1): c for p, c in content("run.old").items()} == before
    assert ppo("--fresh", "--output-dir", "nothing-there") == 0


def test_a_run_killed_before_its_first_checkpoint_starts_again_and_says_so(folder, whole, capsys):
    killed_after(0)
    assert ppo() == 0
    err = capsys.readouterr().err
    assert "was stopped before its first checkpoint (see save_every): it starts again from step 0" in err
    assert differences(whole, left_by("run")) == []


def test_a_run_that_ended_and_lost_its_checkpoints_keeps_its_logs(folder, capsys):
    shutil.rmtree("run/checkpoints")
    before = content("run")
    assert ppo("--steps", "9") == 2
    assert "has ended (finished: all 4 steps are done), but its checkpoints are gone" in capsys.readouterr().err
    assert content("run") == before


def test_a_damaged_checkpoint_is_named_and_the_one_before_it_used(folder, whole, capsys):
    killed_after(3)
    file = Path("run/checkpoints/step_000003/tensors.safetensors")
    damaged = bytearray(file.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    file.write_bytes(damaged)
    assert ppo() == 0
    err = capsys.readouterr().err
    assert f"{file} is damaged: its checksum differs from the one in manifest.json; going back to step_000002" in err
    assert differences(whole, left_by("run")) == []
    assert Path("run/checkpoints/aside_step_000003").is_dir()


def test_a_kill_before_one_that_was_written_again_had_its_place_costs_nothing(folder, whole):
    killed_after(3)
    place = Path("run/checkpoints/step_000003")
    shutil.copytree(place, place.with_name("step_000003_again"))
    (place / "state.json").unlink()
    assert ppo() == 0
    assert differences(whole, left_by("run")) == []
    assert not place.with_name("step_000003_again").exists()


def test_only_damaged_checkpoints_are_an_error_and_no_new_start(folder, capsys):
    killed_after(2)
    for path in steps_in(Path("run/checkpoints")).values():
        (path / "state.json").unlink()
    before = content("run")
    assert ppo() == 2
    err = capsys.readouterr().err
    assert "state.json is missing. None of the 2 checkpoints in run/checkpoints is whole" in err
    assert "--fresh" in err
    assert content("run") == before


def test_a_folder_in_use_is_refused_before_anything_is_loaded(folder, capsys):
    killed_after(2)
    shutil.rmtree("model")
    held = FolderLock("run")
    held.acquire()
    before = content("run")
    for more in ([], ["--fresh"]):
        assert ppo(*more) == 2
        assert f"in use by process {os.getpid()} on " in capsys.readouterr().err
    held.release()
    assert content("run") == before


def test_a_place_for_checkpoints_that_cannot_be_written_to_is_found_before_anything_is_loaded(folder, capsys):
    shutil.rmtree("model")
    Path("run/result.json").unlink()
    shutil.rmtree("run/checkpoints")
    Path("run/checkpoints").write_text("a file")
    assert ppo() == 2
    assert "run/checkpoints" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------ real kills
def kill_runs(folder, resumes, seed, signals):
    command = [sys.executable, str(RUNNER), str(folder), str(resumes), str(seed), *signals]
    environment = {**os.environ, "PYTHONPATH": f"{RUNNER.parents[2] / 'src'}:{os.environ.get('PYTHONPATH', '')}"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.multi
@pytest.mark.parametrize(
    ("signals", "resumes"),
    [
        pytest.param(["SIGKILL"], 5, marks=pytest.mark.slow),
        pytest.param(["SIGKILL"], 50, marks=pytest.mark.slow),
        pytest.param(["SIGKILL"], 300, marks=pytest.mark.soak),
        pytest.param(["SIGTERM", "SIGINT", "SIGKILL"], 5, marks=pytest.mark.slow),
        pytest.param(["SIGTERM", "SIGINT", "SIGKILL"], 15, marks=pytest.mark.slow),
        pytest.param(["SIGTERM", "SIGINT", "SIGKILL"], 50, marks=pytest.mark.soak),
    ],
)
def test_the_same_command_after_signals_at_random_moments_ends_as_if_never_stopped(
    folder, whole_of_thirty, signals, resumes, record_property
):
    """While models are loaded, sampling, training, saving, and going on again; every run that came to its end."""
    shutil.rmtree("run")
    (folder / "run.yaml").write_text(SETTINGS.replace("steps: 4", "steps: 30"))
    found = kill_runs(folder, resumes, resumes, signals)
    ends = [f"ended{number}" for number in range(1, found["ended"] + 1)] + ["run"]
    other = {end: where for end in ends if (where := differences(whole_of_thirty, left_by(end)))}
    kills = ", ".join(f"{count} {name}" for name, count in sorted(found["kills"].items()))
    record_property(
        "counts",
        f"{found['resumes']} resumes after {kills} ({found['saved']} saved first), {len(found['bad'])} bad states, "
        f"{len(other)} of {len(ends)} finished runs other than the run that was never stopped",
    )
    assert found["resumes"] == resumes
    assert sum(found["kills"].values()) > resumes // 2, "mostly the run had ended by itself: the test tests little"
    assert found["bad"] == []
    assert other == {}


LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2)
from surefoot.cli import main
sys.exit(main(["ppo", "--config", "run.yaml", "--quiet"]))
"""


def test_a_full_disk_stops_the_run_and_the_same_command_goes_on_from_what_was_saved(folder, whole):
    killed_after(2)
    size = Path("run/checkpoints/step_000002/tensors.safetensors").stat().st_size
    command = [sys.executable, "-c", LIMITED, str(size // 2)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 1
    assert "the disk is full, or a limit on its use is reached: step_000003 needs" in done.stderr
    assert list(steps_in(Path("run/checkpoints"))) == [1, 2]
    assert ppo() == 0
    assert differences(whole, left_by("run")) == []


@pytest.mark.slow
def test_a_log_that_cannot_be_written_stops_the_run_and_the_same_command_goes_on(folder, whole):
    """The last line of the metrics is cut in half by the limit, as by a full disk."""
    killed_after(2)
    size = Path("run/metrics.jsonl").stat().st_size
    Path("run/metrics.jsonl").write_bytes(b"".join(Path("run/metrics.jsonl").read_bytes().splitlines(True)[:2]))
    done = subprocess.run([sys.executable, "-c", LIMITED, str(size * 5 // 8)], capture_output=True, text=True,
                          timeout=300, check=False)  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert "File too large" in done.stderr or "the disk is full" in done.stderr
    assert ppo() == 0
    assert differences(whole, left_by("run")) == []


# ------------------------------------------------------------------------------------------ a service that is down
def test_a_reward_service_that_is_down_for_good_ends_the_run_saved_and_it_goes_on_when_it_is_up(folder, capsys):
    """Down from the third step on, without regular checkpoints; the same command later."""
    limit = [10**6]
    with Service(lambda r: honest(r) if r.number < limit[0] else said("out of order", 503)) as service:
        more = ["--save-every", "0", "--reward", f"openrlhf+{service.url}/get_reward#deadline=0.3,name=judge"]
        assert ppo(*more, "--output-dir", "straight") == 0
        limit[0] = len(service.requests) + 4  # two evaluations and two steps are answered
        capsys.readouterr()
        assert ppo(*more, "--output-dir", "stopped") == 1
        err = capsys.readouterr().err
        assert "gave no score for 4 of 4 answers within the deadline of 0.3 s" in err
        assert "out of order" in err
        assert list(steps_in(Path("stopped/checkpoints"))) == [2]
        limit[0] = 10**6
        assert ppo(*more, "--output-dir", "stopped") == 0
    assert differences(left_by("straight"), left_by("stopped")) == []
