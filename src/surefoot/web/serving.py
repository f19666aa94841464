"""A server for pages: its address, who may come, and its end."""

import importlib.util
import ipaddress
import secrets
import signal
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from surefoot.arguments import Parser, UsageError

_NEEDED = ("starlette", "jinja2", "uvicorn")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a server listens.

    Attributes:
        host: the address. name: under which people reach it; None: the address itself. port: 0 takes a free one.
    """

    host: str = "127.0.0.1"
    name: str | None = None
    port: int = 0

    @property
    def is_local(self) -> bool:
        """Whether only this machine reaches it."""
        return self.host == "localhost" or ipaddress.ip_address(self.host).is_loopback


def add_place_options(parser: Parser, port: int) -> None:
    """--host, --name, --port and --i-know."""
    parser.add_argument("--host", default="127.0.0.1", metavar="H", help="address to listen at [127.0.0.1]")
    parser.add_argument("--name", metavar="N", help="name under which others reach this machine, for their links")
    parser.add_argument("--port", type=int, default=port, metavar="N", help=f"port; 0 takes a free one [{port}]")
    parser.add_argument("--i-know", action="store_true", help="listen at every address, though nothing is encrypted")


def place_of(host: str, name: str | None, port: int, i_know: bool) -> Place:
    """The place that options name.

    Raises:
        UsageError: it is none, or one that nobody should choose unknowingly.
    """
    place = Place(host, name, port)
    try:
        everywhere = host != "localhost" and ipaddress.ip_address(host).is_unspecified
    except ValueError:
        raise UsageError(f"--host {host}: give the address to listen at as numbers, such as 127.0.0.1") from None
    if everywhere and not i_know:
        raise UsageError(
            f"--host {host} listens to everybody, and nothing is encrypted: who reads along can vote. Give one "
            "address, or keep 127.0.0.1 and let others in by `ssh -L`, or add --i-know"
        )
    if everywhere and name is None:
        raise UsageError(f"--host {host} is no address that others can type: give --name as well, for their links")
    return place


def check_packages() -> None:
    """Says which packages to install where they are missing.

    Raises:
        UsageError: some are.
    """
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise UsageError(f'pages need {", ".join(missing)}: pip install "surefoot[web]"')


def serve(
    make: Callable[[], object], place: Place, holders: Sequence[str], ready: Callable[[dict[str, str]], None]
) -> None:
    """Serves an application until Ctrl-C or SIGTERM.

    Args:
        place: where.
        make: makes the application; who asks is in its requests' `state.who`.
        holders: who gets a link. Links are new at every start, so an old one opens nothing.
        ready: is told each holder's link once the port is ours.

    Raises:
        OSError: the address is taken, or not this machine's.
    """
    import uvicorn

    from surefoot.web.guard import LOOPBACK, Guard, Hosts

    family = socket.AF_INET6 if ":" in place.host else socket.AF_INET
    with socket.create_server((place.host, place.port), family=family) as listening:
        port = listening.getsockname()[1]
        tokens = {secrets.token_urlsafe(32): who for who in holders}
        name = place.name or (f"[{place.host}]" if ":" in place.host else place.host)
        names = [name.lower(), *(LOOPBACK if place.is_local else ())]
        hosts = Hosts(names, any_address=not place.is_local)
        app = Guard(make(), hosts=hosts, tokens=tokens, cookie=f"surefoot-{port}")  # type: ignore[arg-type]
        config = uvicorn.Config(
            app, http="h11", ws="none", loop="asyncio", lifespan="off", log_level="warning", access_log=False,
            server_header=False, proxy_headers=False, limit_concurrency=100, timeout_keep_alive=5,
            timeout_graceful_shutdown=2,
        )  # fmt: skip
        ready({who: f"http://{name}:{port}/?token={token}" for token, who in tokens.items()})
        before = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            uvicorn.Server(config).run(sockets=[listening])  # hears both signals, and afterwards sends them on to us
        finally:
            for number, heard in before.items():
                signal.signal(number, heard)
