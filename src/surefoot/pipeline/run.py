"""The stages one after the other: what is done is skipped, what was stopped goes on. Heavy imports wait."""

import contextlib
import functools
import gc
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from surefoot.arguments import UsageError
from surefoot.lock import FolderLock
from surefoot.pipeline.options import PipelineOptions
from surefoot.pipeline.parts import STAGES, Part, parts_of
from surefoot.pipeline.record import State, states_of
from surefoot.sections import Sections
from surefoot.terminal import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_OK,
    EXIT_TERMINATED,
    complain,
    console,
    say,
    usage_errors,
)

Runner = Callable[..., int]

SIGNALLED = (EXIT_INTERRUPTED, EXIT_TERMINATED)
"""Exit codes of a stage that was asked to stop; it may have ended all the same."""


def run_pipeline(
    file: Sections,
    *,
    stages: Sequence[str] = (),
    fresh: bool = False,
    dry_run: bool = False,
    quiet: bool = False,
) -> int:
    """Runs the stages of a file that are not done yet, and says at the end what each of them gave.

    Args:
        file: shared options and sections.
        stages: run these only ("ppo", or "ppo-seed1" for one of its seeds). Empty: all that have a section.
        fresh: make them anew, whatever is there; that is moved aside.
        dry_run: check everything, say what would happen, and write nothing.
        quiet: show of each stage only how it ended.

    Returns:
        The exit code: that of the stage that did not come to its end, else 0.
    """
    screen = console()
    with usage_errors():
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise ValueError(
                "surefoot rlhf runs in one process; with several, start each stage by its own command: "
                "`surefoot rlhf --dry-run` says with which options"
            )
        top, parts = parts_of(file)
        out = Path(top.output_dir)
        states = states_of(parts, out, chosen=chosen_parts(parts, stages), fresh=fresh)
        told = _check(top, parts)
    from surefoot.pipeline.tables import plan_table

    say(screen, "\n".join(told))
    screen.print(plan_table(states))
    if dry_run:
        say(screen, "\nEverything was checked, and nothing was written.")
        return EXIT_OK
    lock = FolderLock(out)
    with usage_errors():
        lock.acquire()
    try:
        return _run_all(screen, top, parts, states, quiet=quiet)
    finally:
        lock.release()


def chosen_parts(parts: Sequence[Part], stages: Sequence[str]) -> list[str]:
    """The names of the parts that `stages` asks for, by name or by kind.

    Raises:
        UsageError: there is no such stage, or it has no section.
    """
    known = {part.name for part in parts} | {part.kind for part in parts}
    for name in stages:
        if name not in known:
            why = "has no section in the settings" if name in STAGES else "is no stage"
            raise UsageError(f"--stages {name}: {name} {why}; there are {', '.join(part.name for part in parts)}")
    return [part.name for part in parts if not stages or part.name in stages or part.kind in stages]


def _check(top: PipelineOptions, parts: Sequence[Part]) -> list[str]:
    from transformers.utils import logging

    from surefoot.pipeline.checks import check_all

    logging.disable_progress_bar()
    return check_all(top, parts)


def _run_all(screen: Any, top: PipelineOptions, parts: Sequence[Part], states: Sequence[State], *, quiet: bool) -> int:
    from surefoot.pipeline.page import write_page
    from surefoot.pipeline.tables import summary_table

    out = Path(top.output_dir)
    waiting = [state for state in states if state.what != "done"]
    for number, state in enumerate(waiting, 1):
        say(screen, f"\n── {state.part.name} ({number} of {len(waiting)}) {'─' * 60}")
        code = run_part(state, quiet=quiet)
        if code != EXIT_OK:
            how = "was stopped" if code in SIGNALLED else "did not come to its end"
            complain(f"{state.part.name} {how}; the same command goes on from there")
            return code
    say(screen, "")
    screen.print(summary_table(parts))
    say(screen, f"\nreport    {write_page(out, parts)}")
    return EXIT_OK


def run_part(state: State, *, quiet: bool) -> int:
    """Runs one stage in its folder, whose record says how long it took and whether it came to its end."""
    part = state.part
    if state.what == "anew" and part.folder.exists():
        complain(f"what {part.folder} held is now in {_move_aside(part.folder)}")
    record = state.given
    record.write(part.folder)
    began = time.monotonic()
    code = EXIT_FAILED
    try:
        code = _runner(part.kind)(part.options, quiet=quiet)
        if code == EXIT_OK:
            check_result(part)
    except BaseException:
        code = EXIT_FAILED
        raise
    finally:
        seconds = record.seconds + time.monotonic() - began
        replace(record, seconds=round(seconds, 1), ended=code == EXIT_OK).write(part.folder)
        _let_go()
    return code


def check_result(part: Part) -> None:
    """Refuses to go on where a stage says that it ended and did not leave what the next ones need.

    Raises:
        RuntimeError: it is not there.
    """
    wanted = {"rate": "preferences.jsonl", "compare": "compare.json"}.get(part.kind, "model")
    if not (part.folder / wanted).exists():
        raise RuntimeError(f"{part.name} ended without leaving {part.folder / wanted}")


def _runner(kind: str) -> Runner:
    """The function that runs a stage; it and what it needs are imported now."""
    if kind == "sft":
        from surefoot.stages.sft import run_sft

        return run_sft
    if kind == "rate":
        from surefoot.pipeline.rate import run_rate

        return run_rate
    if kind == "reward":
        from surefoot.stages.reward_model import run_reward

        return run_reward
    if kind == "ppo":
        from surefoot.running import run_ppo

        return run_ppo
    if kind == "dpo":
        from surefoot.stages.dpo import run_dpo

        return run_dpo
    from surefoot.evaluate.run import run_compare

    return functools.partial(run_compare, fresh=True)  # one that was stopped left nothing to go on with


def _move_aside(folder: Path) -> Path:
    """Renames a folder to <name>.old, <name>.old-2, ...; its new path."""
    number, moved = 1, folder.with_name(f"{folder.name}.old")
    while moved.exists():
        number += 1
        moved = folder.with_name(f"{folder.name}.old-{number}")
    return folder.rename(moved)


def _let_go() -> None:
    """Gives back what the models of a stage occupied before the next one loads its own."""
    gc.collect()
    with contextlib.suppress(ImportError):
        import torch

        if torch.cuda.is_available():
            torch.cuda.empty_cache()
