"""The command `surefoot`. Heavy imports wait inside the commands, so that help and mistakes answer at once."""

import argparse
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from surefoot import __version__
from surefoot.arguments import (
    Parser,
    UsageError,
    add_options,
    add_run_flags,
    flag_of,
    nearest_command,
    options_of,
    settings_of,
    without_flag,
)
from surefoot.config import PPOConfig
from surefoot.display import visible
from surefoot.evaluate.command import compare, evaluate
from surefoot.launch import check_processes, launch
from surefoot.manual import EXAMPLE_FILES, starter_yaml
from surefoot.running import dry_run_ppo, new_folder, run_ppo
from surefoot.settings import load_settings
from surefoot.stages import command as stages
from surefoot.terminal import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_OK,
    EXIT_USAGE,
    complain,
    console,
    plain_warnings,
    usage_errors,
)
from surefoot.threads import share_cores

FAILURES = (ValueError, TypeError, OSError, RuntimeError, ImportError, ArithmeticError)
"""What a run fails with. Anything else is a defect of ours and shows its traceback."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit code: 0, 1 a failed run, 2 a wrong command line or config, 130 Ctrl-C.

    A run that a signal stopped, and that was saved, has 130 (Ctrl-C) or 143 (SIGTERM).
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    share_cores()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a terminal that has no such letter is no reason to stop
    try:
        with plain_warnings():
            return _dispatch(given)
    except BrokenPipeError:  # `surefoot ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    except (UsageError, *FAILURES) as error:
        if "--debug" in given:
            complain(f"where it happened:\n{traceback.format_exc()}")
        complain(f"error: {error or type(error).__name__}{_hint(error, given)}")
        return EXIT_USAGE if isinstance(error, UsageError) else EXIT_FAILED
    except Exception as error:  # noqa: BLE001 - a defect: it too is told without secrets and control characters
        complain(f"a defect of surefoot, please report it:\n{traceback.format_exc()}")
        complain(f"error: {type(error).__name__}: {error}")
        return EXIT_FAILED
    except KeyboardInterrupt as stopped:
        complain(f"stopped by Ctrl-C{'; ' if stopped.args else ''}{stopped}")
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

  rlhf          the whole of RLHF from one file: SFT, reward model, PPO, DPO, and their comparison
  sft           teach a language model texts, answers or conversations
  reward        train a reward model from pairs of answers, and judge it
  ppo           train a language model with PPO
  dpo           train a language model from pairs of answers directly
  plan          say what a run would take of the memory, and whether it fits
  init          write a settings file to start from, with example prompts and a reward
  demo          see a model get better, with nothing to prepare (--quick: in two minutes)
  reward-test   try a reward on a few rows: its spread, its speed, what looks wrong
  serve-reward  give a reward's scores to other programs, over HTTP
  evaluate      say whether a run got better: win rate by scorers it was not trained on, or by a judge
  compare       put trained models beside each other on held-out prompts, by a judge none was trained on
  report        write the report page of a run
  web           see runs in the browser while they go on
  rate          ask people, blind, whether the policy got better
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
    parser.epilog = f"{parser.epilog}\n\n{_PPO_EXITS.strip()}"
    add_run_flags(parser)
    general, more = parser.general, "go on with another number of processes"
    general.add_argument("--allow-topology-change", action="store_true", help=more)
    started = "start so many processes on this machine, as torchrun --nproc-per-node does"
    general.add_argument("--processes", type=int, metavar="N", help=started)
    workers = "run in so many workers of a Ray cluster, started again when one dies (surefoot[ray])"
    general.add_argument("--ray", type=int, metavar="N", help=workers)
    general.add_argument("--dry-run", action="store_true", help="make one step, check it, and write nothing")
    general.add_argument("--profile", action="store_true", help="profile the second step; see profile/ in its folder")
    add_options(parser)
    given = parser.read(arguments)
    if given.fresh and given.resume is not None:
        raise UsageError("--resume goes on with a run and --fresh begins anew: give one of the two")
    with usage_errors():
        if given.resume is None:
            config = load_settings(given.config, options_of(given))
        else:
            config = load_settings([settings_of(given.resume), *given.config], options_of(given))
            config = config.replace(output_dir=given.resume)
    if given.ray is not None:
        return _on_ray(given, config, arguments)
    if given.processes is not None:
        check_processes(given.processes)
        if given.processes > 1:
            return launch(given.processes, ["ppo", *without_flag("--processes", arguments)])
    if given.dry_run:
        return dry_run_ppo(config)
    how = {name: getattr(given, name) for name in _RUN_FLAGS}
    return run_ppo(config, **how)


def _on_ray(given: argparse.Namespace, config: PPOConfig, arguments: Sequence[str]) -> int:
    check_processes(given.ray, flag="--ray")
    apart = {
        "processes": "each says how many there are",
        "dry_run": "it takes one process",
        "fresh": "a worker that dies would make all of them begin anew; choose another output_dir",
    }
    for name, why in apart.items():
        if getattr(given, name):
            raise UsageError(f"--ray and {flag_of(name)} do not go together: {why}")
    folder = config.output_dir or new_folder(config)
    kept = ["ppo", *without_flag("--ray", arguments)]
    kept += [] if config.output_dir is not None else ["--output-dir", folder]
    with usage_errors():
        from surefoot.cluster import run_on_ray

        return run_on_ray(given.ray, main, kept, Path(folder))


_RUN_FLAGS = ("quiet", "fresh", "profile", "allow_changes", "allow_topology_change")

_PPO_EXAMPLES = """
surefoot ppo --config run.yaml --learning-rate 2e-6
surefoot ppo --config base.yaml mine.yaml --stop-strings "###" "User:" --max-grad-norm none
surefoot ppo --model-name ./sft --dataset prompts.jsonl --reward judge.py:score --steps 50 --dry-run
surefoot ppo --resume runs/first
surefoot ppo --config run.yaml --processes 8 --shard
"""


_PPO_EXITS = """
Ctrl-C or SIGTERM saves the run and ends it; the same command goes on with it. A second Ctrl-C ends it at once.
exit codes: 0 finished; 1 failed; 2 wrong command line or settings; 130 stopped by Ctrl-C, 143 by SIGTERM
"""


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
    with usage_errors():
        return EXIT_OK if run_plan([*given.file, *given.config], options_of(given), given.processes) else EXIT_FAILED


def rlhf(arguments: Sequence[str]) -> int:
    """`surefoot rlhf`: all stages of a file, in order."""
    from surefoot.pipeline.command import rlhf as run_rlhf

    return run_rlhf(arguments)


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
    with usage_errors():
        config = load_settings(given.config, options_of(given))
        if given.rows < 1:
            raise UsageError(f"-n {given.rows}: at least one row is needed")
        if not config.reward or config.dataset is None:
            raise UsageError("reward and dataset are needed: give them, or a --config that names them")
        from surefoot.rewards import make_reward
        from surefoot.rewardtest import first_prompts, try_rewards

        how: dict[str, Any] = {"ensemble": config.reward_ensemble, "uncertainty_coef": config.uncertainty_coef}
        reward = make_reward(list(config.reward), config.reward_weights, **how)
        prompts = first_prompts(config, given.rows)
    _, tables = try_rewards(reward, prompts)
    console().print(tables)
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
    with usage_errors():
        from surefoot.rewards import make_reward
        from surefoot.rewards.transport import token_from
        from surefoot.serve import RewardServer

        server = RewardServer(make_reward(given.reward), given.host, given.port, token_from(given.token_env))
    print(f"serving  {visible(', '.join(server.reward.rewards))}\nready    openrlhf+{server.url}", flush=True)
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


def web(arguments: Sequence[str]) -> int:
    """`surefoot web`: runs in the browser, from their files."""
    from surefoot.web.command import web as run_web

    return run_web(arguments)


def rate(arguments: Sequence[str]) -> int:
    """`surefoot rate`: a blind comparison with the model that the run started from, by people."""
    from surefoot.web.command import rate as run_rate

    return run_rate(arguments)


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
    "rlhf": rlhf,
    "ppo": ppo,
    **stages.COMMANDS,
    "plan": plan,
    "init": init,
    "demo": demo,
    "reward-test": reward_test,
    "serve-reward": serve_reward,
    "compare": compare,
    "evaluate": evaluate,
    "report": report,
    "web": web,
    "rate": rate,
    "env": env,
}


if __name__ == "__main__":
    sys.exit(main())
