"""`surefoot ppo` in several processes, started by ourselves, by torchrun or by Ray; stopped, killed, gone on with."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
from stopped_runs import differences, left_by
from tiny_classifier import classifier

from surefoot import cli
from surefoot.arguments import UsageError, without_flag
from surefoot.launch import check_processes, launch

pytestmark = [pytest.mark.multi, pytest.mark.scale]
SETTINGS = """\
model_name: model
dataset: prompts.jsonl
reward: [judge.py:judge, reward_model]
batch_size: 4
mini_batch_size: 2
max_new_tokens: 5
eval_prompts: 2
eval_every: 2
ppo_epochs: 1
steps: 5
learning_rate: 1e-4
save_every: 1
keep_checkpoints: 9
"""
JUDGE = """\
import os
import random
import signal
import time
from pathlib import Path

import numpy
import torch

random.seed(1)
numpy.random.seed(1)
torch.manual_seed(1)
trouble = os.environ.get("TROUBLE")


def judge(completions, trainer_state, **_):
    step, rank = trainer_state.global_step, os.environ["RANK"]
    if trouble == "SIGTERM" and step == 2:
        if rank == "0":
            os.kill(os.getppid(), signal.SIGTERM)
        time.sleep(30)
    if trouble == "SIGKILL" and step == 3 and rank == "1" and not Path("killed").exists():
        Path("killed").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return [sum(text.count(v) for v in "aeiou") + random.Random(text).random() for text in completions]
"""


# ------------------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize("flag", ["--processes", "--ray"])
@pytest.mark.parametrize("number", ["0", "-2"])
def test_there_is_at_least_one_process(capsys, flag, number):
    assert cli.main(["ppo", flag, number]) == 2
    assert f"error: {flag} {number}: there is at least one process" in capsys.readouterr().err


def test_one_of_several_processes_starts_no_others():
    check_processes(2, {})
    with pytest.raises(UsageError, match="--processes 2: a launcher has started this already, as one of 4"):
        check_processes(2, {"WORLD_SIZE": "4"})


@pytest.mark.parametrize(
    ("more", "why"),
    [
        (["--processes", "2"], "--ray and --processes do not go together: each says how many there are"),
        (["--fresh"], "--ray and --fresh do not go together: a worker that dies would make all of them begin anew"),
        (["--dry-run"], "--ray and --dry-run do not go together: it takes one process"),
    ],
)
def test_what_does_not_go_together_with_ray_is_refused(capsys, more, why):
    assert cli.main(["ppo", "--ray", "2", *more]) == 2
    assert why in capsys.readouterr().err


@pytest.mark.parametrize("given", [["--processes", "2"], ["--processes=2"]])
def test_the_flag_is_not_passed_on(given):
    assert without_flag("--processes", ["--a", "1", *given, "--b"]) == ["--a", "1", "--b"]


# ------------------------------------------------------------------------------------------ real processes


def test_the_module_is_run_once_for_each_process_and_its_exit_code_is_ours(capfd):
    assert launch(2, ["--version"]) == 0
    assert capfd.readouterr().out.splitlines() == [f"surefoot {cli.__version__}"] * 2
    assert launch(2, ["pppo"]) == 2
    lines = sorted(capfd.readouterr().err.splitlines())
    assert lines[0].startswith("surefoot, process 1: error: unknown command 'pppo'; did you mean `surefoot ppo`?")
    assert lines[1].startswith("surefoot: error: unknown command 'pppo'")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder with everything that a run needs."""
    folder = tmp_path_factory.mktemp("world")
    for name, model in {"model": tiny.tiny_llama(num_hidden_layers=1), "reward_model": classifier()}.items():
        model.save_pretrained(folder / name)
        tiny.tiny_tokenizer().save_pretrained(folder / name)
    (folder / "prompts.jsonl").write_text("".join(json.dumps({"prompt": f"Question {i}?"}) + "\n" for i in range(12)))
    (folder / "judge.py").write_text(JUDGE)
    (folder / "run.yaml").write_text(SETTINGS)
    return folder


def surefoot(folder, *arguments, launcher=("-m", "surefoot"), **environment):
    command = [sys.executable, *launcher, "ppo", "--config", "run.yaml", *arguments]
    shared = {**os.environ, "OMP_NUM_THREADS": "1"} | environment
    return subprocess.run(command, cwd=folder, env=shared, capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture(scope="module")
def whole(world):
    """What two processes leave that nobody disturbed, and what they said."""
    done = surefoot(world, "--processes", "2", "--output-dir", "whole")
    assert done.returncode == 0, done.stderr
    return left_by(world / "whole"), done


@pytest.mark.slow
def test_processes_do_what_torchrun_does_and_one_of_them_prints(world, whole):
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "surefoot"]
    done = surefoot(world, "--output-dir", "torchrun", launcher=launcher)
    assert done.returncode == 0, done.stderr
    assert differences(whole[0], left_by(world / "torchrun")) == []
    assert whole[1].stdout.count("The run ended after 5 steps: finished") == 1
    assert whole[1].stdout.count("prompts   prompts.jsonl") == 1


@pytest.mark.slow
def test_a_run_in_shares_that_is_stopped_and_killed_ends_as_if_it_had_not_been(world, whole):
    shares = ["--processes", "2", "--shard"]
    done = surefoot(world, *shares, "--output-dir", "shares")
    assert done.returncode == 0, done.stderr
    expected = left_by(world / "shares")

    again = [*shares, "--output-dir", "stopped"]
    stopped = surefoot(world, *again, TROUBLE="SIGTERM")
    assert stopped.returncode == 128 + signal.SIGTERM, stopped.stderr
    assert stopped.stderr.count("stopped and saved after step 2") == 1
    killed = surefoot(world, *again, TROUBLE="SIGKILL")
    assert killed.returncode == 1, killed.stderr
    assert "process 1 died without a word" in killed.stderr
    assert "process 1 was ended by SIGKILL" in killed.stderr
    (world / "killed").unlink()
    done = surefoot(world, *again)
    assert done.returncode == 0, done.stderr
    assert differences(expected, left_by(world / "stopped")) == []

    scores = [[line["objective/scores"] for line in left["metrics.jsonl"]] for left in (whole[0], expected)]
    assert scores[0] == pytest.approx(scores[1], abs=1e-5)
    assert len(scores[0]) == 5


@pytest.mark.slow
def test_a_worker_of_ray_that_is_killed_makes_all_go_on_and_end_as_if_it_had_not_been(world, whole):
    pytest.importorskip("ray")
    done = surefoot(world, "--ray", "2", "--output-dir", "on_ray", TROUBLE="SIGKILL")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (world / "killed").exists()
    Path(world / "killed").unlink()
    assert differences(whole[0], left_by(world / "on_ray")) == []
