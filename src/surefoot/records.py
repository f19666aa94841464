"""Reading a run folder, and its lines of strict JSON. No torch in here: whoever only looks at runs needs none.

JSON knows neither NaN nor infinity. Such a number is written as null and named in the object's "nonfinite" entry
({"ppo/loss/value": "nan"}), so that every line is strict JSON for every reader; the readers here put it back.
"""

import json
import logging
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_LOG = logging.getLogger("surefoot")
_NONFINITE = "nonfinite"


@dataclass(frozen=True, slots=True)
class Found:
    """What is in a run's folder before the run: whether there is one, its newest checkpoint, why it has ended."""

    run: bool = False
    checkpoint: Path | None = None
    ended: str | None = None


class RunRecords:
    """What a run has written so far. Reading makes nothing and waits for nobody.

    Args:
        path: the run's folder; it need not exist.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._metrics = self.path / "metrics.jsonl"
        self._evaluations = self.path / "evaluations.jsonl"
        self._samples = self.path / "samples"
        self._result = self.path / "result.json"

    @property
    def reason(self) -> str | None:
        """Why its run ended; None where it did not."""
        return str(self.result["reason"]) if self.result else None

    @property
    def result(self) -> dict[str, Any]:
        """Why its run ended and what was known then; empty where it did not."""
        if not self._result.is_file():
            return {}
        return _restore(json.loads(self._result.read_text(encoding="utf-8")))

    @property
    def lines(self) -> int:
        """Complete lines of metrics.jsonl: steps on record."""
        return self._metrics.read_bytes().count(b"\n") if self._metrics.exists() else 0

    def read_metrics(self) -> list[dict[str, Any]]:
        """The steps on record, oldest first. A line that is being written at this moment is left out."""
        return list(read_lines(self._metrics))

    def read_evaluations(self) -> list[dict[str, Any]]:
        """The evaluations on record, oldest first: step, episode, metrics, and alarms where there were any."""
        return list(read_lines(self._evaluations))

    def read_samples(self, kind: str, step: int) -> list[dict[str, Any]]:
        """The samples of a step (kind "step") or an evaluation ("eval"); empty where none were written."""
        return list(read_lines(self._sample_path(kind, step)))

    def sample_steps(self, kind: str) -> list[int]:
        """Steps whose samples are there, ascending."""
        return sorted(int(path.stem.rpartition("_")[2]) for path in self._samples.glob(f"{kind}_*.jsonl"))

    def _sample_path(self, kind: str, step: int) -> Path:
        if kind not in ("step", "eval"):
            raise ValueError(f"kind={kind!r} must be 'step' or 'eval'")
        return self._samples / f"{kind}_{step:06d}.jsonl"


# ---------------------------------------------------------------------------------------------- lines of JSON
def dump(record: Mapping[str, Any], indent: int | None = None) -> bytes:
    """One line of strict JSON; readable letters stay, all others are JSON's escapes."""
    bad: dict[str, str] = {}
    text = json.dumps(_finite(record, "", bad), ensure_ascii=False, allow_nan=False, indent=indent, default=float)
    if bad:
        text = json.dumps(
            _finite(record, "", {}) | {_NONFINITE: bad}, ensure_ascii=False, indent=indent, default=float
        )
    return (_escaped(text) + "\n").encode()


def _escaped(text: str) -> str:
    """JSON whose unprintable characters are escapes: it ends no line, steers no terminal, is UTF-8."""
    if text.replace("\n", "").isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in text)


def _finite(value: Any, path: str, bad: dict[str, str]) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(item, f"{path}.{key}" if path else str(key), bad) for key, item in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        bad[path] = str(float(value))
        return None
    return value


def _restore(record: dict[str, Any]) -> dict[str, Any]:
    for path, word in record.pop(_NONFINITE, {}).items():
        holder, name = record, path
        while name not in holder:  # names hold dots themselves: go down by the part that is there
            head = next(key for key in holder if name.startswith(f"{key}."))
            holder, name = holder[head], name[len(head) + 1 :]
        holder[name] = float(word)
    return record


def append_line(path: Path, record: Mapping[str, Any]) -> None:
    """Adds a line, after cutting off what a crash left of the line before it."""
    with path.open("ab+") as file:
        end = file.seek(0, os.SEEK_END)
        if end and _byte_before(path, end) != b"\n":
            file.truncate(path.read_bytes().rfind(b"\n") + 1)
            _LOG.warning("%s ended in half a line, from a crash: it was cut off", path.name)
        file.write(dump(record))


def _byte_before(path: Path, end: int) -> bytes:
    with path.open("rb") as file:
        file.seek(end - 1)
        return file.read(1)


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The complete lines of a file, oldest first; none where there is no file."""
    whole = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    for number, line in enumerate(whole, start=1):
        try:
            yield _restore(json.loads(line))
        except ValueError as error:
            raise ValueError(f"{path.name}, line {number} is not JSON ({error}): delete that line") from error


def replace_file(path: Path, content: bytes) -> None:
    """Writes a file whole or not at all."""
    part = path.with_name(f".{path.name}.part")
    part.write_bytes(content)
    part.replace(path)
