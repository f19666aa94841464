"""YAML, TOML and JSON files + command line -> a command's options, and those -> YAML. No torch in here.

Files are merged from left to right, the command line comes last. YAML is read as version 1.2: `1e-5` is a number,
`on` and `yes` are text. The bare word `none` means "no value" wherever an option can be without one.
"""

import json
import math
import re
import tomllib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, overload

from surefoot.config import PPOConfig
from surefoot.display import brief
from surefoot.options import Options, check_type, unknown_option

MAX_BYTES = 2**20
"""Larger settings files are refused: nobody writes a megabyte of options by hand."""

MOST_PROBLEMS = 20
"""So many wrong lines are told at once."""

Made = TypeVar("Made", bound=Options)


@dataclass(frozen=True, slots=True)
class Setting:
    """A value and where it was written: "run.yaml:3" or "--learning-rate"."""

    value: Any
    origin: str


class _Bare(str):
    """A text written without quotes, which may therefore be the word `none`."""

    __slots__ = ()


# ------------------------------------------------------------------------------------------ reading


@overload
def load_settings(
    paths: Sequence[str | Path] = ..., overrides: Mapping[str, str | Sequence[str]] | None = ...
) -> PPOConfig: ...


@overload
def load_settings(
    paths: Sequence[str | Path], overrides: Mapping[str, str | Sequence[str]] | None, cls: type[Made]
) -> Made: ...


def load_settings(
    paths: Sequence[str | Path] = (),
    overrides: Mapping[str, str | Sequence[str]] | None = None,
    cls: type[Options] = PPOConfig,
) -> Options:
    """The options of a run: `overrides` (texts, as typed) over the files, later files over earlier ones.

    Raises:
        ValueError: every unknown option and wrong value of the files, each with its file and line.
        FileNotFoundError: a file does not exist.
    """
    found: dict[str, Setting] = {}
    for path in paths:
        found |= read_file(path, f"; `surefoot init {path}` writes one to start from" if cls is PPOConfig else "")
    for name, text in (overrides or {}).items():
        found[name] = Setting(from_text(cls.kind_of(name), text), "--" + name.replace("_", "-"))
    return make_options(found, cls)


def read_file(path: str | Path, hint: str = "") -> dict[str, Setting]:
    """The options written in one file, each with its line; names are checked by `load_settings`."""
    path = Path(path)
    parsers = {".yaml": _parse_yaml, ".yml": _parse_yaml, ".toml": _parse_toml, ".json": _parse_json}
    if path.suffix.lower() not in parsers:
        raise ValueError(f"{path}: a settings file ends in .yaml, .yml, .toml or .json")
    text = read_text(path, hint)
    try:
        entries = parsers[path.suffix.lower()](text, path)
    except RecursionError:
        raise ValueError(f"{path}: nested too deeply; options are plain `name: value` lines") from None
    settings: dict[str, Setting] = {}
    for key, value, line in entries:
        add_setting(settings, key, Setting(value, f"{path}:{line}"))
    return settings


def add_setting(settings: dict[str, Setting], key: Any, setting: Setting) -> None:
    """Adds what was read under a name; a name that is there already is refused."""
    name = str(key).replace("-", "_")
    if name in settings:
        first = settings[name].origin.rpartition(":")[2]
        raise ValueError(f"{setting.origin}: {name} is set twice, first in line {first}; keep one of the two")
    settings[name] = setting


def from_text(kind: Any, text: str | Sequence[str]) -> Any:
    """What was typed on a command line, as the nearest value of `kind`; what does not fit stays text."""
    if isinstance(text, str):
        return _number_or_text(kind, text)
    return [_number_or_text(kind, part) for part in text]


def read_text(path: Path, hint: str = "") -> str:
    """The text of a settings file; `hint` is said where there is none."""
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file{hint}")
    if not path.is_file():
        raise ValueError(f"{path}: not a file")
    with path.open("rb") as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise ValueError(f"{path}: larger than 1 MiB; is this a settings file?")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ValueError(f"{path}:{line}: not UTF-8 text: is this a settings file? If so, save it as UTF-8") from None


Entries = list[tuple[Any, Any, int]]
"""Key, value and line of each entry of a file, duplicates included."""


def _parse_yaml(text: str, path: Path) -> Entries:
    yaml, pairs = yaml_pairs(text, path)
    return [
        (key.value if isinstance(key.value, str) else "?", node_value(yaml, node, path), key.start_mark.line + 1)
        for key, node in pairs
    ]


def yaml_pairs(text: str, path: Path) -> tuple[Any, list[tuple[Any, Any]]]:
    """The reader, and the keys and values of a document as it sees them."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError
    from ruamel.yaml.nodes import MappingNode

    yaml = YAML(typ="safe", pure=True)
    try:
        root = yaml.compose(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        hint = "; indent with spaces, not with tabs" if "'\\t'" in str(error.problem) else ""
        hint = "; one file holds one document, without --- in between" if "another document" in str(error) else hint
        where = f"{path}:{mark.line + 1}:{mark.column + 1}"
        raise ValueError(f"{where}: unreadable YAML: {error.problem}{hint}") from None
    except YAMLError as error:
        before = text[: getattr(error, "position", 0)]
        line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
        raise ValueError(f"{path}:{line}:{column}: unreadable YAML: a character that is not allowed") from None
    if root is None:
        return yaml, []
    _check_tag(root, {*_PLAIN_TAGS, "map", "seq"}, path)
    if not isinstance(root, MappingNode):
        raise ValueError(f"{path}:{root.start_mark.line + 1}: options are `name: value` lines")
    return yaml, checked_pairs(root, path)


def checked_pairs(node: Any, path: Path) -> list[tuple[Any, Any]]:
    """The keys and values of a mapping, none of whose keys asks for an object to be built."""
    for key, _ in node.value:
        _check_tag(key, {*_PLAIN_TAGS, "merge", "map", "seq"}, path)
    return list(node.value)


_PLAIN_TAGS = frozenset(("str", "timestamp", "int", "float", "bool", "null"))


def _check_tag(node: Any, allowed: Collection[str], path: Path) -> str:
    """The kind of a node; one that asks for an object to be built is refused, whatever it holds."""
    tag = str(node.tag).removeprefix("tag:yaml.org,2002:")
    if tag not in allowed:
        raise ValueError(
            f"{path}:{node.start_mark.line + 1}: the tag {brief(str(node.tag))} is refused; values are plain texts, "
            "numbers, true or false"
        )
    return tag


def node_value(yaml: Any, node: Any, path: Path) -> Any:
    """A scalar, or a list of scalars; anything deeper is no option's value and is refused before it is built."""
    from ruamel.yaml.nodes import ScalarNode, SequenceNode

    where = f"{path}:{node.start_mark.line + 1}"
    tag = _check_tag(node, {*_PLAIN_TAGS, "map", "seq"}, path)
    if isinstance(node, SequenceNode):
        if not all(isinstance(item, ScalarNode) for item in node.value):
            raise ValueError(f"{where}: a list inside a list; options take plain values and lists of them")
        return [node_value(yaml, item, path) for item in node.value]
    if not isinstance(node, ScalarNode):
        raise ValueError(f"{where}: options are not nested; write each as `name: value` without indentation")
    if tag in ("str", "timestamp"):
        return node.value if node.style else _Bare(node.value)
    try:
        return yaml.constructor.construct_object(node, deep=True)
    except (ValueError, LookupError):
        raise ValueError(f"{where}: {brief(node.value)} is not a value of the kind {tag}") from None


def _parse_toml(text: str, path: Path) -> Entries:
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        place = re.search(r"\(at line (\d+), column (\d+)\)", str(error))
        at = f":{place[1]}:{place[2]}" if place else f":{text.count(chr(10)) + 1}"
        raise ValueError(f"{path}{at}: unreadable TOML: {str(error).partition(' (at')[0]}") from None
    except ValueError:
        raise _endless_number(text, path) from None
    return [
        (key, _plain(value, path, line), line)
        for key, value in table.items()
        for line in [_line_of(rf"^[ \t]*\[?[\"']?{re.escape(key)}[\"'\].=\s]", text)]
    ]


def _parse_json(text: str, path: Path) -> Entries:
    if not text.strip():
        return []
    try:
        pairs = json.loads(text, object_pairs_hook=_Pairs)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}:{error.lineno}:{error.colno}: unreadable JSON: {error.msg}") from None
    except ValueError:
        raise _endless_number(text, path) from None
    if not isinstance(pairs, _Pairs):
        raise ValueError(f'{path}:1: options are an object, {{"name": value}}')
    entries: Entries = []
    seen: dict[str, int] = {}
    for key, value in pairs:
        seen[key] = seen.get(key, -1) + 1
        line = _line_of(re.escape(json.dumps(key)) + r"\s*:", text, seen[key])
        entries.append((key, _plain(value, path, line, bare=False), line))
    return entries


def _endless_number(text: str, path: Path) -> ValueError:
    """The error for a whole number with more digits than Python turns into a number."""
    return ValueError(f"{path}:{_line_of(r'[0-9_]{4000}', text)}: a number of thousands of digits")


class _Pairs(list[tuple[str, Any]]):
    """A JSON object that keeps its duplicates."""


def _plain(value: Any, path: Path, line: int, bare: bool = True) -> Any:
    if isinstance(value, dict | _Pairs):
        raise ValueError(f"{path}:{line}: options are not nested; write each at the top level")
    if isinstance(value, list) and any(isinstance(item, list | dict) for item in value):
        raise ValueError(f"{path}:{line}: a list inside a list; options take plain values and lists of them")
    return _Bare(value) if bare and isinstance(value, str) else value  # TOML has no null: "none" stands for it


def _line_of(pattern: str, text: str, occurrence: int = 0) -> int:
    places = [match.start() for match in re.finditer(pattern, text, re.MULTILINE)]
    return text.count("\n", 0, places[min(occurrence, len(places) - 1)]) + 1 if places else 1


# ------------------------------------------------------------------------------------------ checking


def make_options(found: Mapping[str, Setting], cls: type[Made]) -> Made:
    """A class's options from values as they were read, under the names of files.

    Raises:
        ValueError: every unknown option and wrong value, each with its origin.
    """
    problems: list[str] = []
    options: dict[str, Any] = {}
    for name, setting in found.items():
        if len(problems) == MOST_PROBLEMS:
            problems.append("... and there may be more")
            break
        kind = cls.kind_of(name)
        try:
            if kind is None:
                raise ValueError(unknown_option(name, set(cls.kinds()), cls))
            options[name] = _adapt(kind, setting.value)
            check_type(name, options[name], kind)
        except ValueError as error:
            quotes = kind in (str, str | None) and not isinstance(setting.value, str)
            problems.append(f"{setting.origin}: {error}" + ("; put it in quotes" if quotes else ""))
    if problems:
        raise ValueError("\n".join(problems))
    try:
        return cls(**options)
    except ValueError as error:
        raise ValueError(_with_origins(str(error), found)) from None


def _adapt(kind: Any, value: Any) -> Any:
    """The value as the option's type has it, where nothing is lost: `none`, 1e5 for a count, 3 for the list [3]."""
    optional, element = type(None) in get_args(kind), _element(kind)
    if element is not None:
        items = value if isinstance(value, list) else [] if value is None else [value]
        nothing = len(items) == 1 and isinstance(items[0], _Bare) and items[0].lower() == "none"
        if optional and (nothing or value is None):
            return None
        return () if nothing else tuple(_adapt(element, item) for item in items)
    if isinstance(value, _Bare):
        value = None if optional and value.lower() == "none" else str(value)
    whole = isinstance(value, float) and value.is_integer() and int in (kind, *get_args(kind))
    return int(value) if whole else value


def _element(kind: Any) -> Any:
    """The type of a list option's elements; None for other options."""
    lists = [k for k in (kind, *get_args(kind)) if get_origin(k) is tuple]
    return get_args(lists[0])[0] if lists else None


def _number_or_text(kind: Any, text: str) -> Any:
    kinds = set(get_args(kind)) | {kind, _element(kind)}
    if bool in kinds and text.lower() in ("true", "false"):
        return text.lower() == "true"
    for number in (int, float):
        if kinds & {int, float}:
            try:
                return number(text)
            except ValueError:
                continue
    return _Bare(text)


def _with_origins(message: str, found: Mapping[str, Setting]) -> str:
    """The message of a refused value or combination, led by the place of the option that it names first."""
    places = {name: at.start() for name in found if (at := re.search(rf"\b{name}\b", message))}
    origins = {name: found[name].origin for name in sorted(places, key=lambda name: places[name])}
    if not origins:
        return message
    first, *others = origins.items()
    also = f" ({', '.join(f'{name}: {origin}' for name, origin in others)})" if others else ""
    return f"{first[1]}: {message}{also}"


# ------------------------------------------------------------------------------------------ writing


def to_yaml(config: Options) -> str:
    """All options as YAML, section by section; reading it back gives an equal config."""
    lines = ["# Every option of this run, as it was resolved."]
    for name in config.kinds():
        if name in config.SECTIONS:
            lines += ["", f"# {config.SECTIONS[name]}"]
        lines.append(f"{name}: {yaml_value(getattr(config, name))}")
    if config.PASSED is not None and getattr(config, config.PASSED):
        passed = getattr(config, config.PASSED).items()
        lines += ["", f"# {config.SECTIONS[config.PASSED]}", *(f"{name}: {yaml_value(v)}" for name, v in passed)]
    return "\n".join(lines) + "\n"


def yaml_value(value: Any) -> str:
    """One option's value as YAML 1.2 writes it, on one line."""
    if isinstance(value, tuple):
        return f"[{', '.join(map(yaml_value, value))}]"
    if isinstance(value, str):
        plain = re.fullmatch(r"(\.{0,2}/)?[A-Za-z_][\w./+-]*( [\w./+-]+)*(:[\w./+-]+)*", value, re.ASCII)
        return value if plain and value.lower() not in _WORDS else _quoted(value)
    if isinstance(value, float):
        return _yaml_float(value)
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else repr(value)


_WORDS = {"null", "none", "true", "false", "yes", "no", "on", "off", "y", "n", ".", "..", "...", ".nan", ".inf"}


def _yaml_float(value: float) -> str:
    if not math.isfinite(value):
        return ".nan" if math.isnan(value) else ".inf" if value > 0 else "-.inf"
    return re.sub(r"e-0(\d)$", r"e-\1", repr(value))


def _quoted(text: str) -> str:
    hidden = r"[\x7f-\xa0\u2028\u2029\ufeff\ufffe\uffff\ud800-\udfff]"  # what JSON leaves raw and YAML refuses
    return re.sub(hidden, lambda found: f"\\u{ord(found[0]):04x}", json.dumps(text, ensure_ascii=False))
