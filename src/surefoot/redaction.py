"""What must not be written down: tokens, keys and passwords, blanked wherever a text leaves the process."""

import re
import shlex
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from surefoot.config import PPOConfig

_HIDDEN = "REDACTED"
_WORD = r"(?:token(?!i[sz])|key|secret|password|passwd)"
_SECRET = re.compile(_WORD, re.IGNORECASE)
_VALUE = r"""(?P<value>"[^"]*"|'[^']*'|[^\s"'&,;]+)"""
_ASSIGNMENT = re.compile(rf"""(?P<name>[\w.-]*{_WORD}[\w.-]*)(?P<sign>["']?\s*[=:]\s*){_VALUE}""", re.IGNORECASE)
_OPTION = re.compile(rf"(?P<name>--?[\w.-]*{_WORD}[\w.-]*)(?P<sign>\s+)(?!-){_VALUE}", re.IGNORECASE)
_USERINFO = re.compile(r"(?P<scheme>\b[a-z][a-z0-9+.-]*://)[^\s/@]+@", re.IGNORECASE)
_ISSUED = re.compile(r"\b(?:hf_|sk-|gh[pousr]_)[\w-]{16,}")
_BEARER = re.compile(r"\b(?P<scheme>bearer)\s+[\w.~+/=-]{16,}", re.IGNORECASE)
_OPTIONS = frozenset(f.name for f in fields(PPOConfig))


def redact(text: str) -> str:
    """Blanks the values of names that speak of a token, key, secret or password, and user names in addresses.

    Options of PPOConfig such as max_new_tokens keep their values; so do names that speak of a tokenizer, and names
    that end in _env, whose value is the name of a variable.
    """

    def blank(match: re.Match[str]) -> str:
        return match["name"] + match["sign"] + _HIDDEN if _is_secret(match["name"]) else match[0]

    text = _BEARER.sub(rf"\g<scheme> {_HIDDEN}", _ISSUED.sub(_HIDDEN, hide_userinfo(text)))
    return _OPTION.sub(blank, _ASSIGNMENT.sub(blank, text))


def _is_secret(name: str) -> bool:
    plain = name.lstrip("-").replace("-", "_")
    return bool(_SECRET.search(name)) and plain not in _OPTIONS and not plain.lower().endswith("_env")


def hide_userinfo(text: str) -> str:
    """`text` with the user names and passwords of addresses blanked."""
    return _USERINFO.sub(rf"\g<scheme>{_HIDDEN}@", text)


def command_line(arguments: Sequence[str]) -> str:
    """The command as one would type it. The program is named without its folder; secrets are blanked per argument."""
    shown: list[str] = [Path(arguments[0]).name] if arguments else []
    hide_next = False
    for argument in arguments[1:]:
        name, equals, _ = argument.partition("=")
        secret = name.startswith("-") and _is_secret(name)
        shown.append(_HIDDEN if hide_next else name + equals + _HIDDEN if secret and equals else redact(argument))
        hide_next = secret and not equals and not hide_next
    return shlex.join(shown)
