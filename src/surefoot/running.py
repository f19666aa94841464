"""`surefoot ppo` from its options to its end. Heavy imports wait inside the functions, as in the commands."""

import sys
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from surefoot.arguments import UsageError
from surefoot.config import PPOConfig
from surefoot.terminal import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_OK, complain, console, say, usage_errors
from surefoot.threads import departure

if TYPE_CHECKING:
    from rich.console import Console

    from surefoot.callbacks import TrainResult


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

    screen = console()
    if config.output_dir is None:
        config = config.replace(output_dir=_new_folder(str(config.model_name)))
    elif not resume and Path(config.output_dir, "config.yaml").exists():
        raise UsageError(f"{config.output_dir} holds a run already: choose another --output-dir, or --resume it")
    folder, stop = Path(str(config.output_dir)), StopRequest(complain)
    watchers = [Profile(folder, lambda text: say(screen, text))] if profile else []
    with LiveView(screen, quiet) as view:
        with usage_errors():
            trainer = make_trainer(config, [view, stop, *watchers])
            if resume:
                trainer.restore(_last_checkpoint(folder))
                trainer.folder.truncate_after(trainer.steps_done)
        view.quiet = quiet or not trainer.runtime.is_main
        if not view.quiet:
            say(screen, _introduction(trainer, folder))
        with stop.listening(folder):
            result = trainer.train()
    if trainer.runtime.is_main:
        _conclude(screen, result, folder, "Ctrl-C" if stop.asked else result.reason)
    return EXIT_INTERRUPTED if stop.asked else EXIT_OK


def dry_run_ppo(config: PPOConfig) -> int:
    """Builds everything, makes one step, and prints the checklist; 1 where a check fails."""
    from surefoot.dryrun import dry_run

    screen = console()
    with usage_errors(), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the checklist repeats the advice
        # The one step is a step of the policy: a warm-up of the critic comes before what is to be checked.
        trainer = make_trainer(config.replace(output_dir=None, log_with=None, critic_warmup_steps=0), [])
    report = dry_run(trainer)
    if trainer.runtime.is_main:
        say(screen, f"{trainer.prompt_report.text()}\n\n{report.text()}")
        done = "Ready: start the run without --dry-run." if report.passed else "Not ready: see the advice above."
        say(screen, f"\n{done}")
    return EXIT_OK if report.passed else EXIT_FAILED


def make_trainer(config: PPOConfig, callbacks: list[Any]) -> Any:
    """The trainer that the options name, with everything loaded; its progress bars do not draw over ours."""
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
    threads = departure(torch.get_num_threads())
    return "\n".join([*lines, *([f"threads   {threads}"] if threads else []), ""])


def _conclude(screen: "Console", result: "TrainResult", folder: Path, reason: str) -> None:
    from surefoot.live import closing
    from surefoot.report import write_report

    say(screen, f"\nThe run ended after {result.steps} steps: {reason}\n")
    screen.print(closing(result, screen.width))
    say(screen, f"\nfolder    {folder}\nmodel     {folder / 'model'}")
    say(screen, f"report    {write_report(folder)}")


def settings_of(run: str) -> Path:
    """The settings that a run folder keeps.

    Raises:
        UsageError: it is no run folder.
    """
    path = Path(run) / "config.yaml"
    if not path.is_file():
        raise UsageError(f"--resume {run}: no run folder, it has no config.yaml")
    return path


def _new_folder(model_name: str) -> str:
    """runs/<model>-<time>, the same on every process."""
    from surefoot.runtime import Runtime

    name = Path(model_name).name or "model"
    return str(Runtime().gather([f"runs/{name}-{time.strftime('%Y%m%d-%H%M%S')}"])[0])


def _last_checkpoint(folder: Path) -> Path:
    from surefoot.checkpoint import newest_valid

    found = newest_valid(folder / "checkpoints", lambda words: complain(f"warning: {words}"))
    if found is None:
        raise UsageError(f"--resume {folder}: no checkpoint in it (see save_every)")
    return found
