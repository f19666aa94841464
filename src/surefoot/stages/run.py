"""A stage from its options to its end: what its folder holds, what is loaded, the training, and what it leaves."""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from surefoot.callbacks import TrainResult
from surefoot.changes import Change
from surefoot.display import brief
from surefoot.evaluate.card import write_card
from surefoot.interrupt import StopRequest
from surefoot.options import Options
from surefoot.phases import memory_kept
from surefoot.records import Found
from surefoot.redaction import hide_values
from surefoot.report import write_report
from surefoot.runtime import Runtime
from surefoot.settings import load_settings
from surefoot.stages.checkpoints import newest_whole
from surefoot.stages.data import Data
from surefoot.stages.models import save_model
from surefoot.stages.options import StageOptions
from surefoot.stages.trl import silence
from surefoot.stages.view import StageView
from surefoot.stages.watch import StageResult, Watch
from surefoot.stopping import ENDED
from surefoot.terminal import EXIT_OK, complain, console, say, usage_errors
from surefoot.tracking import RunFolder, find_tracker, make_tracker

MAY_CHANGE = ("gradient_checkpointing", "eval_every", "save_every", "keep_checkpoints", "output_dir", "log_with")
"""Options that may be others when a run goes on: they change time, memory and what is kept, and no weight."""

LENGTH = ("steps", "epochs")
"""Options that decide when a run ends; they may change too where no schedule follows them."""

DATA = "data.json"
"""The file of a run folder with what was found out about its rows."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a stage begins with: all of it is there, and fits together, before anything is trained.

    Attributes:
        model, tokenizer: what is trained, and how it reads. data: rows to learn and rows held out.
        max_tokens: of the longest row. second: what another scorer says of the held-out pairs, chosen and rejected.
    """

    model: Any
    tokenizer: Any
    data: Data
    max_tokens: int
    second: tuple[list[float], list[float]] | None = None


@dataclass(frozen=True, slots=True)
class Stage:
    """What makes a stage this one.

    Attributes:
        name: sft, reward, dpo. load: options -> everything it begins with.
        trainer: options, what was loaded, and what `make_trainer` takes beside them -> a trainer of TRL.
        judge: what is found out about the trained model, before it is saved: numbers for the result, files for the
            folder (name -> content), and lines for the terminal.
        saved: what is still to be written into the model's folder.
    """

    name: str
    load: Callable[[Any], Loaded]
    trainer: Callable[..., Any]
    judge: Callable[[Any, Loaded, Any], "Judgement"] = lambda options, loaded, trainer: Judgement({}, {})
    saved: Callable[[Path, "Judgement"], None] = lambda folder, judgement: None


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a stage found out about the model that it trained."""

    numbers: Mapping[str, Any]
    files: Mapping[str, Any]
    text: str = ""


# ------------------------------------------------------------------------------------------ the two ways to run one


def train_stage(
    stage: Stage,
    options: StageOptions,
    loaded: Loaded,
    watch: Watch,
    *,
    folder: Path,
    checkpoint: Path | None = None,
) -> tuple[StageResult, Judgement]:
    """Trains what was loaded and judges it where the training came to its end.

    Args:
        stage: which.
        options: resolved.
        loaded: what it begins with; the model is trained in place.
        watch: who is told, and asked whether to stop.
        folder: where checkpoints go.
        checkpoint: go on from there. With the same rows, options and machine the weights end as they would have.
    """
    trainer = stage.trainer(options, loaded, folder=folder, callbacks=[watch], goes_on=checkpoint is not None)
    with memory_kept():  # a fifth of the time, where logits of a hundred MiB come and go in every pass
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    reason = watch.reason(int(trainer.state.max_steps))
    judgement = stage.judge(options, loaded, trainer) if reason.startswith(ENDED) else Judgement({}, {})
    result = StageResult(
        reason, watch.steps, watch.last, tuple(watch.evaluations), trainer.model, loaded.tokenizer, judgement.numbers
    )
    return result, judgement


def run_stage(
    stage: Stage, options: StageOptions, *, quiet: bool = False, fresh: bool = False, allow_changes: bool = False
) -> int:
    """Trains, shows the run, and says at the end how it went and where everything is; the exit code.

    A run that output_dir holds already is gone on with from its newest whole checkpoint.

    Args:
        stage: which.
        options: without output_dir a folder runs/<model>-<stage>-<time> is made.
        quiet: show only how the run ended.
        fresh: move aside what output_dir holds, and begin anew.
        allow_changes: go on with options that make another run of it.
    """
    screen = console()
    options = options.resolved()
    if options.output_dir is None:
        options = options.replace(output_dir=_new_folder(options))
    folder = RunFolder(str(options.output_dir))
    with usage_errors():
        _check_processes(stage.name)
        found = _look(folder, options, fresh=fresh, allow_changes=allow_changes)
        if found.ended is not None:
            say(screen, f"The run in {folder.path} has ended: {found.ended}.\nAdd --fresh to begin anew.")
            return EXIT_OK
        if options.log_with is not None:
            find_tracker(options.log_with)
        silence()
        loaded = stage.load(options)
        _check_rows(folder, loaded.data, found, allow_changes=allow_changes)
        folder.claim()
    try:
        return _train(stage, options, loaded, folder, found, quiet=quiet)
    finally:
        folder.lock.release()


def _train(
    stage: Stage, options: StageOptions, loaded: Loaded, folder: RunFolder, found: Found, *, quiet: bool
) -> int:
    screen = console()
    _begin(folder, options, loaded.data, found)
    tracker = make_tracker(options.log_with, folder.path.name, folder.path)
    stop = StopRequest(complain, f"surefoot {stage.name}")
    if not quiet:
        say(screen, _introduction(options, loaded, folder, found))
    with StageView(stage.name, screen, quiet) as view:
        watch = Watch(stage.name, options.batch_size, folder, view, tracker)
        with stop.listening(folder.path):
            stop.on_start(watch)
            result, judgement = train_stage(
                stage, options, loaded, watch, folder=folder.checkpoints, checkpoint=found.checkpoint
            )
    if tracker is not None:
        tracker.finish()
    episodes = result.steps * options.batch_size
    ended = TrainResult(result.reason, result.steps, episodes, result.evaluations, folder.path)
    if result.reason.startswith(ENDED):
        save_model(result.model, result.tokenizer, str(options.model_name), folder.path / "model")
        stage.saved(folder.path / "model", judgement)
        for name, content in judgement.files.items():
            _write_json(folder.path / name, content)
    folder.finish(result.reason)
    if result.reason.startswith(ENDED):
        write_card(folder.path)
    stop.on_end(watch, ended)
    say(screen, f"\nThe run ended after {result.steps} steps: {result.reason}\n")
    if judgement.text:
        say(screen, f"{judgement.text}\n")
    where = [f"folder    {folder.path}"]
    if result.reason.startswith(ENDED):
        where.append(f"{'adapter' if options.trains_adapter else 'model':<10}{folder.path / 'model'}")
    say(screen, "\n".join([*where, f"report    {write_report(folder.path)}"]))
    return stop.exit_code


# ------------------------------------------------------------------------------------------ what the folder holds


def _look(folder: RunFolder, options: StageOptions, *, fresh: bool, allow_changes: bool) -> Found:
    """What can be gone on with.

    Raises:
        ValueError: another run writes into it, or its run had other options.
    """
    if not folder.path.exists():
        folder.check_place()
        return Found()
    folder.claim()
    try:
        if not folder.holds_run:
            return Found()
        if fresh:
            complain(f"what {folder.path} held is now in {folder.move_aside()}")
            return Found()
        changed = _check_changes(folder, options, allow=allow_changes)
        ended = (folder.reason or "").startswith(ENDED) and not any(c.name in LENGTH for c in changed)
        if ended:
            return Found(ended=folder.reason)
        for change in changed:
            complain(f"the run goes on with another option: {change}")
        return Found(True, newest_whole(folder.checkpoints, lambda words: complain(f"warning: {words}")))
    finally:
        folder.lock.release()


def _check_changes(folder: RunFolder, options: StageOptions, *, allow: bool) -> list[Change]:
    path = folder.path / "config.yaml"
    if not path.is_file():
        raise ValueError(
            f"output_dir={str(folder.path)!r} holds files of a run without its config.yaml: choose another"
        )
    try:
        before = load_settings([path], {}, type(options))
    except ValueError as error:
        raise ValueError(
            f"output_dir={str(folder.path)!r} holds a run of another kind or version: choose another folder, or "
            f"begin anew (--fresh). Its settings do not read as those of {options.COMMAND}: {error}"
        ) from error
    changes = changes_of(before, options)
    refused = [change for change in changes if makes_another_run(change, options)]
    if refused and not allow:
        raise ValueError(
            f"the run in {folder.path} had other options: {'; '.join(map(str, refused))}. With these it would be "
            "neither the old run nor a new one: take the old values, begin anew (--fresh), or, if that is meant, say "
            "--allow-changes"
        )
    return changes


def changes_of(before: Options, now: Options) -> list[Change]:
    """Every option that differs, those of TRL too."""
    old, new = _all_options(before), _all_options(now)
    names = [*new, *(name for name in old if name not in new)]
    return [Change(n, old.get(n, "not given"), new.get(n, "not given")) for n in names if old.get(n) != new.get(n)]


def _all_options(options: Options) -> dict[str, Any]:
    passed = getattr(options, options.PASSED) if options.PASSED is not None else {}
    values = {name: getattr(options, name) for name in options.kinds()} | dict(passed)
    return {name: hide_values(value) if isinstance(value, str) else value for name, value in values.items()}


def makes_another_run(change: Change, options: StageOptions) -> bool:
    """Whether a run with this change would compute something else; its length counts where a schedule follows it."""
    if change.name in LENGTH:
        return options.lr_schedule != "constant"
    return change.name not in MAY_CHANGE


def _check_rows(folder: RunFolder, data: Data, found: Found, *, allow_changes: bool) -> None:
    path = folder.path / DATA
    if not found.run or not path.is_file() or allow_changes:
        return
    if json.loads(path.read_text(encoding="utf-8"))["digest"] != data.digest():
        raise ValueError(
            f"the rows are not those that the run in {folder.path} began with: give the same rows, begin anew "
            "(--fresh), or, if that is meant, say --allow-changes"
        )


def _begin(folder: RunFolder, options: StageOptions, data: Data, found: Found) -> None:
    if found.run:
        from surefoot.stages.checkpoints import step_of

        step = 0 if found.checkpoint is None else step_of(found.checkpoint)
        evaluated = {int(e["step"]) for e in folder.read_evaluations() if e["step"] <= step and found.checkpoint}
        folder.truncate_after(step, evaluated)
        if found.checkpoint is None:
            folder.forget()
            complain(f"the run in {folder.path} was stopped before its first checkpoint: it starts again from step 0")
    folder.start(options, resume=found.run)
    _write_json(folder.path / DATA, {"digest": data.digest(), "source": data.train.source, **data.report.as_dict()})


def _check_processes(name: str) -> None:
    if Runtime().world_size > 1:
        raise ValueError(f"surefoot {name} runs in one process: start it without torchrun")


# ------------------------------------------------------------------------------------------ words and files


def _introduction(options: StageOptions, loaded: Loaded, folder: RunFolder, found: Found) -> str:
    weights = sum(p.numel() for p in loaded.model.parameters())
    what = f"a LoRA adapter of rank {options.lora_r}" if options.lora_r else "all weights"
    what = "its adapter" if getattr(options, "adapter_name", None) else what
    times = "once" if options.epochs == 1 else f"{options.epochs or 0:g} times"
    length = f"{options.steps} steps" if options.steps else f"{times} through the rows"
    device = next(loaded.model.parameters()).device
    lines = [
        loaded.data.text(),
        f"model     {options.model_name}: {weights:,} weights, {what} trained, on {device}",
        f"run       {length}, {options.batch_size} rows a step, learning rate {options.learning_rate:g}, "
        f"in {folder.path}" + (f"; goes on from {found.checkpoint.name}" if found.checkpoint else ""),
    ]
    if options.trl:
        lines.append(f"to TRL    {', '.join(f'{name}={brief(value)}' for name, value in options.trl.items())}")
    return "\n".join([*lines, ""])


def _new_folder(options: StageOptions) -> str:
    name = Path(str(options.model_name)).name or "model"
    return f"runs/{name}-{options.COMMAND}-{time.strftime('%Y%m%d-%H%M%S')}"


def _write_json(path: Path, content: Any) -> None:
    part = path.with_name(f".{path.name}.part")
    part.write_text(json.dumps(content, indent=2, ensure_ascii=True, default=float) + "\n", encoding="utf-8")
    part.replace(path)
