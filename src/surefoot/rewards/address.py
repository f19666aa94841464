"""Where a reward service is and how it is asked, out of one text: "protocol+http://host:port/path#option=value,..."."""

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

from surefoot.options import check_range, check_type, unknown_option
from surefoot.redaction import redact
from surefoot.rewards.protocols import WIRES

_ADDRESS = re.compile(r"(?:(?P<protocol>[a-z][a-z-]*)\+)?(?P<url>https?://.*)", re.IGNORECASE)
_EXAMPLE = "openrlhf+http://127.0.0.1:5000/get_reward"


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteOptions:
    """How a reward service is asked.

    Raises:
        ValueError: a value outside its range.
    """

    name: str | None = None
    """What the reward is logged under. None: the last part of model, or the protocol."""
    model: str | None = None
    """The model's name in requests, where the protocol has one."""
    token_env: str | None = None
    """Environment variable that holds the token of an Authorization: Bearer header."""
    tokenizer: str | None = None
    """The reward model's tokenizer, a folder or hub name: its chat template writes the conversations."""
    template: str | None = None
    """A text file with {prompt} and {response}: what a judge is asked."""
    batch_size: int = 32
    """Answers of one request."""
    concurrency: int = 8
    """Requests on their way at the same time, of each process."""
    connect_timeout: float = 5.0
    """Seconds to connect."""
    read_timeout: float = 60.0
    """Seconds from sending a request to the last byte of its reply."""
    deadline: float = 600.0
    """Seconds for a whole batch, all retries included; after that the run saves and stops."""
    max_reply_mib: int = 16
    """Largest reply that is read, in MiB."""

    def __post_init__(self) -> None:
        for name in ("batch_size", "concurrency", "max_reply_mib"):
            check_range(name, getattr(self, name), 1, 65536, False)
        for name in ("connect_timeout", "read_timeout", "deadline"):
            check_range(name, getattr(self, name), 0, 86400, True)


@dataclass(frozen=True, slots=True)
class Address:
    """A service: its protocol, its URL, and the options behind the '#'."""

    protocol: str
    url: SplitResult
    options: Mapping[str, Any]

    def __str__(self) -> str:
        """The URL without what may be nobody's business."""
        return f"{self.url.scheme}://{self.url.netloc}{self.url.path}"

    @property
    def leaves_in_the_open(self) -> bool:
        """Whether what is sent can be read on its way to another machine."""
        return self.url.scheme == "http" and not is_loopback(str(self.url.hostname))


def is_address(spec: str) -> bool:
    """Whether a reward's name is an address."""
    return "://" in spec


def is_loopback(host: str) -> bool:
    """Whether a host's name means this machine."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def read_address(spec: str) -> Address:
    """Takes an address apart.

    Raises:
        ValueError: what is wrong with it. A secret in it is never repeated.
    """
    where = f"reward={redact(spec)!r}"
    found = _ADDRESS.fullmatch(spec)
    if found is None:
        raise ValueError(f"{where}: an address begins with http:// or https://, its protocol before it: {_EXAMPLE}")
    url = urlsplit(found["url"])
    _check_url(url, where)
    protocol = (found["protocol"] or _spoken_at(url.path, where)).lower()
    if protocol not in WIRES:
        raise ValueError(f"{where}: no protocol is called {protocol!r}; known are {', '.join(WIRES)}")
    if url.path in ("", "/"):
        url = url._replace(path=WIRES[protocol].path)
    return Address(protocol, url._replace(fragment=""), _read_options(url.fragment, where))


def _check_url(url: SplitResult, where: str) -> None:
    if "@" in url.netloc or any(redact(part) != part for part in (url.query, url.fragment)):
        raise ValueError(
            f"{where}: no secrets in an address; put the token into an environment variable and name that: "
            "...#token_env=NAME"
        )
    try:
        port = url.port
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    plain = all(33 <= ord(character) <= 126 for character in url.path + url.query)
    if not url.hostname or port == 0 or not plain:
        raise ValueError(f"{where} is no address; one looks like {_EXAMPLE}")


def _spoken_at(path: str, where: str) -> str:
    """The only protocol that is spoken at such a path."""
    names = [name for name, wire in WIRES.items() if path.endswith(wire.path)]
    if len(names) == 1:
        return names[0]
    several = " or ".join(f"{name}+..." for name in names or WIRES)
    raise ValueError(f"{where}: the path does not tell the protocol; write {several}")


def _read_options(fragment: str, where: str) -> dict[str, Any]:
    """name=value,name=value -> options. A comma in a value is written %2C."""
    kinds = {option.name: option.type for option in fields(RemoteOptions)}
    options: dict[str, Any] = {}
    for part in fragment.split(",") if fragment else ():
        name, equals, text = part.partition("=")
        if name not in kinds:
            raise ValueError(f"{where}: {unknown_option(name, set(kinds))}; known are {', '.join(kinds)}")
        if not equals or name in options:
            raise ValueError(f"{where}: {name} must be given once, as {name}=value")
        options[name] = _value(kinds[name], unquote(text))
        check_type(name, options[name], kinds[name])
    return options


def _value(kind: Any, text: str) -> Any:
    if kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            return text
    return text
