"""From a text such as "module:name" or "file.py:name" to the user's function."""

import functools
import hashlib
import importlib
import importlib.util
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

DEFAULT_NAMES = ("reward_func", "compute_score", "reward_fn")
"""What a file's reward function may be called so that "file.py" alone finds it."""

_FILE = re.compile(r"^(?P<path>.+\.py)(?::(?P<name>[\w.]+))?$")
_WAYS = "write 'module:name', 'package.module.name', 'file.py:name', or a reward model's folder or hub name 'org/name'"


def is_file_spec(spec: str) -> bool:
    """Whether `spec` is "file.py" or "file.py:name"."""
    return _FILE.match(spec) is not None


def locate(spec: str) -> tuple[Callable[..., Any], str]:
    """The function that `spec` names, and its short name. A class is instantiated without arguments."""
    found = _FILE.match(spec)
    if found is not None:
        module = _load_file(Path(found["path"]).expanduser())
        name = found["name"] or _default_name(module, spec)
    elif ":" in spec:
        home, _, name = spec.partition(":")
        module = _load_module(home, spec)
    elif "." in spec:
        home, _, name = spec.rpartition(".")
        module = _load_module(home, spec)
    else:
        raise ValueError(f"reward={spec!r} is neither a function nor a reward model: {_WAYS}")
    return _made(_attribute(module, name, spec), spec), name


def _attribute(module: ModuleType, name: str, spec: str) -> Any:
    try:
        return functools.reduce(getattr, name.split("."), module)
    except AttributeError as error:
        raise ValueError(
            f"reward={spec!r}: there is no {name!r} in it; functions there: {_functions(module)}"
        ) from error


def _made(found: Any, spec: str) -> Callable[..., Any]:
    if isinstance(found, type):
        try:
            found = found()
        except TypeError as error:
            raise ValueError(f"reward={spec!r} is a class that needs arguments ({error}): name an instance") from error
    if not callable(found):
        raise ValueError(f"reward={spec!r} is {type(found).__name__}, not a function")
    return found  # type: ignore[no-any-return]


def _default_name(module: ModuleType, spec: str) -> str:
    present = [name for name in DEFAULT_NAMES if callable(getattr(module, name, None))]
    if len(present) != 1:
        count = "none" if not present else "several"
        raise ValueError(
            f"reward={spec!r}: {count} of {', '.join(DEFAULT_NAMES)} in the file; "
            f"add ':name'; functions there: {_functions(module)}"
        )
    return present[0]


def _functions(module: ModuleType) -> str:
    names = [n for n, v in vars(module).items() if callable(v) and getattr(v, "__module__", "") == module.__name__]
    return ", ".join(n for n in names if not n.startswith("_")) or "none"


def _load_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise ValueError(f"reward={str(path)!r}: there is no such file (looked in {Path.cwd()})")
    path = path.resolve()
    _let_import_from(path.parent)
    name = f"surefoot_reward_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
    found = importlib.util.spec_from_file_location(name, path)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    sys.modules[name] = module  # dataclasses and pickle look their module up there
    try:
        found.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[name]
        if isinstance(error, Exception):
            raise _broken(str(path), error) from error
        raise
    return module


def _broken(spec: str, error: Exception) -> ValueError:
    return ValueError(f"reward={spec!r}: importing it failed with {type(error).__name__}: {error}")


def _load_module(name: str, spec: str) -> ModuleType:
    if not all(part.isidentifier() for part in name.split(".")):
        raise ValueError(f"reward={spec!r}: {name!r} is not the name of a module; {_WAYS}")
    _let_import_from(Path.cwd())  # a console script does not look into the current folder by itself
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not (name == error.name or name.startswith(error.name + ".")):
            raise _broken(spec, error) from error  # the module is there; something that it imports is not
        raise ValueError(f"reward={spec!r}: there is no module {name!r}; {_WAYS}") from error
    except Exception as error:  # whatever the user's code raises
        raise _broken(spec, error) from error


def _let_import_from(folder: Path) -> None:
    if str(folder) not in sys.path:
        sys.path.append(str(folder))  # last, so that nothing installed is shadowed
