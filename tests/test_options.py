"""Classes of options other than PPOConfig: read, refused, documented and written by the same rules."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import pytest

from surefoot.arguments import Parser, UsageError, add_options, options_of
from surefoot.manual import option_docs, option_tables
from surefoot.options import Options, strict_options
from surefoot.sections import read_sections
from surefoot.settings import load_settings, make_options, to_yaml


@dataclass(frozen=True, kw_only=True)
class Tea(Options):
    """The options of making tea."""

    COMMAND: ClassVar[str] = "tea"
    SECTIONS: ClassVar[Mapping[str, str]] = {"leaf": "Leaves", "minutes": "Water"}
    RANGES: ClassVar[Mapping[str, tuple[float, float, bool]]] = {"minutes": (0, 10, True)}
    RETIRED: ClassVar[Mapping[str, str]] = {"brew_time": "minutes"}

    leaf: Literal["green", "black"] = "green"
    """Which leaves."""
    minutes: float = 3.0
    """How long they draw."""


@strict_options
@dataclass(frozen=True, kw_only=True)
class IcedTea(Tea):
    """The same, cold."""

    SECTIONS: ClassVar[Mapping[str, str]] = {**Tea.SECTIONS, "ice": "Ice", "other": "Of the other library"}
    PASSED: ClassVar[str | None] = "other"

    minutes: float = 5.0
    """How long they draw, and stand in the cold."""
    ice: tuple[str, ...] = ()
    """What is frozen."""
    other: Mapping[str, Any]

    @classmethod
    def kind_of(cls, name):
        return super().kind_of(name) or {"straws": int, "umbrella": bool}.get(name)

    @classmethod
    def named_here(cls, options):
        here = {name: value for name, value in options.items() if name in {*cls.kinds(), "other"}}
        passed = {name: value for name, value in options.items() if name in ("straws", "umbrella")}
        unknown = {name: value for name, value in options.items() if name not in here | passed}
        return here | {"other": {**options.get("other", {}), **passed}} | unknown

    def refusals(self):
        return [(self.leaf == "black" and not self.ice, "leaf='black' needs ice")]


def write(folder, text, name="tea.yaml"):
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def parser():
    made = Parser("tea", "Makes tea.", "[...]", "surefoot tea")
    add_options(made, IcedTea)
    return made


def test_files_and_command_line_make_any_class_of_options(tmp_path):
    made = load_settings([write(tmp_path, "leaf: black\nice: lemon\n")], {"minutes": "4"}, IcedTea)
    assert made == IcedTea(leaf="black", ice=["lemon"], minutes=4)
    assert isinstance(made.minutes, float)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("laef: black", "unknown option 'laef'; did you mean 'leaf'?"),
        ("brew_time: 3", "the option 'brew_time' is retired here; use minutes"),
        ("quite_another: 3", "unknown option 'quite_another'; see `surefoot tea --help`"),
        ("kl_coef: 3", "unknown option 'kl_coef'; see `surefoot tea --help`"),  # retired by PPO, unheard of here
        ("minutes: 11", "minutes=11.0 must be greater than 0 and at most 10"),
        ("leaf: red", "leaf='red' must be one of 'green', 'black'"),
        ("leaf: black", "leaf='black' needs ice"),
        ("straws: many", "straws='many' must be a whole number"),
    ],
)
def test_wrong_options_are_refused_as_those_of_ppo_are(tmp_path, text, message):
    path = write(tmp_path, text)
    with pytest.raises(ValueError, match=f"^{re.escape(f'{path}:1: {message}')}$"):
        load_settings([path], {}, IcedTea)


def test_a_missing_file_sends_nobody_to_the_starter_file_of_another_command(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        load_settings([tmp_path / "no.yaml"], {}, IcedTea)
    assert str(caught.value) == f"{tmp_path / 'no.yaml'}: no such file"


def test_what_is_passed_to_another_library_is_read_by_its_own_name_and_reads_back(tmp_path):
    made = load_settings([write(tmp_path, "straws: 2")], {"umbrella": "true"}, IcedTea)
    assert made.other == {"straws": 2, "umbrella": True}
    text = to_yaml(made)
    assert text.endswith("\n# Of the other library\nstraws: 2\numbrella: true\n")
    assert load_settings([write(tmp_path, text, "back.yaml")], {}, IcedTea) == made


def test_documents_take_the_nearest_text_and_keep_the_order_of_the_fields():
    docs = option_docs(IcedTea)
    assert [(d.name, d.section) for d in docs] == [("leaf", "Leaves"), ("minutes", "Water"), ("ice", "Ice")]
    assert docs[1].meaning == "How long they draw, and stand in the cold."
    assert docs[1].default == "5.0"
    assert "### Water\n" in option_tables(IcedTea, "###")[1]


def test_the_command_line_takes_what_is_passed_on_and_refuses_what_nobody_knows():
    with pytest.raises(UsageError, match="unknown option --spoon; see `surefoot tea --help`"):
        parser().read(["--straws", "2", "--spoon", "1", "--leaf", "black"])
    given = options_of(parser().read(["--straws", "2", "--leaf", "black", "--umbrella"]), IcedTea)
    assert given == {"leaf": "black", "straws": "2", "umbrella": "true"}
    with pytest.raises(UsageError, match="unknown option --laef; did you mean --leaf"):
        parser().read(["--laef", "green"])


SECTIONED = """\
seed: 3
tea:
  leaf: black   # not green
  minutes: 2
iced-tea:
  ice: [lemon, mint]
"""


def test_a_file_with_sections_keeps_the_line_of_every_value(tmp_path):
    path = write(tmp_path, SECTIONED)
    found = read_sections(path)
    assert {name: (s.value, s.origin) for name, s in found.top.items()} == {"seed": (3, f"{path}:1")}
    assert found.origins == {"tea": f"{path}:2", "iced_tea": f"{path}:5"}
    assert found.sections["tea"]["minutes"].origin == f"{path}:4"
    assert make_options(found.sections["iced_tea"], IcedTea).ice == ("lemon", "mint")
    assert make_options(found.sections["tea"], Tea) == Tea(leaf="black", minutes=2.0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tea:\n  water:\n    hot: true\n", ":3: options are not nested"),
        ("tea:\n  leaf: black\n  leaf: green\n", ":3: leaf is set twice, first in line 2"),
        ("tea:\n  leaf: black\ntea:\n  leaf: green\n", ":3: tea is set twice, first in line 1"),
        ("tea:\n  leaf: !!python/name:os.system x\n", ":2: the tag"),
        ("- tea\n", ":1: options are `name: value` lines"),
    ],
)
def test_bad_files_with_sections_are_refused_with_their_line(tmp_path, text, message):
    path = write(tmp_path, text)
    with pytest.raises(ValueError, match=f"^{re.escape(f'{path}{message}')}"):
        read_sections(path)


def test_files_with_sections_are_yaml(tmp_path):
    with pytest.raises(ValueError, match=r"ends in \.yaml or \.yml"):
        read_sections(write(tmp_path, "{}", "tea.json"))
