"""What a stage's folder says of the stage that made it, and what is to be done about it now. No torch in here.

A stage is done when it has ended and was given what it would be given today: the same options, the same files by
their contents, and the same results of the stages before it. `stage.json` in its folder keeps these, so that nothing
has to be remembered elsewhere and a folder can be moved as a whole.
"""

import hashlib
import json
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from surefoot.changes import MAY_CHANGE, STOP_OPTIONS, Change, makes_another_run
from surefoot.pipeline.parts import Part

FILE = "stage.json"
_PLACES = frozenset({"model_name", "adapter_name", "ref_model_name", "value_model_name", "dataset", "eval_dataset",
                     "baseline", "reward", "rater", "gold", "proxy", "second_scorer", "chat_template"})  # fmt: skip
"""Options that may name files."""
_END = 2**20
"""Of larger files the size, the first and the last megabyte are looked at: weights are not read as a whole."""

What = Literal["done", "run", "go on", "anew"]


@dataclass(frozen=True, slots=True)
class Record:
    """What `stage.json` holds.

    Attributes:
        id: of this result; what is made anew gets another, by which the stages after it know.
        options, files, needs: what it was given: options, digests of the files they name, ids of results before it.
        seconds: spent on it so far. ended: whether it came to its end.
    """

    id: str
    options: Mapping[str, Any]
    files: Mapping[str, str]
    needs: Mapping[str, str]
    seconds: float = 0.0
    ended: bool = False

    @property
    def fingerprint(self) -> str:
        """Twelve digits for what it was given."""
        given = json.dumps([self.options, self.files, self.needs], sort_keys=True)
        return hashlib.sha256(given.encode()).hexdigest()[:12]

    def write(self, folder: Path) -> None:
        """Writes it whole or not at all."""
        folder.mkdir(parents=True, exist_ok=True)
        values = {name: getattr(self, name) for name in self.__slots__}
        part = folder / f".{FILE}.part"
        part.write_text(json.dumps(values | {"fingerprint": self.fingerprint}, indent=1) + "\n", encoding="utf-8")
        part.replace(folder / FILE)


@dataclass(frozen=True, slots=True)
class State:
    """What is to be done about a part, and why in words."""

    part: Part
    what: What
    why: str = ""
    found: Record | None = None
    given: Record = field(default=Record("", {}, {}, {}))


def read_record(folder: Path) -> Record | None:
    """The record in a folder; None where there is none.

    Raises:
        ValueError: it cannot be read.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return Record(**{name: values[name] for name in Record.__slots__})
    except (ValueError, KeyError) as error:
        raise ValueError(f"{path} is damaged ({error}): add --fresh to make this stage anew") from error


def states_of(parts: Sequence[Part], out: Path, *, chosen: Sequence[str], fresh: bool) -> list[State]:
    """What is to be done about each part.

    Args:
        parts: all stages, in order.
        out: the pipeline's folder.
        chosen: names of the parts that are to run now, as far as they are not done.
        fresh: run them whatever is there.

    Raises:
        ValueError: a folder holds something else, or a stage that is not to run now is needed and not done.
    """
    states: dict[str, State] = {}
    for part in parts:
        missing = [name for name in part.needs if name not in states]
        if missing and part.name in chosen:
            raise ValueError(
                f"{part.name} needs what {' and '.join(missing)} makes, and that is not done: add it to --stages"
            )
        if missing:
            continue
        needs = {name: states[name].given.id for name in part.needs}
        given = Record(uuid.uuid4().hex, options_of(part, out), files_of(part, out), needs)
        state = _state(part, given, states, fresh=fresh and part.name in chosen)
        if part.name in chosen or state.what == "done":
            states[part.name] = state
    return list(states.values())


def _state(part: Part, given: Record, before: Mapping[str, State], *, fresh: bool) -> State:
    found = read_record(part.folder)
    if fresh or found is None:
        if part.folder.exists() and any(part.folder.iterdir()):
            if not fresh:
                raise ValueError(
                    f"{part.folder} holds something that no pipeline put there: choose another output_dir, or add "
                    "--fresh, which moves it aside"
                )
            return State(part, "anew", "as asked for (--fresh)", found, given)
        return State(part, "run", "", None, given)
    made_anew = [name for name in part.needs if before[name].what in ("run", "anew")]
    if made_anew:
        return State(part, "anew", f"{' and '.join(made_anew)} is made anew", found, given)
    kept = Record(found.id, given.options, given.files, given.needs, found.seconds, found.ended)
    changed = differences(found, kept)
    why = "; ".join(changed.values())
    if any(_alters(name, part) for name in changed):
        return State(part, "anew", why, found, given)
    ended = found.ended and not set(changed) & set(STOP_OPTIONS)
    return State(part, "done" if ended else "go on", why, found, kept)


def _alters(name: str, part: Part) -> bool:
    """Whether a stage with another value of this option, file or stage before it computes something else."""
    if part.kind == "ppo":
        return makes_another_run(Change(name, None, None), part.options)
    return name not in MAY_CHANGE or name in STOP_OPTIONS


def differences(before: Record, now: Record) -> dict[str, str]:
    """Option, file or stage that is another than it was -> that in words."""
    found = {}
    for name in sorted({*before.options, *now.options}):
        old, new = before.options.get(name), now.options.get(name)
        if old != new:
            found[name] = f"{name}: {_shown(old)} -> {_shown(new)}"
    for name in sorted({*before.files, *now.files}):
        if name not in found and before.files.get(name) != now.files.get(name):
            found[name] = f"what {name} names has changed"
    for name in sorted({*before.needs, *now.needs}):
        if before.needs.get(name) != now.needs.get(name):
            found[f"the stage {name}"] = f"{name} was made anew"
    return found


def options_of(part: Part, out: Path) -> dict[str, Any]:
    """The options as JSON has them; places inside the pipeline's folder by their place in it."""

    def plain(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {name: plain(item) for name, item in value.items()}
        if isinstance(value, tuple | list):
            return [plain(item) for item in value]
        return _within(value, out) if isinstance(value, str) else value

    names = [name for name in vars(part.options) if name != "output_dir"]
    return {name: plain(getattr(part.options, name)) for name in names}


def files_of(part: Part, out: Path) -> dict[str, str]:
    """Option -> a digest of the files here that it names, except for results of other stages."""
    found = {}
    for name in _PLACES & set(vars(part.options)):
        value = getattr(part.options, name)
        texts = [value] if isinstance(value, str) else list(value or ())
        paths = [_named(text) for text in texts if _within(text, out) == text]
        digests = [digest(path) for path in paths if path is not None]
        if digests:
            found[name] = hashlib.sha256("".join(digests).encode()).hexdigest()[:16]
    return found


def digest(path: Path) -> str:
    """A digest of a file, or of all files in a folder and their names."""
    total = hashlib.sha256()
    for file in [path] if path.is_file() else _files_in(path):
        total.update(f"{file.relative_to(path) if file != path else ''}\0{file.stat().st_size}\0".encode())
        with file.open("rb") as content:
            total.update(content.read(_END))
            if file.stat().st_size > 2 * _END:
                content.seek(-_END, 2)
            total.update(content.read())
    return total.hexdigest()


def _files_in(folder: Path) -> Iterator[Path]:
    return (file for file in sorted(folder.rglob("*")) if file.is_file())


def _named(text: str) -> Path | None:
    """The file or folder that an option names, be it "judge.py:score"; None where it names none here."""
    for name in (text, text.rpartition(":")[0]):
        path = Path(name).expanduser()
        if name and path.exists():
            return path
    return None


def _within(text: str, out: Path) -> str:
    """OUTPUT/sft/model for a place in the pipeline's folder; any other text as it is."""
    label, equals, place = text.partition("=") if "=" in text else ("", "", text)  # ppo=OUTPUT/ppo-seed0
    return f"{label}{equals}OUTPUT{place.removeprefix(str(out))}" if place.startswith(f"{out}/") else text


def _shown(value: Any) -> str:
    return "none" if value is None else str(value)
