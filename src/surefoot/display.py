"""Foreign text made fit to be shown: what prompts, answers, files and services say never steers a terminal."""

from typing import Any

from surefoot.redaction import hide_values, redact

LONGEST_LINE = 2000


def visible(text: str) -> str:
    """The text on one line: control, format and odd space characters as escapes."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def visible_lines(text: str) -> str:
    """The same for a text of several lines, whose line ends stay; what is a secret wherever it stands is blanked.

    Of a line that is longer than a few screens the middle is left out.
    """
    return "\n".join(visible(_shortened(line)) for line in hide_values(text).split("\n"))


def presentable(text: str) -> str:
    """The same for a message, in which `key: value` speaks of a secret; such values are blanked too."""
    return visible_lines(redact(text))


def _shortened(line: str) -> str:
    left_out, half = len(line) - LONGEST_LINE, LONGEST_LINE // 2
    return line if left_out <= 0 else f"{line[:half]} ...({left_out} characters)... {line[-half:]}"


def brief(value: Any, limit: int = 80) -> str:
    """A value as Python writes it, for a message: its secrets blanked, its middle left out when it is long."""
    text = visible(redact(repr(value)))
    half = limit // 2
    return text if len(text) <= limit else f"{text[:half]}…{text[-half:]}"


def excerpt(text: str, limit: int = 400) -> str:
    """The text on one line; of a long one the beginning and the end."""
    if len(text) <= limit:
        return visible(text)
    half = limit // 2
    return f"{visible(text[:half])} … {len(text) - 2 * half} characters … {visible(text[-half:])}"
