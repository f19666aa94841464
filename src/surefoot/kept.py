"""The checkpoints of one run: where each lies, which is the newest and which the best, and which are kept.

checkpoints/step_000100/   see `surefoot.checkpoint`; aside_step_000100/ is one that a run went back behind, and
                           step_000100_again/ for a moment one that is about to take the other's place
"""

import re
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from surefoot.checkpoint import UNFINISHED, CheckpointError, read_manifest, verify

_DOOMED, _ASIDE, _AGAIN = ".delete-", "aside_", "_again"
_NAME = re.compile(rf"step_(\d{{6,}})(?:{_AGAIN})?")


@dataclass(frozen=True, slots=True)
class Saved:
    """A checkpoint in a run folder: its place, its step, and score and gold of the evaluation at that step.

    `evaluated`: whether an evaluation at that step is in it; a score may be none nevertheless.
    """

    path: Path
    step: int
    score: float | None
    gold: float | None = None
    evaluated: bool = True


def place(folder: Path, step: int) -> Path:
    """Where a run keeps the checkpoint of a step."""
    return folder / f"step_{step:06d}"


def place_again(folder: Path, step: int) -> Path:
    """Where it writes a later one of the same step, which `retain` gives the place of the one before."""
    return folder / f"step_{step:06d}{_AGAIN}"


def steps_in(folder: Path) -> dict[int, Path]:
    """Step -> folder of everything that has a checkpoint's name, damaged or not, oldest first; of two the later."""
    entries = sorted(folder.iterdir()) if folder.is_dir() else ()
    found = {int(m[1]): p for p in entries if (m := _NAME.fullmatch(p.name)) and not p.is_symlink() and p.is_dir()}
    return dict(sorted(found.items()))


def newest_valid(folder: Path, warn: Callable[[str], object]) -> Path | None:
    """The newest checkpoint of a run that is as it was written; None where there was never any.

    Args:
        folder: where the run keeps them.
        warn: is told of every damaged one.

    Raises:
        CheckpointError: there are checkpoints, but not one is whole.
    """
    damage = []
    for path in reversed(steps_in(folder).values()):
        try:
            verify(path)
        except CheckpointError as error:
            damage.append(str(error))
            continue
        for words in damage:
            warn(f"{words}; going back to {path.name}")
        return path
    if damage:
        raise CheckpointError(
            f"{damage[0]}. None of the {len(damage)} checkpoints in {folder} is whole, so there is nothing to go on "
            "from: bring one back from a copy, or begin anew with --fresh"
        )
    return None


def whole_ones(folder: Path) -> list[Saved]:
    """The checkpoints of a run that have all their files in the right sizes, oldest first."""
    found = []
    for step, path in steps_in(folder).items():
        try:
            manifest = read_manifest(path)
        except CheckpointError:
            continue
        evaluated = manifest.get("evaluated", True)
        found.append(Saved(path, step, manifest.get("score"), manifest.get("gold"), evaluated))
    return found


def best_first(found: Sequence[Saved]) -> list[Saved]:
    """Those of an evaluation, the best first: by gold where any has gold, else by score; of equals the earliest."""
    golds = [saved for saved in found if saved.gold is not None]
    if golds:
        return sorted(golds, key=lambda saved: (-float(saved.gold or 0.0), saved.step))
    scored = [saved for saved in found if saved.score is not None]
    return sorted(scored, key=lambda saved: (-float(saved.score or 0.0), saved.step))


def best_valid(folder: Path, warn: Callable[[str], object]) -> Saved | None:
    """The best checkpoint of a run that is as it was written; None where none is of an evaluation.

    Args:
        folder: where the run keeps them.
        warn: is told of every damaged one that would have been better.
    """
    for saved in best_first(whole_ones(folder)):
        try:
            verify(saved.path)
        except CheckpointError as error:
            warn(f"{error}; the next best is taken")
            continue
        return saved
    return None


def retain(folder: Path, keep: int) -> None:
    """Deletes what is older than the newest `keep` whole checkpoints, but never the best one (see `best_first`).

    One that was written again takes its place first: until it has it, both have names that count.

    The list is made anew from the disk each time. Only folders with a checkpoint's name and manifest are touched; a
    damaged one is left for a person to look at.
    """
    _settle(folder)
    found = whole_ones(folder)
    best = best_first(found)[:1]
    for saved in found[: -max(keep, 2)]:
        if saved not in best:
            _delete(saved.path)


def _settle(folder: Path) -> None:
    """Gives each checkpoint that was written again, and is whole, the place of the one before."""
    for saved in whole_ones(folder):
        if saved.path == place_again(folder, saved.step):
            if place(folder, saved.step).exists():
                _delete(place(folder, saved.step))
            saved.path.rename(place(folder, saved.step))


def _delete(path: Path) -> None:
    """Takes away a checkpoint: by its name at once, then file by file."""
    doomed = path.with_name(f"{_DOOMED}{path.name}")
    shutil.rmtree(doomed, ignore_errors=True)
    path.rename(doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def tidy(folder: Path) -> None:
    """Takes away what a killed process left of a checkpoint that it was writing, deleting or writing again."""
    _settle(folder)
    for path in folder.glob(".*") if folder.is_dir() else ():
        if path.name.startswith((UNFINISHED, _DOOMED)) and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)


def probe_folder(folder: Path) -> None:
    """Tries whether a checkpoint could be written into a folder, where it is there: better now than after hours.

    Raises:
        OSError: it could not.
    """
    if folder.exists():
        Path(tempfile.mkdtemp(prefix=UNFINISHED, dir=folder)).rmdir()


def set_aside(folder: Path, after: int) -> list[Path]:
    """Renames checkpoints of steps past `after`, which a run that goes on from there makes anew; their new names."""
    moved = []
    for step, path in steps_in(folder).items():
        if step > after:
            number = sum(1 for p in folder.glob(f"{_ASIDE}{path.name}*"))
            moved.append(path.rename(folder / f"{_ASIDE}{path.name}{f'_{number + 1}' if number else ''}"))
    return moved
