"""The command `surefoot`. Heavy imports wait inside the commands, so that help and mistakes answer at once."""

import argparse
import os
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from surefoot import __version__
from surefoot.arguments import Parser, UsageError, add_options, nearest_command, options_of
from surefoot.config import PPOConfig
from surefoot.manual import EXAMPLE_FILES, starter_yaml
from surefoot.settings import load_settings
from surefoot.threads import departure, share_cores

if TYPE_CHECKING:
    from rich.console import Console

    from surefoot.callbacks import TrainResult

EXIT_OK, EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED = 0, 1, 2, 130

FAILURES = (ValueError, TypeError, OSError, RuntimeError, ImportError, ArithmeticError)
"""What a run fails with. Anything else is a defect of ours and shows its traceback."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit code: 0, 1 a failed run, 2 a wrong command line or config, 130 Ctrl-C."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    share_cores()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a terminal that has no such letter is no reason to stop
    try:
        with _plain_warnings():
            return _dispatch(given)
    except BrokenPipeError:  # `surefoot ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    except (UsageError, *FAILURES) as error:
        if "--debug" in given:
            traceback.print_exc()
        _complain(f"error: {error or type(error).__name__}{_hint(error, given)}")
        return EXIT_USAGE if isinstance(error, UsageError) else EXIT_FAILED
    except KeyboardInterrupt as stopped:
        _complain(f"stopped by Ctrl-C{'; ' if stopped.args else ''}{stopped}")
        return EXIT_INTERRUPTED


def _hint(error: Exception, given: Sequence[str]) -> str:
    if "out of memory" in str(error).lower():
        return (
            "\nSmaller mini_batch_size, max_tokens_per_microbatch: auto or gradient_checkpointing: true need less; "
            "`surefoot plan` with the same options says what would fit."
        )
    return "" if isinstance(error, UsageError) or "--debug" in given else "\nAdd --debug to see where it happened."


def _dispatch(given: Sequence[str]) -> int:
    if not given or given[0] in ("-h", "--help", "help"):
        print(_OVERVIEW.strip())
        return EXIT_OK if given else EXIT_USAGE
    if given[0] in ("-V", "--version"):
        print(f"surefoot {__version__}")
        return EXIT_OK
    if given[0] not in COMMANDS:
        raise UsageError(nearest_command(given[0], COMMANDS))
    try:
        return COMMANDS[given[0]](given[1:])
    except SystemExit as leave:  # argparse, after it printed help
        return int(leave.code or 0)


_OVERVIEW = """
usage: surefoot COMMAND [options]

PPO for RLHF in small, sure steps.

  ppo           train a language model with PPO
  plan          say what a run would take of the memory, and whether it fits
  init          write a settings file to start from, with example prompts and a reward
  demo          see a model get better, with nothing to prepare (--quick: in two minutes)
  reward-test   try a reward on a few rows: its spread, its speed, what looks wrong
  serve-reward  give a reward's scores to other programs, over HTTP
  report        write the report page of a run
  env           versions and hardware, to paste into an issue

`surefoot COMMAND --help` shows a command's options; `surefoot --version` the version.

examples:
  surefoot init && surefoot ppo --config run.yaml --dry-run
  surefoot ppo --config run.yaml --learning-rate 2e-6
"""


# ------------------------------------------------------------------------------------------ ppo


def ppo(arguments: Sequence[str]) -> int:
    """`surefoot ppo`: settings -> a run, a dry run, or a run that goes on."""
    parser = Parser(
        "ppo", "Trains a language model with PPO.", "[--config FILE ...] [--OPTION VALUE ...]", _PPO_EXAMPLES
    )
    general = parser.general
    files = "settings files (.yaml, .toml, .json); later ones win over earlier ones, options over all"
    general.add_argument("--config", nargs="+", action="extend", default=[], metavar="FILE", help=files)
    general.add_argument("--resume", metavar="RUN", help="go on with the run in this folder from its last checkpoint")
    general.add_argument("--dry-run", action="store_true", help="make one step, check it, and write nothing")
    general.add_argument("--profile", action="store_true", help="profile the second step; see profile/ in its folder")
    general.add_argument("--quiet", action="store_true", help="show only how the run ended")
    add_options(parser)
    given = parser.read(arguments)
    with _usage_errors():
        if given.resume is None:
            config = load_settings(given.config, options_of(given))
        else:
            config = load_settings([_settings_of(given.resume), *given.config], options_of(given))
            config = config.replace(output_dir=given.resume)
    if given.dry_run:
        return dry_run_ppo(config)
    return run_ppo(config, quiet=given.quiet, resume=given.resume is not None, profile=given.profile)


_PPO_EXAMPLES = """
surefoot ppo --config run.yaml --learning-rate 2e-6
surefoot ppo --config base.yaml mine.yaml --stop-strings "###" "User:" --max-grad-norm none
surefoot ppo --model-name ./sft --dataset prompts.jsonl --reward judge.py:score --steps 50 --dry-run
surefoot ppo --resume runs/first
"""


def run_ppo(config: PPOConfig, *, quiet: bool = False, resume: bool = False, profile: bool = False) -> int:
    """Trains, shows the run, and says at the end how it went and where everything is.

    Args:
        config: the options; without output_dir a folder runs/<model>-<time> is made.
        quiet: show only how the run ended.
        resume: go on from the last checkpoint in output_dir.
        profile: profile the second step.
    """
    from surefoot.interrupt import StopRequest
    from surefoot.live import LiveView
    from surefoot.profiling import Profile

    console = _console()
    if config.output_dir is None:
        config = config.replace(output_dir=_new_folder(str(config.model_name)))
    elif not resume and Path(config.output_dir, "config.yaml").exists():
        raise UsageError(f"{config.output_dir} holds a run already: choose another --output-dir, or --resume it")
    folder, stop = Path(str(config.output_dir)), StopRequest(_complain)
    watchers = [Profile(folder, lambda text: _say(console, text))] if profile else []
    with LiveView(console, quiet) as view:
        with _usage_errors():
            trainer = _make_trainer(config, [view, stop, *watchers])
            if resume:
                trainer.restore(_last_checkpoint(folder))
                trainer.folder.truncate_after(trainer.steps_done)
        view.quiet = quiet or not trainer.runtime.is_main
        if not view.quiet:
            _say(console, _introduction(trainer, folder))
        with stop.listening(folder):
            result = trainer.train()
    if trainer.runtime.is_main:
        _conclude(console, result, folder, "Ctrl-C" if stop.asked else result.reason)
    return EXIT_INTERRUPTED if stop.asked else EXIT_OK


def dry_run_ppo(config: PPOConfig) -> int:
    """Builds everything, makes one step, and prints the checklist; 1 where a check fails."""
    from surefoot.dryrun import dry_run

    console = _console()
    with _usage_errors(), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the checklist repeats the advice
        # The one step is a step of the policy: a warm-up of the critic comes before what is to be checked.
        trainer = _make_trainer(config.replace(output_dir=None, log_with=None, critic_warmup_steps=0), [])
    report = dry_run(trainer)
    if trainer.runtime.is_main:
        _say(console, f"{trainer.prompt_report.text()}\n\n{report.text()}")
        done = "Ready: start the run without --dry-run." if report.passed else "Not ready: see the advice above."
        _say(console, f"\n{done}")
    return EXIT_OK if report.passed else EXIT_FAILED


def _make_trainer(config: PPOConfig, callbacks: list[Any]) -> Any:
    from transformers.utils import logging

    from surefoot.trainer import PPOTrainer

    if not sys.stderr.isatty():
        logging.disable_progress_bar()
    trainer = PPOTrainer.from_config(config, callbacks=callbacks)
    logging.disable_progress_bar()  # saving would draw over the table
    return trainer


def _introduction(trainer: Any, folder: Path) -> str:
    import torch

    weights = sum(p.numel() for p in trainer.policy.parameters())
    learning = sum(p.numel() for p in trainer.policy.parameters() if p.requires_grad)
    which = "all" if weights == learning else f"{learning:,} of them"
    lines = [
        trainer.prompt_report.text(),
        f"model     {trainer.config.model_name}: {weights:,} weights, {which} trained,"
        f" on {next(trainer.policy.parameters()).device}",
        f"run       {trainer.total_steps} steps of {trainer.config.batch_size} answers, in {folder}",
    ]
    if trainer.config.max_tokens_per_microbatch == "auto":
        lines.append(f"passes    of up to {trainer.tokens_of_a_pass():,} tokens, from the memory there is (auto)")
    threads = departure(torch.get_num_threads())
    return "\n".join([*lines, *([f"threads   {threads}"] if threads else []), ""])


def _conclude(console: "Console", result: "TrainResult", folder: Path, reason: str) -> None:
    from surefoot.live import closing
    from surefoot.report import write_report

    _say(console, f"\nThe run ended after {result.steps} steps: {reason}\n")
    console.print(closing(result, console.width))
    _say(console, f"\nfolder    {folder}\nmodel     {folder / 'model'}")
    _say(console, f"report    {write_report(folder)}")


# ------------------------------------------------------------------------------------------ the other commands


def init(arguments: Sequence[str]) -> int:
    """`surefoot init`: a settings file, and beside it the prompts and the reward that it names."""
    parser = Parser("init", "Writes a settings file to start from, with example prompts and a reward.", "[FILE]",
                    "surefoot init\nsurefoot init experiments/first.yaml")  # fmt: skip
    parser.add_argument("file", nargs="?", default="run.yaml", metavar="FILE", help="where to [run.yaml]")
    path = Path(parser.read(arguments).file)
    if path.suffix not in (".yaml", ".yml"):
        raise UsageError(f"{path}: the settings are written as YAML, so the name ends in .yaml")
    files = {path: starter_yaml(path.parent)} | {path.parent / name: text for name, text in EXAMPLE_FILES.items()}
    if path.exists():
        raise UsageError(f"{path} exists already; choose another name")
    path.parent.mkdir(parents=True, exist_ok=True)
    for file, text in files.items():
        if file.exists():
            print(f"kept     {file} (it was there)")
            continue
        file.write_text(text, encoding="utf-8")
        print(f"written  {file}")
    print(f"\nNext: surefoot ppo --config {path} --dry-run")
    return EXIT_OK


def plan(arguments: Sequence[str]) -> int:
    """`surefoot plan`: what a run takes of the memory; 1 where it does not fit."""
    from surefoot.plan.command import read, run_plan

    given = read(arguments)
    with _usage_errors():
        return EXIT_OK if run_plan([*given.file, *given.config], options_of(given)) else EXIT_FAILED


def demo(arguments: Sequence[str]) -> int:
    """`surefoot demo`: the whole thing, with nothing to prepare."""
    summary = "Trains a real small model toward positive answers and shows what changed."
    examples = "surefoot demo --quick\nsurefoot demo --seed 1"
    parser = Parser("demo", summary, "[--quick] [--seed N] [--output-dir DIR]", examples)
    parser.add_argument("--quick", action="store_true", help="a 2-million-parameter model made on the spot, 2 minutes")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="another seed, other numbers [0]")
    parser.add_argument("--output-dir", metavar="DIR", help="folder of the run [a new one under runs/]")
    given = parser.read(arguments)
    from surefoot.demo import run_demo

    return int(run_demo(quick=given.quick, seed=given.seed, output_dir=given.output_dir))


def reward_test(arguments: Sequence[str]) -> int:
    """`surefoot reward-test`: a reward on the first rows of a dataset."""
    parser = Parser("reward-test", "Tries a reward on a few rows: its spread, its speed, what looks wrong.",
                    "[--config FILE] [--reward X] [--dataset Y] [-n 16]", _REWARD_EXAMPLES)  # fmt: skip
    parser.add_argument("--config", nargs="+", action="extend", default=[], metavar="FILE", help="settings files")
    parser.add_argument("-n", dest="rows", type=int, default=16, metavar="N", help="how many rows [16]")
    for name, text in (("reward", "rewards"), ("reward_weights", "their weights"), ("dataset", "prompts with answers"),
                       ("model_name", "whose tokenizer and chat template render the prompts; not needed for text"),
                       ("prompt_column", "the column with the prompt")):  # fmt: skip
        many: dict[str, Any] = {"nargs": "+", "action": "extend"} if name.startswith("reward") else {}
        parser.add_argument("--" + name.replace("_", "-"), default=argparse.SUPPRESS, metavar="X", help=text, **many)
    given = parser.read(arguments)
    with _usage_errors():
        config = load_settings(given.config, options_of(given))
        if given.rows < 1:
            raise UsageError(f"-n {given.rows}: at least one row is needed")
        if not config.reward or config.dataset is None:
            raise UsageError("reward and dataset are needed: give them, or a --config that names them")
        from surefoot.rewards import make_reward
        from surefoot.rewardtest import first_prompts, try_rewards

        reward = make_reward(list(config.reward), config.reward_weights)
        prompts = first_prompts(config, given.rows)
    _, tables = try_rewards(reward, prompts)
    _console().print(tables)
    return EXIT_OK


_REWARD_EXAMPLES = """
surefoot reward-test --config run.yaml
surefoot reward-test --reward judge.py:score --dataset answers.jsonl -n 4
"""


def serve_reward(arguments: Sequence[str]) -> int:
    """`surefoot serve-reward`: rewards behind HTTP until Ctrl-C or SIGTERM; what was asked by then is answered."""
    summary = "Gives a reward's scores to other programs, over HTTP in OpenRLHF's protocol."
    parser = Parser("serve-reward", summary, "REWARD [--port N] [--host H --token-env NAME]", _SERVE_EXAMPLES)
    parser.add_argument("reward", nargs="+", metavar="REWARD", help="what the option reward takes; several: summed")
    parser.add_argument("--host", default="127.0.0.1", metavar="H", help="address to listen at [127.0.0.1]")
    parser.add_argument("--port", type=int, default=5000, metavar="N", help="port; 0 takes a free one [5000]")
    parser.add_argument("--token-env", metavar="NAME", help="variable with the token that requests must carry")
    given = parser.read(arguments)
    with _usage_errors():
        from surefoot.rewards import make_reward
        from surefoot.rewards.transport import token_from
        from surefoot.serve import RewardServer

        server = RewardServer(make_reward(given.reward), given.host, given.port, token_from(given.token_env))
    print(f"serving  {', '.join(server.reward.rewards)}\nready    openrlhf+{server.url}", flush=True)
    server.serve_until_signalled()
    print("stopped")
    return EXIT_OK


_SERVE_EXAMPLES = """
surefoot serve-reward ./reward-model
surefoot serve-reward judge.py:score --host 0.0.0.0 --token-env RM_TOKEN
"""


def report(arguments: Sequence[str]) -> int:
    """`surefoot report`: the page of a run, made anew from its files."""
    parser = Parser("report", "Writes the report page of a run.", "RUN", "surefoot report runs/first")
    parser.add_argument("run", metavar="RUN", help="folder of the run")
    folder = Path(parser.read(arguments).run)
    if not (folder / "metrics.jsonl").is_file():
        raise UsageError(f"{folder} is no run folder: it has no metrics.jsonl")
    from surefoot.report import write_report

    print(write_report(folder))
    return EXIT_OK


def env(arguments: Sequence[str]) -> int:
    """`surefoot env`: versions and hardware; no names of machine, user or folder, no variables but the threads'."""
    Parser("env", "Shows versions and hardware, to paste into an issue.", "", "surefoot env").read(arguments)
    from surefoot.tracking import environment

    found = environment([])
    found |= found.pop("packages")
    del found["started"], found["command"]
    for name, value in found.items():
        print(f"{name:<16} {'not installed' if value is None else value}")
    return EXIT_OK


COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {
    "ppo": ppo,
    "plan": plan,
    "init": init,
    "demo": demo,
    "reward-test": reward_test,
    "serve-reward": serve_reward,
    "report": report,
    "env": env,
}


# ------------------------------------------------------------------------------------------ helpers


def _console() -> "Console":
    """Standard output; 110 wide where it is no terminal and nobody says otherwise."""
    from rich.console import Console

    known = sys.stdout.isatty() or "COLUMNS" in os.environ
    return Console(highlight=False, width=None if known else 110)


def _say(console: "Console", text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def _complain(text: str) -> None:
    print(f"surefoot: {text}", file=sys.stderr)


@contextmanager
def _usage_errors() -> Iterator[None]:
    """What goes wrong while a run is put together is the command line's or the config's fault."""
    try:
        yield
    except (ValueError, OSError) as error:
        raise UsageError(str(error)) from error


@contextmanager
def _plain_warnings() -> Iterator[None]:
    """Warnings as one line on standard error, without the place in our code that they come from."""
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_, **__: _complain(f"warning: {message}")
        yield


def _new_folder(model_name: str) -> str:
    """runs/<model>-<time>, the same on every process."""
    from surefoot.runtime import Runtime

    name = Path(model_name).name or "model"
    return str(Runtime().gather([f"runs/{name}-{time.strftime('%Y%m%d-%H%M%S')}"])[0])


def _settings_of(run: str) -> Path:
    path = Path(run) / "config.yaml"
    if not path.is_file():
        raise UsageError(f"--resume {run}: no run folder, it has no config.yaml")
    return path


def _last_checkpoint(folder: Path) -> Path:
    from surefoot.checkpoint import newest_valid

    found = newest_valid(folder / "checkpoints", lambda words: _complain(f"warning: {words}"))
    if found is None:
        raise UsageError(f"--resume {folder}: no checkpoint in it (see save_every)")
    return found


if __name__ == "__main__":
    sys.exit(main())
