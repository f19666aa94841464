"""A signal at any moment of a real run: it is saved and ends, and gone on with it ends as if never stopped.

The run is a program of its own that stops itself at a chosen moment, so that the moment is always the same.
"""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file
from tiny import tiny_llama, tiny_tokenizer

from surefoot.checkpoint import verify

PROGRAM = """
import os, signal, sys, time
import torch
from surefoot import cli
from surefoot.engine.transformers import TransformersEngine
import surefoot.update, surefoot.resuming, surefoot.loop, surefoot.trainer

moment, number, times = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
state = {"calls": 0}

def strike():
    try:
        os.kill(os.getpid(), number)
    finally:
        if times == 2:
            os.kill(os.getpid(), number)

def before(owner, name, call):
    original = getattr(owner, name)
    def wrapped(*a, **k):
        state[name] = state.get(name, 0) + 1
        if state[name] == call:
            strike()
        return original(*a, **k)
    setattr(owner, name, wrapped)

# The run makes: evaluation, step, step, evaluation, ...; a step is sampling, scoring, and 2 minibatches of update
if moment == "sampling":          # the third call of the engine's draw in the second step
    before(TransformersEngine, "_draw", 3 + 2 * 5)
if moment == "scoring":           # the pass over the answers in the second step
    before(surefoot.trainer, "collect", 2)
if moment == "update":            # the second minibatch of the second step
    before(surefoot.update._Update, "_backward", 4)
if moment == "evaluation":        # the one after the second step
    before(surefoot.loop, "_collect", 2)
if moment == "last evaluation":   # the one after the fourth; with eval_every 3 that which closes the run
    before(surefoot.loop, "_collect", 3)
if moment == "first evaluation":
    before(surefoot.loop, "_collect", 1)
if moment == "saving":            # the checkpoint of the second step
    before(surefoot.resuming, "write_checkpoint", 2)
if moment == "last saving":       # the checkpoint of the last step
    before(surefoot.resuming, "write_checkpoint", 4)
sys.exit(cli.main(sys.argv[4:]))
"""

REWARD = """
import os, signal, random
random.seed(5)
def score(completions, trainer_state, **columns):
    if os.environ.get("STRIKE") and trainer_state.global_step == 1:
        random.random()
        os.kill(os.getpid(), int(os.environ.pop("STRIKE")))
    return [len(c) + random.random() for c in completions]   # noise from a generator that a checkpoint holds
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    tiny_llama(num_hidden_layers=1).save_pretrained(folder / "model")
    tiny_tokenizer().save_pretrained(folder / "model")
    (folder / "prompts.txt").write_text("".join(f"prompt {i}\n" for i in range(12)))
    (folder / "judge.py").write_text(REWARD)
    (folder / "program.py").write_text(PROGRAM)
    return folder


def run(world, out, moment="never", number=signal.SIGTERM, times=1, *, save_every=0, eval_every=2, **environment):
    options = {"model-name": world / "model", "dataset": world / "prompts.txt", "reward": f"{world}/judge.py:score",
               "batch-size": 4, "mini-batch-size": 2, "ppo-epochs": 1, "max-new-tokens": 5, "steps": 4,
               "eval-prompts": 2, "eval-every": eval_every, "save-every": save_every, "keep-checkpoints": 9,
               "learning-rate": 1e-3, "stop-token-ids": 3, "output-dir": out}  # fmt: skip
    arguments = [f"--{name}={value}" for name, value in options.items()]
    done = subprocess.run(
        [sys.executable, str(world / "program.py"), moment, str(int(number)), str(times), "ppo", *arguments],
        capture_output=True, text=True, timeout=120, check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def left_behind(out):
    """The weights and everything recorded, without times."""
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    numbers = [{k: v for k, v in line.items() if not k.startswith(("time/", "memory/"))} for line in lines]
    evaluations = (out / "evaluations.jsonl").read_text()
    return load_file(out / "model" / "model.safetensors"), numbers, evaluations


@pytest.fixture(scope="module")
def straight(world, tmp_path_factory):
    out = tmp_path_factory.mktemp("straight") / "run"
    code, text = run(world, out)
    assert code == 0, text
    return left_behind(out)


def newest(out):
    return sorted(p.name for p in Path(out).glob("checkpoints/step_*"))[-1]


# moment -> the step that the newest checkpoint is of
MOMENTS = {"sampling": 1, "scoring": 1, "reward": 1, "update": 2, "evaluation": 2, "saving": 2, "first evaluation": 0}


@pytest.mark.parametrize("moment", [m if m == "update" else pytest.param(m, marks=pytest.mark.slow) for m in MOMENTS])
def test_a_signal_at_any_moment_saves_and_the_run_that_goes_on_ends_as_if_never_stopped(
    world, straight, tmp_path, moment
):
    number = signal.SIGINT if moment in ("sampling", "update") else signal.SIGTERM
    out = tmp_path / "run"
    strike = {"STRIKE": str(int(number))} if moment == "reward" else {}
    code, text = run(world, out, moment, number, save_every=int(moment == "saving"), **strike)
    assert code == 128 + number, text
    assert f"stopped and saved after step {MOMENTS[moment]}; go on with the same command" in text
    assert newest(out) == f"step_{MOMENTS[moment]:06d}"
    assert "Traceback" not in text
    code, text = run(world, out)
    assert code == 0, text
    weights, numbers, evaluations = left_behind(out)
    assert numbers == straight[1]
    assert evaluations == straight[2]
    assert all((weights[name] == tensor).all() for name, tensor in straight[0].items())


@pytest.mark.parametrize("moment", [pytest.param("sampling", marks=pytest.mark.slow), "update"])
def test_a_second_ctrl_c_ends_the_run_at_once(world, tmp_path, moment):
    out = tmp_path / "run"
    code, text = run(world, out, moment, signal.SIGINT, times=2, save_every=1)
    assert code == 130, text
    assert text.rstrip().endswith(f"stopped by Ctrl-C; go on with: surefoot ppo --resume {out}")
    assert newest(out) == "step_000001"


@pytest.mark.slow
def test_a_second_sigterm_does_not_hurry(world, tmp_path):
    out = tmp_path / "run"
    code, text = run(world, out, "update", signal.SIGTERM, times=2, save_every=1)
    assert code == 143, text
    assert newest(out) == "step_000002"


def test_who_runs_one_thing_after_the_other_hears_of_a_signal_that_came_too_late_to_stop_this_one(world, tmp_path):
    out = tmp_path / "run"
    code, text = run(world, out, "last saving", signal.SIGTERM, save_every=1)
    assert code == 143, text
    assert "The run ended after 4 steps: finished" in text
    assert (out / "model" / "model.safetensors").is_file()


@pytest.mark.slow
def test_a_signal_during_the_evaluation_at_the_end_leaves_it_to_the_run_that_goes_on(world, tmp_path):
    code, text = run(world, tmp_path / "straight", eval_every=3)
    assert code == 0, text
    out = tmp_path / "run"
    code, text = run(world, out, "last evaluation", signal.SIGTERM, eval_every=3)
    assert code == 143, text
    assert "stopped and saved after step 4; go on with the same command" in text
    code, text = run(world, out, eval_every=3)
    assert code == 0, text
    (weights, *records), (expected, *expected_records) = left_behind(out), left_behind(tmp_path / "straight")
    assert records == expected_records
    assert all((weights[name] == tensor).all() for name, tensor in expected.items())


def state_of(out, name):
    return json.loads((out / "checkpoints" / name / "state.json").read_text())


def test_an_evaluation_that_a_signal_cut_off_is_in_the_checkpoint_of_its_step_once_it_was_made(
    world, straight, tmp_path
):
    """The signal's own checkpoint of that step is of the moment before it."""
    out = tmp_path / "run"
    code, text = run(world, out, "last evaluation", signal.SIGTERM)
    assert code == 143, text
    assert [e["step"] for e in state_of(out, "step_000004")["parts"]["progress"]["evaluations"]] == [0, 2]
    code, text = run(world, out)
    assert code == 0, text
    assert left_behind(out)[1:] == straight[1:]
    last = state_of(out, "step_000004")["parts"]["progress"]["evaluations"][-1]
    told = json.loads((out / "evaluations.jsonl").read_text().splitlines()[-1])
    assert (last["step"], last["metrics"]) == (4, told["metrics"])
    assert verify(out / "checkpoints" / "step_000004")["score"] == told["metrics"]["eval/score"]
    assert sorted(p.name for p in (out / "checkpoints").iterdir()) == ["step_000004"]


@pytest.mark.parametrize(("number", "code"), [("SIGTERM", -15), ("SIGINT", -2)])
def test_a_signal_before_there_is_anything_to_save_ends_the_process_as_if_nobody_had_listened(number, code):
    program = (
        "import os, signal; from pathlib import Path; from surefoot.interrupt import StopRequest\n"
        f"with StopRequest(print).listening(Path('.')): os.kill(os.getpid(), signal.{number})"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, check=False).returncode == code
