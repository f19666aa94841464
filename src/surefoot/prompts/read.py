"""Files, hub names, data sets and lists -> rows, each with the place it came from. No tokenizer in here."""

import csv
import difflib
import io
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from surefoot.types import Prompt


@dataclass(frozen=True, slots=True)
class Row:
    """One row and where it stands, in words ("prompts.jsonl line 12")."""

    place: str
    values: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Source:
    """All rows of a source. `prompts` is filled instead of `rows` where the source holds finished prompts.

    Attributes:
        name: of the source, for people.
        one_text_a_row: the rows are bare texts, held in a column "prompt".
    """

    name: str
    rows: tuple[Row, ...] = ()
    one_text_a_row: bool = False
    prompts: tuple[Prompt, ...] = ()


def read_source(source: Any) -> Source:
    """The rows of a path, a hub name ("name" or "name:split"), a `datasets.Dataset` or a list.

    Raises:
        ValueError: nothing is there, or a row cannot be read; the message names file and line.
        TypeError: a source of another kind.
    """
    if isinstance(source, Path):
        return _read_file(source)
    if isinstance(source, str):
        path = Path(source).expanduser()
        if path.suffix.lower() in _READERS or path.exists() or source.startswith((".", "/", "~")):
            return _read_file(path)
        return _read_hub(source)
    library = sys.modules.get("datasets")  # an object of its types exists only where it has been imported
    if library is not None and isinstance(source, library.Dataset | library.DatasetDict):
        return _read_dataset(source, "a data set")
    if isinstance(source, Sequence) and not isinstance(source, bytes | bytearray):
        return _read_list(source)
    raise TypeError(
        f"rows cannot be read from a {type(source).__name__}: give a file, a hub name, a datasets.Dataset, or a "
        "list of texts, of rows (dicts) or of Prompt; of a stream take as many rows as you need: list(stream.take(n))"
    )


def one_line(value: Any, limit: int = 80) -> str:
    """A value as Python writes it, shortened, for error messages."""
    text = ascii(value) if isinstance(value, str) else repr(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"


# ---------------------------------------------------------------------------------------------- lists and data sets


def _read_list(source: Sequence[Any]) -> Source:
    name = f"a list of {len(source)}"
    if not source:
        raise ValueError("the list is empty: give at least one row")
    for kind in (str, Mapping, Prompt):
        if isinstance(source[0], kind):
            break
    else:
        raise ValueError(f"row 1 of the list is {one_line(source[0])}: rows are texts, dicts or Prompt objects")
    for i, value in enumerate(source):
        if not isinstance(value, kind):
            raise ValueError(f"row {i + 1} of the list is {one_line(value)}, but row 1 is of type {kind.__name__}")
    if kind is Prompt:
        return Source(name, prompts=tuple(source))
    places = [f"row {i + 1} of the list" for i in range(len(source))]
    if kind is str:
        rows = tuple(Row(place, {"prompt": text}) for place, text in zip(places, source, strict=True))
        return Source(name, rows, one_text_a_row=True)
    return Source(name, tuple(Row(place, values) for place, values in zip(places, source, strict=True)))


def _read_dataset(dataset: Any, name: str) -> Source:
    if isinstance(dataset, dict):
        splits = list(dataset)
        if "train" not in splits and len(splits) != 1:
            raise ValueError(f"{name} has the splits {', '.join(splits)}: name one, as in 'name:{splits[0]}'")
        split = "train" if "train" in splits else splits[0]
        dataset, name = dataset[split], f"{name}, split {split}"
    if len(dataset) == 0:
        raise ValueError(f"{name} has no rows: give data that has some")
    rows = tuple(Row(f"{name} row {i + 1}", values) for i, values in enumerate(dataset.with_format(None)))
    return Source(name, rows)


def _read_hub(name: str) -> Source:
    import datasets  # a second to import, and needed only here

    repository, _, split = name.partition(":")
    try:
        found = datasets.load_dataset(repository, split=split or None)
    except (OSError, ValueError) as error:  # OSError covers not found, offline and connection errors
        near = _nearest(Path(name))
        raise ValueError(
            f"{name!r} is neither a file here{f' (nearest: {near!r})' if near else ''} nor a data set that could be "
            f"loaded from the hub: {str(error).splitlines()[0] if str(error) else type(error).__name__}. A data set "
            "that needs more than a name and a split can be loaded with `datasets` and passed as an object"
        ) from error
    return _read_dataset(found, name)


# ---------------------------------------------------------------------------------------------- files


def _read_file(path: Path) -> Source:
    if not path.exists():
        raise ValueError(f"no file {str(path)!r}: {_what_is_there(path)}")
    if path.is_dir():
        raise ValueError(f"{str(path)!r} is a folder, not a file of rows: {_what_is_there(path / 'prompts.jsonl')}")
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise ValueError(f"{str(path)!r}: rows are read from {', '.join(_READERS)} files, not {path.suffix!r}")
    rows = tuple(reader(path))
    if not rows:
        raise ValueError(f"{str(path)!r} has no rows: give a file that has some")
    return Source(str(path), rows, one_text_a_row=reader is _read_text)


def _what_is_there(path: Path) -> str:
    if not path.parent.is_dir():
        return f"the folder {str(path.parent)!r} does not exist either"
    near = _nearest(path)
    return f"the nearest name there is {near!r}" if near else f"the folder {str(path.parent)!r} holds no such files"


def _nearest(path: Path) -> str | None:
    """The file of rows beside `path` whose name is most like it; of any kind where there is none."""
    if not path.parent.is_dir():
        return None
    files = sorted(f for f in os.listdir(path.parent) if (path.parent / f).is_file())
    readable = [f for f in files if Path(f).suffix.lower() in _READERS]
    near = difflib.get_close_matches(path.name, readable or files, n=1, cutoff=0.0)
    return near[0] if near else None


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    """Each line without its ending, with its place. Only a newline ends a line, never U+2028 or a form feed."""
    lines = path.read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n")
    if lines[-1] == b"":
        lines.pop()
    for number, line in enumerate(lines, 1):
        place = f"{path.name} line {number}"
        try:
            yield place, line.removesuffix(b"\r").decode()
        except UnicodeDecodeError as error:
            raise ValueError(
                f"{place}: byte {error.start + 1} is {line[error.start : error.start + 1]!r}, which is not UTF-8: "
                "save the file as UTF-8"
            ) from error


def _read_text(path: Path) -> Iterator[Row]:
    return (Row(place, {"prompt": line}) for place, line in _lines(path))


def _read_jsonl(path: Path) -> Iterator[Row]:
    for place, line in _lines(path):
        if line.strip():  # an empty line between or behind the rows holds no row
            yield Row(place, _object(_parse(line, place), place))


def _read_json(path: Path) -> Iterator[Row]:
    text = "\n".join(line for _, line in _lines(path))
    try:
        rows = json.loads(text)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data":  # several values: JSON Lines under the name .json, as many data sets have it
            yield from _read_jsonl(path)
            return
        raise ValueError(f"{path.name} line {error.lineno}: not JSON: {error.msg} at column {error.colno}") from error
    if isinstance(rows, dict):
        raise ValueError(
            f"{path.name} holds one object with the keys {', '.join(rows)}; it must be a list of rows [{{...}}, ...] "
            "or one row a line"
        )
    if not isinstance(rows, list):
        raise ValueError(f"{path.name} holds {one_line(rows)}; it must be a list of rows [{{...}}, ...]")
    for i, values in enumerate(rows):
        place = f"{path.name} row {i + 1}"
        yield Row(place, _object(values, place))


def _parse(line: str, place: str) -> Any:
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"{place}: not JSON: {error.msg} at column {error.colno}: {one_line(line)}") from error


def _object(values: Any, place: str) -> Mapping[str, Any]:
    if isinstance(values, str):
        return {"prompt": values}
    if not isinstance(values, dict):
        raise ValueError(f"{place}: a row must be an object of columns or a text, found {one_line(values)}")
    return values


def _read_csv(path: Path) -> Iterator[Row]:
    text = "\n".join(line for _, line in _lines(path))
    limit = csv.field_size_limit(max(len(text), 1))  # a prompt may be longer than the module's 128 KiB
    try:
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        yield from _csv_rows(reader, path)
    except csv.Error as error:
        raise ValueError(f"{path.name} line {reader.line_num}: not CSV: {error}") from error
    finally:
        csv.field_size_limit(limit)


def _csv_rows(reader: Any, path: Path) -> Iterator[Row]:
    names: list[str] = next(reader, [])
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"{path.name} line 1: the column {twice[0]!r} appears twice: columns need distinct names")
    start = reader.line_num + 1
    for fields in reader:
        place, start = f"{path.name} line {start}", reader.line_num + 1
        if len(fields) != len(names) and fields:  # an empty line holds no row
            raise ValueError(
                f"{place}: {len(fields)} fields where the header has {len(names)} ({', '.join(names)}): "
                f"{one_line(fields)}; a field with a comma needs double quotes"
            )
        if fields:
            yield Row(place, dict(zip(names, fields, strict=True)))


def _read_parquet(path: Path) -> Iterator[Row]:
    from pyarrow import ArrowException, parquet

    try:
        table = parquet.read_table(path)
    except (ArrowException, OSError) as error:
        raise ValueError(f"{path.name} cannot be read as Parquet: {error}") from error
    for i, values in enumerate(table.to_pylist()):
        yield Row(f"{path.name} row {i + 1}", values)


_READERS: Mapping[str, Callable[[Path], Iterator[Row]]] = {
    ".jsonl": _read_jsonl,
    ".json": _read_json,
    ".csv": _read_csv,
    ".parquet": _read_parquet,
    ".txt": _read_text,
}
