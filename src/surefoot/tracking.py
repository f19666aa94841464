"""The run folder, whose files are the truth about a run, and the trackers beside it. Only here is accelerate named.

    config.yaml        the options, resolved             environment.json   versions, device, threads, command
    metrics.jsonl      one object a step                 samples/           step_000100.jsonl, eval_000100.jsonl
    evaluations.jsonl  one object an evaluation          result.json        why the run ended; absent until it did

Lines are strict JSON (records.py), and reading them needs neither this module nor torch.
"""

import importlib.metadata
import importlib.util
import logging
import math
import os
import platform
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch

from surefoot.display import brief, presentable
from surefoot.kept import probe_folder, steps_in
from surefoot.lock import FolderLock
from surefoot.options import Options
from surefoot.records import RunRecords, append_line, dump, read_lines, replace_file
from surefoot.redaction import command_line, hide_values, redact
from surefoot.settings import to_yaml
from surefoot.threads import usable_cores, waiting
from surefoot.types import StepStats

_LOG = logging.getLogger("surefoot")
_PACKAGES = ("surefoot", "torch", "transformers", "peft", "trl", "accelerate", "datasets", "numpy")


class RunFolder(RunRecords):
    """One run's folder. Every line reaches the disk's cache before the call returns; nothing is held back.

    Args:
        path: the folder; made by `start`, so that looking at a path that does not exist makes nothing.
    """

    def __init__(self, path: str | Path) -> None:
        super().__init__(path)
        self.checkpoints = self.path / "checkpoints"
        self.lock = FolderLock(path)

    # ------------------------------------------------------------------------------------------ writing
    def claim(self) -> None:
        """Makes the folder and locks it, until `lock` is released or the process ends.

        Raises:
            ValueError: it is a file, or another run writes into it.
            OSError: it, or its checkpoints, cannot be written to.
        """
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(f"output_dir={str(self.path)!r} is a file: choose a folder")
        self.lock.acquire()
        try:
            probe_folder(self.checkpoints)
        except OSError:
            self.lock.release()
            raise

    def check_place(self) -> None:
        """Makes the folder and takes it away again, where it is not there: what cannot be made is told at once.

        Raises:
            ValueError: it cannot be made.
        """
        made = [path for path in (self.path, *self.path.parents) if not path.exists()]
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            for path in made:
                path.rmdir()
        except OSError as error:
            raise ValueError(
                f"output_dir={str(self.path)!r} cannot be made ({error.strerror}): choose another folder"
            ) from error

    def start(self, config: Options, command: Sequence[str] | None = None, *, resume: bool = False) -> None:
        """Makes the folder and writes what was asked for and where it runs.

        Args:
            config: the resolved options. What is a secret wherever it stands is not written.
            command: the command line. None: this process's own. Secrets are blanked.
            resume: go on in a folder that holds a run already.

        Raises:
            ValueError: the folder holds another run and `resume` is not set.
        """
        if not resume and self.holds_run:
            raise ValueError(
                f"output_dir={str(self.path)!r} holds another run already: choose a new folder, or resume that run"
            )
        self._samples.mkdir(parents=True, exist_ok=True)
        self._result.unlink(missing_ok=True)
        replace_file(self.path / "config.yaml", hide_values(to_yaml(config)).encode())
        replace_file(self.path / "environment.json", dump(environment(command), indent=2))

    def log_step(self, stats: StepStats, samples: Sequence[Mapping[str, Any]], *, with_samples: bool) -> None:
        """Appends the single numbers of a step to metrics.jsonl; writes its samples too where asked.

        Raises:
            ValueError: the statistics lack "step", without which a line cannot be placed.
        """
        if "step" not in stats:
            raise ValueError('stats has no "step": add the number of the step')
        append_line(self._metrics, stats.scalars())
        if with_samples:
            self._write_samples("step", int(stats["step"]), samples)

    def log_evaluation(
        self,
        step: int,
        episode: int,
        metrics: Mapping[str, float],
        samples: Sequence[Mapping[str, Any]],
        alarms: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        """Writes an evaluation's samples, then appends its line: a line's samples are always there."""
        self._write_samples("eval", step, samples)
        told = {"alarms": [dict(alarm) for alarm in alarms]} if alarms else {}
        append_line(self._evaluations, {"step": step, "episode": episode, "metrics": dict(metrics), **told})

    def finish(self, reason: str, facts: Mapping[str, Any] | None = None) -> None:
        """Writes why the run ended, and more. A run without this file is going on, or was interrupted."""
        record = {"reason": redact(reason), "finished": _now(), **(facts or {})}
        replace_file(self._result, dump(record, indent=2))

    def truncate_after(self, step: int, evaluated: Collection[int]) -> int:
        """Drops what was written past `step`, and evaluations of steps not in `evaluated`: nothing is said twice.

        Returns:
            How many lines of metrics.jsonl were dropped.
        """
        kept = [record for record in read_lines(self._metrics) if record["step"] <= step]
        told = [record for record in read_lines(self._evaluations) if record["step"] in evaluated]
        dropped = self.lines - len(kept)
        for path, records in ((self._metrics, kept), (self._evaluations, told)):
            if path.exists():
                replace_file(path, b"".join(map(dump, records)))
        for path in self._samples.glob("*_*.jsonl"):
            kind, number = path.stem.split("_")
            if int(number) > step if kind == "step" else int(number) not in evaluated:
                path.unlink()
        self._result.unlink(missing_ok=True)
        return dropped

    def forget(self) -> None:
        """Takes away the logs of a run that never saved, so that another can begin in the folder."""
        self.truncate_after(0, ())
        for path in (self._metrics, self._evaluations, self.path / "config.yaml"):
            path.unlink(missing_ok=True)

    def move_aside(self) -> Path:
        """Renames the folder to <name>.old, <name>.old-2, ...; its new path."""
        number, moved = 1, self.path.with_name(f"{self.path.name}.old")
        while moved.exists():
            number += 1
            moved = self.path.with_name(f"{self.path.name}.old-{number}")
        return self.path.rename(moved)

    def flush(self) -> None:
        """Waits until every line is on the disk, so that no checkpoint is newer than the lines before it."""
        for path in (self._metrics, self._evaluations):
            if path.exists():
                with path.open("rb") as file:
                    os.fsync(file.fileno())

    def _write_samples(self, kind: str, step: int, samples: Sequence[Mapping[str, Any]]) -> None:
        self._samples.mkdir(parents=True, exist_ok=True)
        replace_file(self._sample_path(kind, step), b"".join(dump(sample) for sample in samples))

    # ------------------------------------------------------------------------------------------ reading
    @property
    def holds_run(self) -> bool:
        """Whether a run was begun here."""
        marks = (self._metrics, self._evaluations, self.path / "config.yaml")
        return any(path.exists() for path in marks) or bool(steps_in(self.checkpoints))


def environment(command: Sequence[str] | None = None) -> dict[str, Any]:
    """What a run ran on and how it was called: no host, user or folder name, and no secret."""
    return {
        "started": _now(),
        "command": command_line(sys.argv if command is None else command),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "packages": {name: _version(name) for name in _PACKAGES},
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "devices": torch.cuda.device_count() if torch.cuda.is_available() else 0,
        "cores": usable_cores(),
        "threads": torch.get_num_threads(),
        "waiting": waiting(),
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


# ---------------------------------------------------------------------------------------------- trackers
@runtime_checkable
class Tracker(Protocol):
    """A second home for the numbers; the run folder stays the truth."""

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Records the numbers of a step."""
        ...

    def finish(self) -> None:
        """Sends what is left and closes."""
        ...


_Arguments = Callable[[str, str], dict[str, Any]]
_ARGUMENTS: Mapping[str, _Arguments] = {  # run name, folder -> arguments: most call the project "run_name"
    "tensorboard": lambda run, folder: {"run_name": "tensorboard", "logging_dir": folder},
    "wandb": lambda run, folder: {"run_name": "surefoot", "name": run, "dir": folder},
    "trackio": lambda run, folder: {"run_name": "surefoot", "name": run},
    "swanlab": lambda run, folder: {"run_name": "surefoot", "experiment_name": run},
    "mlflow": lambda run, folder: {"experiment_name": "surefoot", "run_name": run},
    "aim": lambda run, folder: {"run_name": run, "logging_dir": folder},
    "dvclive": lambda run, folder: {"dir": os.path.join(folder, "dvclive")},
}


def check_tracker(log_with: str | None) -> None:
    """Whether the tracker that was asked for, if any, is there; raises as `find_tracker` does."""
    if log_with is not None:
        find_tracker(log_with)


def find_tracker(log_with: str) -> Any:
    """Accelerate's class for the tracker of that name.

    Raises:
        ValueError: a name that accelerate does not know, or a package that is not installed.
    """
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    known = {str(getattr(name, "value", name)): kind for name, kind in LOGGER_TYPE_TO_CLASS.items()}
    if log_with not in known:
        raise ValueError(f"log_with={brief(log_with)} is not a tracker; known are {', '.join(sorted(known))}")
    if importlib.util.find_spec(log_with) is None:
        extra = log_with in ("tensorboard", "wandb", "trackio")
        package = f'"surefoot[{log_with}]"' if extra else log_with.replace("_", "-")
        raise ValueError(f"log_with={log_with!r} needs a package that is missing: pip install {package}")
    return known[log_with]


def make_tracker(log_with: str | None, run_name: str, folder: str | Path) -> Tracker | None:
    """The tracker of that name, started; None where none is asked for. Call it on the main process only.

    Raises:
        ValueError: it is not to be had (see `find_tracker`).
    """
    if log_with is None:
        return None
    kind = find_tracker(log_with)
    from accelerate import PartialState

    PartialState()  # accelerate's trackers log through it
    arguments = _ARGUMENTS.get(log_with, lambda run, _: {"run_name": run})
    tracker = kind(**arguments(run_name, str(folder)))
    tracker.main_process_only = False  # the caller is the main process
    tracker.start()
    return _Guarded(log_with, tracker)


class _Guarded:
    """Keeps a tracker's failures from the run: a warning the first time, silence after."""

    def __init__(self, name: str, tracker: Any) -> None:
        self._name = name
        self._tracker = tracker
        self._warned = False

    def log(self, values: Mapping[str, float], step: int) -> None:
        finite = {name: float(value) for name, value in values.items() if math.isfinite(value)}
        self._try(lambda: self._tracker.log(finite, step=step))

    def finish(self) -> None:
        self._try(self._tracker.finish)

    def _try(self, action: Callable[[], Any]) -> None:
        try:
            action()
        except Exception as error:  # noqa: BLE001 - any failure of a foreign service, and the run goes on
            if not self._warned:
                reason = f"{type(error).__name__}: {presentable(str(error))}"
                message = f"the tracker {self._name} failed ({reason}); the run goes on without it"
                _LOG.warning("%s", message + ", its own files are complete")
            self._warned = True
