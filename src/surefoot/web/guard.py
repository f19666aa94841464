"""What stands between a page and the world: who may ask, from where, how much, and what a browser may do with it.

A page on loopback is reached by every web site that the same browser shows: by a form that points at it, or by a name
that suddenly resolves to it. So the Host is checked (rebinding), the Origin of what changes anything (forgery), and a
token that only the links hold (everybody else on the machine).
"""

import ipaddress
import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from surefoot.web.rendering import page

MOST_BYTES = 64 * 1024
"""Of a body. A vote with the longest note is far below."""
OPEN_PATHS = ("/static/", "/healthz")
"""Files of this package, and that the server runs: nothing that a token would protect."""
LOOPBACK = ("localhost", "127.0.0.1", "::1")
_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    # not "no-referrer": with that, browsers send "Origin: null" with our own forms too
    "referrer-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}


@dataclass(frozen=True, slots=True)
class Hosts:
    """Names under which the page may be asked for.

    Attributes:
        names: without port, lower case.
        any_address: numbers are names too. A rebinding attack needs a name, so they are harmless where the page is
            meant to be reached from other machines.
    """

    names: Collection[str] = LOOPBACK
    any_address: bool = False

    def allow(self, host: str) -> bool:
        """Whether a Host header, with or without port, is one of them."""
        name = host.rsplit(":", 1)[0] if host.rpartition(":")[2].isdigit() and not host.endswith("]") else host
        name = name.removeprefix("[").removesuffix("]").lower()
        return name in self.names or (self.any_address and _is_address(name))


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


class Guard:
    """ASGI middleware that lets through what may be asked, and says in `scope["state"]["who"]` who asks.

    Args:
        app: what answers.
        hosts: names that are ours.
        tokens: token -> who holds it.
        cookie: the name under which a browser keeps its token; cookies know no ports, so it should name ours.
    """

    def __init__(self, app: ASGIApp, *, hosts: Hosts, tokens: Mapping[str, str], cookie: str) -> None:
        self._app, self._hosts, self._tokens, self._cookie = app, hosts, tokens, cookie

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request, or lets it through."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close"})
            return
        asked = Request(scope, receive)
        body: bytes | None = b""
        answer = self._refused_unread(asked)
        if answer is None:
            body = await _read(asked)
            answer = self._refused_body(asked, body) or self._admitted(asked)
        await (answer or self._app)(scope, _said(body or b""), _with_headers(send))

    # ------------------------------------------------------------------------------------------ refusals
    def _refused_unread(self, asked: Request) -> Response | None:
        if not self._hosts.allow(asked.headers.get("host", "")):
            return _refuse(400, "This page is not served under that name.")
        if asked.method not in ("GET", "HEAD", "POST"):
            return _refuse(405, "Only GET, HEAD and POST are understood.")
        if asked.method == "POST" and not _same_origin(asked):
            return _refuse(403, "Another site asked for this. Nothing was changed.")
        return None

    def _refused_body(self, asked: Request, body: bytes | None) -> Response | None:
        if body is None:
            return _refuse(413, f"More than {MOST_BYTES} bytes were sent. Nothing was changed.")
        kind = asked.headers.get("content-type", "").partition(";")[0].strip()
        if asked.method == "POST" and kind != "application/x-www-form-urlencoded":
            return _refuse(415, "Only a form can be sent here. Nothing was changed.")
        return None

    # ------------------------------------------------------------------------------------------ tokens
    def _admitted(self, asked: Request) -> Response | None:
        """None for who may go on; otherwise what to answer."""
        if asked.url.path.startswith(OPEN_PATHS):
            return None
        token = parse_qs(asked.url.query).get("token", [""])[0]
        if token and asked.method == "GET" and self._who(token) is not None:
            return self._welcome(token)
        who = self._who(asked.cookies.get(self._cookie, ""))
        if who is None:
            return _refuse(403, "Please open this page by its link, the one with a token in it.")
        asked.state.who = who
        return None

    def _who(self, token: str) -> str | None:
        """Compares with every token, in a time that tells nothing."""
        found = None
        for known, who in self._tokens.items():
            if secrets.compare_digest(known.encode(), token.encode("utf-8", "surrogatepass")):
                found = who
        return found

    def _welcome(self, token: str) -> Response:
        """Gives the browser its cookie and leads it to the address without the token.

        By a page that goes on by itself: after a click on a link elsewhere, a browser would not send a strict cookie
        along with a redirect.
        """
        answer = page("welcome.html")
        answer.set_cookie(self._cookie, token, httponly=True, samesite="strict", path="/")
        return answer


def _same_origin(asked: Request) -> bool:
    """What changes something comes from our own pages: by what the browser says of the site, or else of the origin."""
    site = asked.headers.get("sec-fetch-site")
    if site is not None:
        return site in ("same-origin", "none")
    scheme, _, origin = asked.headers.get("origin", "").partition("://")
    return scheme in ("http", "https") and origin == asked.headers.get("host")


async def _read(asked: Request) -> bytes | None:
    """The body; None where it is too long, found out without taking it in."""
    length = asked.headers.get("content-length", "0")
    if not length.isdigit() or int(length) > MOST_BYTES:
        return None
    body = b""
    async for part in asked.stream():
        body += part
        if len(body) > MOST_BYTES:
            return None
    return body


def _said(body: bytes) -> Receive:
    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    return receive


def _refuse(status: int, sentence: str) -> Response:
    return PlainTextResponse(f"{sentence}\n", status)


def _with_headers(send: Send) -> Send:
    """Adds to every answer what a browser must not do with it; pages are kept nowhere."""

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            given = {name for name, _ in message["headers"]}
            extra = _HEADERS | ({} if b"cache-control" in given else {"cache-control": "no-store"})
            message["headers"] += [(name.encode(), value.encode()) for name, value in extra.items()]
        await send(message)

    return sending
