"""The command `surefoot`: what it answers, its exit codes, and that help is quick."""

import logging
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest
from fake_runs import FakeTrainer, evaluation, result, samples, stats
from fake_service import Service, free_port, honest, score_of

from surefoot import cli, running
from surefoot.config import PPOConfig
from surefoot.peers import AbandonedError
from surefoot.settings import load_settings


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def run(capsys, *arguments):
    code = cli.main(arguments)
    written = capsys.readouterr()
    return code, written.out, written.err


# ------------------------------------------------------------------------------------------ help and mistakes


def test_help_takes_under_half_a_second_and_loads_neither_torch_nor_transformers():
    program = (
        "import sys, time; began = time.perf_counter()\n"
        "from surefoot.cli import main; code = main(['ppo', '--help'])\n"
        "print('MODULES', code, time.perf_counter() - began, *sorted({m.partition('.')[0] for m in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    code, seconds, *modules = done.stdout.rpartition("MODULES ")[2].split()
    assert code == "0"
    assert not {"torch", "transformers", "numpy", "rich", "peft", "datasets"} & set(modules)
    assert float(seconds) < 0.5
    assert "--learning-rate" in done.stdout


def test_the_overview_names_every_command(capsys):
    code, out, _ = run(capsys, "--help")
    assert code == 0
    assert all(f"\n  {name} " in out for name in cli.COMMANDS)
    code, out_without, _ = run(capsys)
    assert (code, out_without) == (2, out)


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_every_command_has_help_with_an_example(capsys, command):
    code, out, _ = run(capsys, command, "--help")
    assert code == 0
    assert out.startswith(f"usage: surefoot {command}")
    assert f"examples:\n  surefoot {command}" in out


def test_version(capsys):
    assert run(capsys, "--version")[:2] == (0, "surefoot 0.1.0\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["pop"], "unknown command 'pop'; did you mean `surefoot ppo`?"),
        (["rewardtest"], "unknown command 'rewardtest'; did you mean `surefoot reward-test`?"),
        (
            ["xyzzy"],
            f"unknown command 'xyzzy'; there are {', '.join(cli.COMMANDS)}",
        ),
        (
            ["--config", "run.yaml"],
            f"unknown command '--config'; there are {', '.join(cli.COMMANDS)}",
        ),
        (["ppo", "--seed", "x"], "--seed: seed='x' must be a whole number"),
        (["ppo", "--config", "no.yaml"], "no.yaml: no such file; `surefoot init no.yaml` writes one to start from"),
        (
            ["ppo", "--resume", "x", "--fresh"],
            "--resume goes on with a run and --fresh begins anew: give one of the two",
        ),
        (["ppo", "--resume", "nowhere"], "--resume nowhere: no run folder, it has no config.yaml"),
        (["report", "nowhere"], "nowhere is no run folder: it has no metrics.jsonl"),
        (["reward-test"], "reward and dataset are needed: give them, or a --config that names them"),
        (["reward-test", "--reward", "a.py:b", "--dataset", "x", "-n", "0"], "-n 0: at least one row is needed"),
        (["serve-reward"], "the following arguments are required: REWARD"),
        (
            ["serve-reward", "builtins:len", "--host", "0.0.0.0"],
            "host='0.0.0.0' can be reached from other machines: give token_env as well",
        ),
        (
            ["serve-reward", "builtins:len", "--token-env", "NO_SUCH"],
            "token_env='NO_SUCH': that environment variable is empty or not set",
        ),
        (["demo", "--sed", "1"], "unknown option --sed; did you mean --seed?"),
        (["init", "run.toml"], "run.toml: the settings are written as YAML, so the name ends in .yaml"),
        (["env", "--verbose"], "unknown option --verbose; see `surefoot env --help`"),
    ],
)
def test_a_wrong_command_line_is_one_message_and_exit_code_2(capsys, arguments, message):
    assert run(capsys, *arguments) == (2, "", f"surefoot: error: {message}\n")


def test_debug_shows_the_traceback_of_a_mistake(capsys):
    code, _, err = run(capsys, "ppo", "--seed", "x", "--debug")
    assert code == 2
    assert "Traceback" in err
    assert "in load_settings" in err


# ------------------------------------------------------------------------------------------ small commands


def test_init_writes_settings_that_name_the_files_beside_them(capsys):
    code, out, _ = run(capsys, "init", "first/run.yaml")
    assert code == 0
    config = load_settings(["first/run.yaml"])
    assert os.path.exists(config.dataset)
    assert config.reward == ("first/reward.py:score",)
    assert "surefoot ppo --config first/run.yaml --dry-run" in out


def test_init_overwrites_nothing(capsys, tmp_path):
    (tmp_path / "reward.py").write_text("mine")
    assert run(capsys, "init")[0] == 0
    assert (tmp_path / "reward.py").read_text() == "mine"
    (tmp_path / "run.yaml").write_text("seed: 1")
    code, _, err = run(capsys, "init")
    assert (code, err) == (2, "surefoot: error: run.yaml exists already; choose another name\n")
    assert (tmp_path / "run.yaml").read_text() == "seed: 1"


def test_env_tells_versions_and_no_secret(capsys, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    code, out, _ = run(capsys, "env")
    table = dict(line.split(maxsplit=1) for line in out.splitlines())
    assert code == 0
    assert {"python", "surefoot", "torch", "transformers", "peft", "accelerate", "system", "device", "threads"} <= set(
        table
    )
    assert table["python"] == ".".join(map(str, sys.version_info[:3]))
    assert "secret" not in out
    assert os.uname().nodename not in out


def test_demo_is_handed_its_options_and_its_exit_code_is_ours(capsys, monkeypatch):
    asked = []
    fake = SimpleNamespace(run_demo=lambda **options: asked.append(options) or 1)
    monkeypatch.setitem(sys.modules, "surefoot.demo", fake)
    assert run(capsys, "demo", "--quick", "--seed", "3", "--output_dir", "x")[0] == 1
    assert run(capsys, "demo")[0] == 1
    assert asked == [{"quick": True, "seed": 3, "output_dir": "x"}, {"quick": False, "seed": 0, "output_dir": None}]


def test_reward_test_shows_scores_times_and_warnings(capsys, tmp_path):
    (tmp_path / "judge.py").write_text(
        "def score(completions, **columns):\n    return [float(len(t)) for t in completions]\n"
    )
    (tmp_path / "rows.jsonl").write_text(
        '{"prompt": "Hi?", "response": "Yes"}\n{"prompt": "Ho?", "response": "Maybe"}\n'
    )
    code, out, _ = run(capsys, "reward-test", "--reward", "judge.py:score", "--dataset", "rows.jsonl")
    assert code == 0
    assert "2 rows; scored as answers: the column 'response'" in out
    lines = [line.split() for line in out.splitlines()]
    assert ["1", "3", "Hi?", "Yes"] in lines
    assert ["2", "5", "Ho?", "Maybe"] in lines
    assert next(line for line in lines if line[:1] == ["score"])[1:5] == ["4", "1", "3", "5"]
    assert "warning" not in out


def test_reward_test_warns_of_a_constant_and_takes_n_rows(capsys, tmp_path):
    (tmp_path / "judge.py").write_text("def score(completions, **columns):\n    return [1.0] * len(completions)\n")
    (tmp_path / "rows.txt").write_text("one\ntwo\nthree\n")
    code, out, _ = run(capsys, "reward-test", "--reward", "judge.py:score", "--dataset", "rows.txt", "-n", "2")
    assert code == 0
    assert "2 rows; scored as answers: the prompts themselves" in out
    assert "warning: score: every answer gets 1: nothing can be learned from a constant" in out.replace("\n", " ")


def test_reward_test_asks_a_service_over_the_network(capsys, tmp_path):
    (tmp_path / "rows.txt").write_text("one\ntwo\nthree\n")
    with Service(honest) as service:
        arguments = ["reward-test", "--dataset", "rows.txt", "--reward"]
        code, out, _ = run(capsys, *arguments, f"openrlhf+{service.url}#name=far")
        assert code == 0
        assert f"{score_of('oneone'):.4g}" in out
        assert "far " in out
        code, _, err = run(capsys, *arguments, f"openrlhf+{service.url}#token=hush")
        assert code == 2
        assert "no secrets in an address" in err
        assert "hush" not in err
        code, _, err = run(capsys, *arguments, f"openrlhf+http://127.0.0.1:{free_port()}#deadline=0.1")
        assert code == 1
        assert "gave no score for 3 of 3 answers within the deadline of 0.1 s" in err


def test_a_reward_that_fails_is_a_failure_not_a_usage_error(capsys, tmp_path):
    (tmp_path / "judge.py").write_text("def score(completions, **columns):\n    return []\n")
    (tmp_path / "rows.txt").write_text("one\ntwo\n")
    code, _, err = run(capsys, "reward-test", "--reward", "judge.py:score", "--dataset", "rows.txt")
    assert code == 1
    assert "reward 'score'" in err
    assert "--debug" in err
    assert "Traceback" not in err


# ------------------------------------------------------------------------------------------ ppo with a fake trainer


class Run(FakeTrainer):
    """A trainer whose training is two steps; `trouble` happens after the first."""

    def __init__(self, trouble, config, callbacks):
        super().__init__()
        self.trouble, self.config, self.callbacks = trouble, config, callbacks
        self.prompt_report = SimpleNamespace(text=lambda: "prompts   made up: 5 of 5 rows")
        self.total_steps = 2

    def train(self):
        evaluations, reason = [evaluation(0, 0.1), evaluation(2, 0.9)], "finished: all 2 steps are done"
        for callback in self.callbacks:
            callback.on_start(self)
        try:
            for step in (1, 2):
                with self.stop.may_be_left():
                    if step > 1:
                        self.trouble()
                self.progress.steps = step
                for callback in self.callbacks:
                    callback.on_step(self, stats(step), samples(step, 0.5))
        except AbandonedError as asked:
            reason = f"stopped: {asked}"
        ended = result(*evaluations, steps=self.steps_done, folder=Path(self.config.output_dir), reason=reason)
        for callback in self.callbacks:
            callback.on_end(self, ended)
        return ended


@pytest.fixture
def fake_run(monkeypatch):
    """Sets what happens after the first step, and replaces the trainer and the report."""

    def prepare(trouble=lambda: None, making=lambda: None):
        def make(config, callbacks):
            making()
            return Run(trouble, config, callbacks)

        monkeypatch.setattr(running, "make_trainer", make)
        monkeypatch.setitem(sys.modules, "surefoot.report", SimpleNamespace(write_report=lambda f: f"{f}/report.html"))
        monkeypatch.setitem(sys.modules, "surefoot.evaluate.card", SimpleNamespace(write_card=lambda f: None))

    return prepare


def raising(error):
    def trouble():
        raise error

    return trouble


def test_a_run_shows_prompts_first_and_ends_with_reason_table_samples_and_places(capsys, fake_run):
    fake_run()
    code, out, err = run(capsys, "ppo", "--model-name", "org/m", "--output-dir", "runs/x")
    assert (code, err) == (0, "")
    order = [
        "prompts   made up",
        "model     org/m: 6 weights, all trained, on cpu",
        "run       2 steps of 64 answers, in runs/x",
        "step 1/2",
        "step 2/2",
        "The run ended after 2 steps: finished",
        "before (step 0)",
        "prompt  ",
        "folder    runs/x",
        "model     runs/x/model",
        "report    runs/x/report.html",
    ]
    places = [out.index(text) for text in order]
    assert places == sorted(places)
    assert out.count("\nprompt ") == 5


def test_quiet_shows_only_the_end(capsys, fake_run):
    fake_run()
    code, out, _ = run(capsys, "ppo", "--quiet")
    assert code == 0
    assert out.lstrip().startswith("The run ended after 2 steps")


def test_without_output_dir_a_folder_is_named_after_model_and_time(capsys, fake_run):
    fake_run()
    _, out, _ = run(capsys, "ppo", "--model-name", "org/tiny-model")
    assert time.strftime("folder    runs/tiny-model-%Y%m%d-") in out


@pytest.mark.parametrize("error", [ValueError("no such model"), FileNotFoundError("no such model")])
def test_what_cannot_be_put_together_is_exit_code_2(capsys, fake_run, error):
    fake_run(making=raising(error))
    assert run(capsys, "ppo") == (2, "", "surefoot: error: no such model\n")


@pytest.mark.parametrize("error", [ValueError("nan"), RuntimeError("device lost"), FloatingPointError("overflow")])
def test_a_run_that_fails_is_exit_code_1_with_one_message(capsys, fake_run, error):
    fake_run(raising(error))
    code, _, err = run(capsys, "ppo")
    assert code == 1
    assert err == f"surefoot: error: {error}\nAdd --debug to see where it happened.\n"


def test_a_full_memory_is_answered_with_what_needs_less(capsys, fake_run):
    fake_run(raising(RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")))
    assert "max_tokens_per_microbatch: auto" in run(capsys, "ppo")[2]


def test_a_defect_of_ours_is_not_hidden(capsys, fake_run):
    fake_run(raising(KeyError("step")))
    code, _, err = run(capsys, "ppo")
    assert code == 1
    assert "a defect of surefoot, please report it:\nTraceback" in err
    assert err.endswith("surefoot: error: KeyError: 'step'\n")


def test_what_is_logged_is_told_once_and_on_one_line(capsys, fake_run):
    def trouble():
        logging.getLogger("surefoot").warning("said %s", "\x1b[31mred api_key=hush")

    fake_run(trouble)
    code, _, err = run(capsys, "ppo", "--output-dir", "x")
    assert code == 0
    assert set(err.splitlines()) == {"surefoot: warning: said \\x1b[31mred api_key=REDACTED"}
    assert logging.getLogger("surefoot").handlers == []


@pytest.mark.parametrize(("number", "name", "exit_code"), [
    (signal.SIGINT, "Ctrl-C", 130), (signal.SIGTERM, "SIGTERM", 143),
])  # fmt: skip
def test_a_signal_leaves_what_may_be_left_saves_and_says_how_to_go_on(capsys, fake_run, number, name, exit_code):
    fake_run(lambda: os.kill(os.getpid(), number))
    before = [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)]
    code, out, err = run(capsys, "ppo", "--output-dir", "runs/x")
    assert code == exit_code
    assert f"{name}: saving and stopping; press Ctrl-C to stop at once" in err
    assert "stopped and saved after step 1; go on with the same command, or with: surefoot ppo --resume runs/x" in err
    assert "step 2/2" not in out
    assert f"The run ended after 1 steps: stopped: {name}" in out
    assert [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)] == before


def test_a_second_ctrl_c_ends_the_run_at_once(capsys, fake_run, tmp_path):
    def twice():
        try:
            os.kill(os.getpid(), signal.SIGINT)
        finally:
            os.kill(os.getpid(), signal.SIGINT)

    fake_run(twice)
    code, out, err = run(capsys, "ppo", "--output-dir", "runs/x")
    assert code == 130
    assert err.endswith("surefoot: stopped by Ctrl-C; no checkpoint was written (see save_every)\n")
    assert "step 2/2" not in out
    fake_run(lambda: ((tmp_path / "runs/y/checkpoints/step_000001").mkdir(parents=True), twice()))
    assert run(capsys, "ppo", "--output-dir", "runs/y")[2].endswith("go on with: surefoot ppo --resume runs/y\n")


def test_ctrl_c_while_models_are_loaded_is_exit_code_130(capsys, fake_run):
    fake_run(making=raising(KeyboardInterrupt()))
    assert run(capsys, "ppo") == (130, "", "surefoot: stopped by Ctrl-C\n")


def test_advice_is_one_plain_line(capsys, fake_run):
    def advise():
        warnings.simplefilter("default")  # pytest makes errors of warnings
        warnings.warn("gamma=0.5 lies outside 0.9-1", stacklevel=2)

    fake_run(making=advise)
    _, _, err = run(capsys, "ppo")
    assert err == "surefoot: warning: gamma=0.5 lies outside 0.9-1\n"


def test_a_dry_run_prints_the_checklist_and_fails_with_it(capsys, fake_run, monkeypatch):
    fake_run()
    monkeypatch.setattr(Run, "trouble", None, raising=False)
    options = ["ppo", "--dry-run", "--batch-size", "4", "--mini-batch-size", "2", "--num-generations", "2"]
    code, out, _ = run(capsys, *options)
    assert code == 0
    assert out.startswith("prompts   made up: 5 of 5 rows\n\nok    KL to the reference is 0")
    assert "Ready: start the run without --dry-run." in out
    monkeypatch.setitem(stats.__globals__["HEALTHY"], "tokens/eos_rate", 0.0)
    code, out, _ = run(capsys, *options)
    assert code == 1
    assert "FAIL  some answers end" in out
    assert "Not ready" in out


def test_the_command_line_and_the_files_reach_the_trainer(fake_run, monkeypatch, tmp_path):
    (tmp_path / "run.yaml").write_text("learning_rate: 1e-5\nseed: 4\nmodel_name: m\n")
    seen = []
    monkeypatch.setattr(cli, "run_ppo", lambda config, **how: seen.append((config, how)) or 0)
    assert cli.main(["ppo", "--config", "run.yaml", "--learning_rate", "2e-6", "--stop-strings", "a", "b"]) == 0
    expected = PPOConfig(model_name="m", learning_rate=2e-6, seed=4, stop_strings=("a", "b"))
    flags = ("quiet", "fresh", "profile", "allow_changes", "allow_topology_change")
    assert seen == [(expected, dict.fromkeys(flags, False))]
    assert cli.main(["ppo", "--config", "run.yaml", *("--" + flag for flag in flags)]) == 0
    assert seen[1][1] == dict.fromkeys(flags, True)
