"""Which of a stage's checkpoints can be gone on with: those that were stamped when they were whole.

The trainer writes its files one after the other. The stamp is written last and says how long each of them is; without
it, or where a file has another length, nobody goes on from there.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path

STAMP = "complete.json"


def stamp(checkpoint: Path) -> None:
    """Says that a checkpoint is whole."""
    sizes = {str(path.relative_to(checkpoint)): path.stat().st_size for path in _files(checkpoint)}
    part = checkpoint / f".{STAMP}.part"
    part.write_text(json.dumps(sizes, indent=1), encoding="utf-8")
    part.replace(checkpoint / STAMP)


def newest_whole(folder: Path, say: Callable[[str], None]) -> Path | None:
    """The newest whole checkpoint in a folder; a newer one that is not whole is told."""
    for checkpoint in sorted(folder.glob("checkpoint-*"), key=step_of, reverse=True):
        if is_whole(checkpoint):
            return checkpoint
        say(f"{checkpoint} is not whole (it was being written when the run ended): it is not used")
    return None


def is_whole(checkpoint: Path) -> bool:
    """Whether every file is as it was when the checkpoint was complete."""
    path = checkpoint / STAMP
    if not path.is_file():
        return False
    try:
        sizes = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return False
    return all((checkpoint / n).is_file() and (checkpoint / n).stat().st_size == s for n, s in sizes.items())


def step_of(checkpoint: Path) -> int:
    """checkpoint-120 -> 120; -1 for other names."""
    found = re.fullmatch(r"checkpoint-(\d+)", checkpoint.name)
    return int(found[1]) if found else -1


def _files(checkpoint: Path) -> list[Path]:
    return sorted(path for path in checkpoint.rglob("*") if path.is_file() and STAMP not in path.name)
