"""docs/remote-rewards.md names every protocol, path and option with its default and meaning."""

import ast
import inspect
import itertools
import re
from pathlib import Path

from surefoot.rewards import address
from surefoot.rewards.address import RemoteOptions
from surefoot.rewards.protocols import WIRES

PAGE = (Path(__file__).parents[2] / "docs" / "remote-rewards.md").read_text(encoding="utf-8")


def documented_options() -> list[str]:
    """A row for each option, out of the source: its name, its default, and the docstring under it."""
    tree = ast.parse(inspect.getsource(address))
    (body,) = (node.body for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "RemoteOptions")
    options, rows = RemoteOptions(), []
    for node, text in itertools.pairwise(body):
        if isinstance(node, ast.AnnAssign):
            default = getattr(options, node.target.id)
            shown = "none" if default is None else f"{default:g}"
            rows.append(f"| `{node.target.id}` | {shown} | {text.value.value} |")
    return rows


def test_the_table_of_options_is_the_sources():
    table = PAGE.split("| option | default | meaning |\n| --- | --- | --- |\n")[1].split("\n\n")[0]
    assert table.splitlines() == documented_options()


def test_every_protocol_is_listed_with_its_path():
    rows = re.findall(r"^\| `([a-z-]+)` \| `(/[^`]*)` \|", PAGE, re.M)
    assert rows == [(name, wire.path) for name, wire in WIRES.items()]
