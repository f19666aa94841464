"""What must not be written down: tokens, keys and passwords, blanked wherever a text leaves the process.

Known by their names (`api_key=...`), by their place (`https://user:password@host`), by their form (`hf_...`), and by
their value, where it is that of an environment variable with such a name. No pattern goes back over what it has read,
so that a text of a megabyte takes no longer than its length asks for.
"""

import os
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

_HIDDEN = "REDACTED"
_SECRET = ("token", "key", "secret", "secrets", "password", "passwd", "passphrase", "credential", "credentials",
           "signature")  # fmt: skip
_HARMLESS = ("env", "error", "id", "ids")  # token_env names a variable, token_ids are counted, KeyError is an error
_SHORTEST = 8
"""Shorter values of environment variables are words that stand elsewhere too."""

_ASSIGNMENT = re.compile(r"""(?<![\w.-])(?P<name>[\w.-]++)["']?\s*+[=:]\s*+""")
_OPTION = re.compile(r"(?<![\w.-])(?P<name>--?[\w.-]++)\s++(?!-)")
_VALUE = re.compile(r"""(?:"(?:[^"\\]|\\.)*+"?|'(?:[^'\\]|\\.)*+'?|[^\s"'&,;]+)""", re.DOTALL)
_SCHEME = r"(?P<scheme>(?<![a-z0-9+.-])[a-z][a-z0-9+.-]++:/{1,2})"  # a path makes one / of two
_USERINFO = re.compile(rf"{_SCHEME}(?:[^\s/]*@|[^\s/@:]*:(?!\d+(?:[/?#\s]|$))[^\s@]{{0,200}}@)", re.IGNORECASE)
_ADDRESS = re.compile(rf"""{_SCHEME}[^\s"'<>]*""", re.IGNORECASE)
_ISSUED = re.compile(r"\b(?:hf_|sk-|gh[pousr]_|github_pat_|glpat-|xox[abp]-)[\w-]{16,}")
_HEADER = re.compile(r"\b(?P<scheme>bearer|authorization[\"']?\s*:\s*[\"']?\w+)\s+[\w.~+/=-]{8,}", re.IGNORECASE)
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+")


def redact(text: str) -> str:
    """Blanks the values of names that speak of a token, key, secret or password, and what `hide_values` blanks.

    Options such as max_new_tokens keep their values; so do names that speak of a tokenizer, and names that end in
    _env, whose value is the name of a variable.
    """
    return _blank(_OPTION, _blank(_ASSIGNMENT, _HEADER.sub(rf"\g<scheme> {_HIDDEN}", hide_values(text))))


def hide_values(text: str) -> str:
    """Blanks what is a secret wherever it stands: in addresses, in the form of issued tokens, in the environment.

    For settings, in which `password: {prompt}` may be the template of a prompt.
    """
    text = _USERINFO.sub(rf"\g<scheme>{_HIDDEN}@", text)
    text = _ADDRESS.sub(lambda address: _blank(_ASSIGNMENT, address[0]), text)
    for value in sorted(_in_environment(), key=len, reverse=True):
        text = text.replace(value, _HIDDEN)
    return _ISSUED.sub(_HIDDEN, text)


def is_secret(name: str) -> bool:
    """Whether a name speaks of a secret: HF_TOKEN, --api-key, clientSecret; not max_new_tokens or token_env."""
    words = [word.lower() for word in _WORD.findall(name)]
    return any(word.endswith(_SECRET) for word in words) and words[-1] not in _HARMLESS


def command_line(arguments: Sequence[str]) -> str:
    """The command as one would type it. The program is named without its folder; secrets are blanked per argument."""
    shown = _program(Path(arguments[0])) if arguments else []
    hide_next = False
    for argument in arguments[1:]:
        name, equals, _ = argument.partition("=")
        secret = name.startswith("-") and is_secret(name)
        shown.append(_HIDDEN if hide_next else name + equals + _HIDDEN if secret and equals else redact(argument))
        hide_next = secret and not equals and not hide_next
    return shlex.join(shown)


def _program(path: Path) -> list[str]:
    """Without its folder; a package that was run as a module by the name that starts it."""
    return ["python", "-m", path.parent.name] if path.name == "__main__.py" else [path.name]


def _blank(names: re.Pattern[str], text: str) -> str:
    """`text` without the value behind each name that speaks of a secret."""
    kept, at = [], 0
    for found in names.finditer(text):
        if found.start() < at or not is_secret(found["name"]):
            continue
        value = _VALUE.match(text, found.end())
        if value is not None:
            kept += [text[at : found.end()], _HIDDEN]
            at = value.end()
    return "".join([*kept, text[at:]])


def _in_environment() -> set[str]:
    return {value for name, value in os.environ.items() if len(value) >= _SHORTEST and is_secret(name)}
