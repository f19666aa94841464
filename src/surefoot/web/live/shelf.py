"""The runs below a folder, each read again only when its files have changed."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from surefoot.report.evaluated import FILE
from surefoot.report.numbers import Run, read_run

_MARKS = ("metrics.jsonl", "evaluations.jsonl")
_WATCHED = (*_MARKS, "config.yaml", "result.json", "ratings.sqlite", "ratings.sqlite-wal", str(FILE))
_DEEPEST = 2

Stamp = tuple[tuple[int, int], ...]


class Shelf:
    """Looks at run folders; writes nothing.

    Args:
        folder: of a run, or with runs in it or in its folders.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read: dict[str, tuple[Stamp, Run]] = {}

    def folders(self) -> Mapping[str, Path]:
        """Name -> folder of every run, the one that was written to last first."""
        found = sorted(_runs(self._folder, _DEEPEST), key=_last_written, reverse=True)
        return {self._name(path): path for path in found}

    def _name(self, path: Path) -> str:
        return path.resolve().name if path == self._folder else path.relative_to(self._folder).as_posix()

    def read(self, name: str, path: Path) -> Run:
        """Everything that a run has written so far."""
        stamp = _stamp(path)
        known = self._read.get(name)
        if known is None or known[0] != stamp:
            known = self._read[name] = (stamp, read_run(path))
        return known[1]


def _runs(folder: Path, deeper: int) -> Iterator[Path]:
    if any((folder / mark).is_file() for mark in _MARKS):
        yield folder
    elif deeper:
        for inner in folder.iterdir():
            if inner.is_dir() and not inner.is_symlink() and not inner.name.startswith("."):
                yield from _runs(inner, deeper - 1)


def _last_written(path: Path) -> float:
    return max((path / mark).stat().st_mtime for mark in _MARKS if (path / mark).is_file())


def _stamp(path: Path) -> Stamp:
    files = [path / name for name in _WATCHED]
    return tuple((stat.st_size, stat.st_mtime_ns) for stat in (f.stat() for f in files if f.is_file()))
