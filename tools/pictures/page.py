"""Numbers into a document: `<!--= judge.accuracy|.0% -->79%<!--/-->` holds what pictures.json says, so formatted.

The comments are invisible where Markdown is rendered. What stands between them is written by `filled`, never by hand.
"""

import functools
import re
from collections.abc import Mapping
from typing import Any

MARK = re.compile(r"<!--= (?P<path>[\w.]+)(?:\|(?P<form>[^ ]*))? -->(?P<shown>.*?)<!--/-->", re.S)


def value_of(numbers: Mapping[str, Any], path: str) -> Any:
    """What stands at a path such as `judge.bins.0.said`.

    Raises:
        KeyError: nothing does.
    """
    try:
        return functools.reduce(
            lambda x, key: x[int(key)] if isinstance(x, list) else x[key], path.split("."), numbers
        )
    except (KeyError, IndexError, TypeError, ValueError):
        raise KeyError(f"{path}: pictures.json holds no such number") from None


def shown(numbers: Mapping[str, Any], path: str, form: str | None) -> str:
    """A value in words, with a true minus sign and a blank before the percent sign."""
    value = value_of(numbers, path)
    return (
        value if isinstance(value, str) else format(value, form or "").replace("-", "\u2212").replace("%", "\u00a0%")
    )


def filled(text: str, numbers: Mapping[str, Any]) -> str:
    """The document with every mark filled anew."""

    def fill(mark: re.Match[str]) -> str:
        head = mark[0][: mark.start("shown") - mark.start()]
        return f"{head}{shown(numbers, mark['path'], mark['form'])}<!--/-->"

    return MARK.sub(fill, text)
