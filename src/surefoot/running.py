"""`surefoot ppo` from its options to its end. Heavy imports wait inside the functions, as in the commands."""

import sys
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from surefoot.changes import STOP_OPTIONS, changes_between, makes_another_run, stored_options
from surefoot.config import PPOConfig
from surefoot.records import Found
from surefoot.settings import load_settings
from surefoot.terminal import EXIT_FAILED, EXIT_OK, complain, console, say, usage_errors
from surefoot.threads import departure

if TYPE_CHECKING:
    from rich.console import Console

    from surefoot.callbacks import TrainResult
    from surefoot.runtime import Runtime
    from surefoot.tracking import RunFolder


def run_ppo(
    config: PPOConfig,
    *,
    quiet: bool = False,
    fresh: bool = False,
    profile: bool = False,
    allow_changes: bool = False,
    allow_topology_change: bool = False,
) -> int:
    """Trains, shows the run, and says at the end how it went and where everything is.

    A run that output_dir holds already is gone on with from its newest valid checkpoint.

    Args:
        config: the options; without output_dir a folder runs/<model>-<time> is made.
        quiet: show only how the run ended.
        fresh: move aside what output_dir holds, and begin anew.
        profile: profile the second step.
        allow_changes: go on with options that make another run of it.
        allow_topology_change: go on with another number of processes.
    """
    from surefoot.interrupt import StopRequest
    from surefoot.live import LiveView
    from surefoot.profiling import Profile
    from surefoot.runtime import Runtime

    screen = console()
    if config.output_dir is None:
        config = config.replace(output_dir=_agreed_folder(config))
    with usage_errors():
        runtime = Runtime()
        found = _look(config, runtime, fresh)
    folder, stop = Path(str(config.output_dir)), StopRequest(complain)
    if found.ended is not None:
        if runtime.is_main:
            say(screen, _nothing_to_do(folder, found.ended))
        return EXIT_OK
    watchers = [Profile(folder, lambda text: say(screen, text))] if profile else []
    with LiveView(screen, quiet) as view:
        with usage_errors():
            trainer = make_trainer(config, [view, stop, *watchers])
            if found.run:
                _go_on(trainer, found, allow_changes=allow_changes, allow_topology_change=allow_topology_change)
        view.quiet = quiet or not trainer.runtime.is_main
        if not view.quiet:
            say(screen, _introduction(trainer, folder))
        with stop.listening(folder):
            result = trainer.train()
    if trainer.runtime.is_main:
        _conclude(screen, result, folder, result.reason)
    return stop.exit_code


# ------------------------------------------------------------------------------------------ what the folder holds


def _look(config: PPOConfig, runtime: "Runtime", fresh: bool) -> Found:
    """The main process looks, and all know. Nobody else may be writing there.

    Raises:
        ValueError: another run writes into it, or it has checkpoints, but no valid one.
        OSError: it cannot be written to.
    """
    from surefoot.tracking import RunFolder

    folder, seen = RunFolder(str(config.output_dir)), []
    with runtime.together():
        if runtime.is_main and not folder.path.exists():
            folder.check_place()
            seen = [Found()]
        elif runtime.is_main:
            folder.claim()
            try:
                seen = [_holds(folder, config, fresh)]
            finally:
                folder.lock.release()
    found: Found = runtime.gather(seen)[0]
    return found


def _holds(folder: "RunFolder", config: PPOConfig, fresh: bool) -> Found:
    from surefoot.kept import newest_valid

    if not folder.holds_run:
        return Found()
    if fresh:
        complain(f"what {folder.path} held is now in {folder.move_aside()}")
        return Found()
    if _has_ended(folder, config):
        return Found(ended=folder.reason)
    checkpoint = newest_valid(folder.checkpoints, lambda words: complain(f"warning: {words}"))
    if checkpoint is None and folder.reason is not None:
        raise ValueError(
            f"the run in {folder.path} has ended ({folder.reason}), but its checkpoints are gone, so nobody can go on "
            "with it: begin anew with --fresh, or choose another output_dir"
        )
    return Found(True, checkpoint)


def _has_ended(folder: "RunFolder", config: PPOConfig) -> bool:
    """Whether its run is at an end that these options do not move."""
    from surefoot.stopping import ENDED

    if not (folder.reason or "").startswith(ENDED):
        return False
    before = stored_options(load_settings([folder.path / "config.yaml"]))
    changes = changes_between(before, config)
    return not any(change.name in STOP_OPTIONS or makes_another_run(change, config) for change in changes)


def _nothing_to_do(folder: Path, reason: str) -> str:
    return (
        f"The run in {folder} has ended: {reason}.\nRaise steps (or the limit that ended it) to go on with it, or add "
        "--fresh to begin anew."
    )


def _go_on(trainer: Any, found: Found, *, allow_changes: bool, allow_topology_change: bool) -> None:
    if found.checkpoint is not None:
        how = {"allow_changes": allow_changes, "allow_topology_change": allow_topology_change}
        changed = trainer.restore(found.checkpoint, **how)
        for change in changed if trainer.runtime.is_main else ():
            complain(f"the run goes on with another option: {change}")
        return
    with trainer.runtime.together():
        if trainer.runtime.is_main:
            trainer.folder.claim()
            trainer.folder.forget()
            complain(
                f"the run in {trainer.folder.path} was stopped before its first checkpoint (see save_every): it "
                "starts again from step 0, and the lines of its logs were taken out"
            )


# ------------------------------------------------------------------------------------------ other ways to begin


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
        f"run       {trainer.total_steps} steps of {trainer.config.batch_size} answers, in {folder}"
        + (f"; goes on from step {trainer.steps_done}" if trainer.steps_done else ""),
    ]
    if trainer.config.max_tokens_per_microbatch == "auto":
        lines.append(f"passes    of up to {trainer.tokens_of_a_pass():,} tokens, from the memory there is (auto)")
    threads = departure(torch.get_num_threads())
    return "\n".join([*lines, *([f"threads   {threads}"] if threads else []), ""])


def _conclude(screen: "Console", result: "TrainResult", folder: Path, reason: str) -> None:
    from surefoot.evaluate.card import write_card
    from surefoot.live import closing
    from surefoot.report import write_report

    write_card(folder)
    say(screen, f"\nThe run ended after {result.steps} steps: {reason}\n")
    screen.print(closing(result, screen.width))
    earlier = (
        f" (of step {result.model_step}: the best by gold)" if result.model_step not in (None, result.steps) else ""
    )
    say(screen, f"\nfolder    {folder}\nmodel     {folder / 'model'}{earlier}")
    say(screen, f"report    {write_report(folder)}")


def new_folder(config: PPOConfig) -> str:
    """runs/<model>-<time>."""
    name = Path(str(config.model_name)).name or "model"
    return f"runs/{name}-{time.strftime('%Y%m%d-%H%M%S')}"


def _agreed_folder(config: PPOConfig) -> str:
    """The same on every process."""
    from surefoot.runtime import Runtime

    return str(Runtime().gather([new_folder(config)])[0])
