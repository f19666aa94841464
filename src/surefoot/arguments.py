"""The command line's options, made from a class of options: a flag for each, grouped as in the docs. No torch in here.

A flag's value stays text until `surefoot.settings` reads it by the same rules as a value in a file.
"""

import argparse
import difflib
import re
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from surefoot.config import PPOConfig
from surefoot.manual import option_docs, sections
from surefoot.options import Options, unknown_option


class UsageError(Exception):
    """The command line is wrong; the message says how."""


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that raises `UsageError`, knows the nearest option, and treats - and _ in names alike."""

    def __init__(self, command: str, summary: str, usage: str, examples: str) -> None:
        super().__init__(
            prog=f"surefoot {command}", usage=f"surefoot {command} {usage}", description=summary, add_help=False,
            epilog="examples:\n" + re.sub(r"(?m)^", "  ", examples.strip()), allow_abbrev=False, formatter_class=_Help,
        )  # fmt: skip
        self.general = self.add_argument_group("General")
        self.general.add_argument("-h", "--help", action="help", help="show this help")
        self.general.add_argument("--debug", action="store_true", help="show tracebacks of errors")
        self.options: type[Options] | None = None

    def read(self, arguments: Sequence[str]) -> argparse.Namespace:
        """The parsed arguments.

        Raises:
            UsageError: an unknown option, a missing value, or something left over.
        """
        switches = {name for name, kind in self.options.kinds().items() if kind is bool} if self.options else set()
        found, rest = self.parse_known_args(_plain(arguments, switches))
        if self.options is not None and self.options.PASSED is not None:
            passed, rest = _passed(rest, self.options)
            setattr(found, _PASSED, passed)
        if rest:
            raise UsageError(self._unknown(rest))
        return found

    def error(self, message: str) -> NoReturn:
        """Raises instead of leaving the program."""
        raise UsageError(message)

    def _unknown(self, rest: Sequence[str]) -> str:
        flag = next((text for text in rest if text.startswith("-")), None)
        if flag is None:
            hint = (
                f"; did you mean --config {rest[0]}?" if rest[0].endswith((".yaml", ".yml", ".toml", ".json")) else ""
            )
            return f"unexpected argument {rest[0]!r}{hint}"
        mine = [name for name in self._option_string_actions if name.startswith("--")]
        name = flag.partition("=")[0]
        if self.options is not None:
            flags = {n.strip("-").replace("-", "_") for n in mine}
            sentence = unknown_option(name.strip("-").replace("-", "_"), flags, self.options)
            return re.sub(r"^(unknown option |the option )'\w+'", rf"\1{name}", _with_flags(sentence))
        near = difflib.get_close_matches(name, mine, n=1)
        return f"unknown option {name}" + (f"; did you mean {near[0]}?" if near else f"; see `{self.prog} --help`")


def add_run_flags(parser: Parser) -> None:
    """The flags that every command has which makes a run."""
    general = parser.general
    files = "settings files (.yaml, .toml, .json); later ones win over earlier ones, options over all"
    general.add_argument("--config", nargs="+", action="extend", default=[], metavar="FILE", help=files)
    general.add_argument("--resume", metavar="RUN", help="go on with the run in this folder, under its own settings")
    general.add_argument("--fresh", action="store_true", help="begin anew; what output_dir holds is moved aside")
    general.add_argument("--allow-changes", action="store_true", help="go on with options that make another run of it")
    general.add_argument("--quiet", action="store_true", help="show only how the run ended")


def add_options(parser: Parser, cls: type[Options] = PPOConfig) -> None:
    """A flag for every option of a class, in one group a section."""
    parser.options = cls
    for title, docs in sections(option_docs(cls)).items():
        group = parser.add_argument_group(title)
        for doc in docs:
            many, switch = doc.takes.endswith(" ..."), doc.takes == "true|false"
            default = "" if doc.default in ("null", "[]") else f" [{doc.default}]"
            how: dict[str, Any] = {"nargs": "?", "const": "true"} if switch else {}
            if many:
                how = {"nargs": "+", "action": "extend"}
            group.add_argument(
                flag_of(doc.name), dest=doc.name, default=argparse.SUPPRESS,
                metavar=doc.takes.removesuffix(" ...").removesuffix("|none"),
                help=(doc.meaning + default).replace("%", "%%"), **how,
            )  # fmt: skip


def options_of(arguments: argparse.Namespace, cls: type[Options] = PPOConfig) -> dict[str, str | list[str]]:
    """The options of a class that were given, as texts, and after them those that it passes to another library."""
    mine = {name: value for name, value in vars(arguments).items() if name in cls.kinds()}
    return mine | getattr(arguments, _PASSED, {})


_PASSED = "passed to another library"  # no flag has such a name


def _passed(rest: Sequence[str], cls: type[Options]) -> tuple[dict[str, str | list[str]], list[str]]:
    """What no flag took -> options that the class passes on, by name, and what is none of those."""
    passed: dict[str, str | list[str]] = {}
    left: list[str] = []
    pending = list(rest)
    while pending:
        flag, equals, value = pending.pop(0).partition("=")
        name = flag.removeprefix("--").replace("-", "_")
        if not flag.startswith("--") or cls.kind_of(name) is None:
            left.append(flag + equals + value)
            continue
        values = [value] if equals else []
        while pending and not pending[0].startswith("--"):
            values.append(pending.pop(0))
        passed[name] = "true" if not values else values[0] if len(values) == 1 else values
    return passed, left


def settings_of(run: str) -> Path:
    """The settings that a run folder keeps.

    Raises:
        UsageError: it is no run folder.
    """
    path = Path(run) / "config.yaml"
    if not path.is_file():
        raise UsageError(f"--resume {run}: no run folder, it has no config.yaml")
    return path


def without_flag(flag: str, arguments: Sequence[str]) -> list[str]:
    """Arguments without a flag that takes one value, however it was written."""
    kept: list[str] = []
    pending = list(arguments)
    while pending:
        text = pending.pop(0)
        name, equals, _ = text.partition("=")
        if _plain_flag(name, ()) != flag:
            kept.append(text)
        elif not equals:
            del pending[:1]
    return kept


def flag_of(name: str) -> str:
    """learning_rate -> --learning-rate."""
    return "--" + name.replace("_", "-")


def nearest_command(name: str, commands: Mapping[str, Callable[..., int]]) -> str:
    """The sentence for a command that does not exist."""
    near = difflib.get_close_matches(name, commands, n=1, cutoff=0.5)
    hint = f"did you mean `surefoot {near[0]}`?" if near else "there are " + ", ".join(commands)
    return f"unknown command {name!r}; {hint}"


def _plain(arguments: Sequence[str], switches: Collection[str]) -> list[str]:
    """--batch_size as --batch-size, --no-x as --x=false, and a negative number tied to its option."""
    plain: list[str] = []
    for text in arguments:
        if re.fullmatch(r"-[\d.]+(e[-+]?\d+)?", text, re.IGNORECASE) and plain and plain[-1].startswith("--"):
            plain.append(f"{plain.pop()}={text}")
        else:
            plain.append(_plain_flag(text, switches))
    return plain


def _plain_flag(text: str, switches: Collection[str]) -> str:
    flag, equals, value = text.partition("=")
    if not flag.startswith("--"):
        return text
    flag = flag.replace("_", "-")
    if not equals and flag.startswith("--no-") and flag.removeprefix("--no-").replace("-", "_") in switches:
        return f"--{flag.removeprefix('--no-')}=false"
    return flag + equals + value


def _with_flags(sentence: str) -> str:
    return re.sub(r"did you mean '(\w+)'", lambda found: f"did you mean {flag_of(found[1])}", sentence)


class _Help(argparse.RawDescriptionHelpFormatter):
    """Two columns, 100 wide at most; the values of an option named once."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=34, width=min(118, shutil.get_terminal_size((100, 24)).columns - 2))
