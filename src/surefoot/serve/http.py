"""The listening socket of a reward server: who may ask, how much, how long. Each connection carries one request."""

import contextlib
import hmac
import json
import logging
import select
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BufferedReader
from socketserver import TCPServer
from typing import Any

from surefoot.rewards.transport import HEADER_BYTES, BoundedStream, UnusableReplyError
from surefoot.serve.request import RefusalError, read_request
from surefoot.types import Completion, Prompt

logger = logging.getLogger("surefoot")

PATH = "/get_reward"
HEALTH_PATH = "/health"
MAX_REQUEST_BYTES = 64 * 2**20
MAX_CONNECTIONS = 64
RECEIVE_SECONDS = 30.0
"""In which a whole request must have come."""


@dataclass(slots=True)
class Job:
    """The answers of one request, and what became of them."""

    prompts: Sequence[Prompt]
    completions: Sequence[Completion]
    connection: socket.socket
    status: HTTPStatus = HTTPStatus.OK
    reply: Mapping[str, Any] = field(default_factory=dict)
    done: threading.Event = field(default_factory=threading.Event)

    def finish(self, status: HTTPStatus, reply: Mapping[str, Any]) -> None:
        """Lets the waiting connection answer."""
        self.status, self.reply = status, reply
        self.done.set()

    @property
    def abandoned(self) -> bool:
        """Whether whoever asked has closed the connection."""
        poll = select.poll()
        poll.register(self.connection, select.POLLIN)
        try:
            return bool(poll.poll(0)) and self.connection.recv(1, socket.MSG_PEEK) == b""
        except OSError:
            return True


@dataclass(frozen=True, slots=True)
class Gate:
    """Who is let in.

    Attributes:
        hosts: names by which the server may be asked for; None: any.
        token: what requests must carry as `Authorization: Bearer ...`; None: nothing.
    """

    hosts: frozenset[str] | None
    token: str | None


class Listener(ThreadingHTTPServer):
    """The listening socket: at most MAX_CONNECTIONS at a time, whoever comes beyond is sent away for a second."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, host: str, port: int, gate: Gate, ask: Callable[[Job], None]) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.gate, self.ask = gate, ask
        self.connections = 0
        self._lock = threading.Lock()
        super().__init__((host, port), _Handler)

    def server_bind(self) -> None:
        """Binds without asking a name server who we are."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def process_request(self, request: Any, client_address: Any) -> None:
        """Gives the connection a thread."""
        with self._lock:
            full = self.connections >= MAX_CONNECTIONS
            self.connections += not full
        if not full:
            super().process_request(request, client_address)
            return
        with contextlib.suppress(OSError):
            request.sendall(
                b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            )
        self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Handles the connection."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            with self._lock:
                self.connections -= 1

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that broke is no event."""
        logger.debug("a connection broke", exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    """One connection with one request."""

    server: Listener
    protocol_version = "HTTP/1.1"

    def setup(self) -> None:
        """Bounds what is read."""
        super().setup()
        ends = time.monotonic() + RECEIVE_SECONDS
        self.rfile = BufferedReader(BoundedStream(self.connection, ends, MAX_REQUEST_BYTES + HEADER_BYTES))

    def handle(self) -> None:
        """Reads one request, answers it, and lets the other side close first, so that it reads the answer."""
        self.handle_one_request()
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_WR)
            self.connection.settimeout(0.5)
            for _ in range(64):
                if not self.connection.recv(65536):
                    break

    def do_GET(self) -> None:
        """Whether the server is ready."""
        try:
            self._check_sender()
            if self.path != HEALTH_PATH:
                raise RefusalError(HTTPStatus.NOT_FOUND, f"there is GET {HEALTH_PATH} and POST {PATH}")
            self._send(HTTPStatus.OK, {"status": "ready"})
        except RefusalError as refusal:
            self._send(refusal.status, {"error": str(refusal)})

    def do_POST(self) -> None:
        """Scores."""
        try:
            self._check_sender()
            if self.path != PATH:
                raise RefusalError(HTTPStatus.NOT_FOUND, f"there is GET {HEALTH_PATH} and POST {PATH}")
            self._check_token()
            job = Job(*read_request(self._body()), self.connection)
            self.server.ask(job)
            self._send(job.status, job.reply)
        except RefusalError as refusal:
            self._send(refusal.status, {"error": str(refusal)})

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What the standard library refuses, as JSON."""
        self._send(HTTPStatus(code), {"error": message or HTTPStatus(code).phrase})

    def version_string(self) -> str:
        """Our name, without versions."""
        return "surefoot"

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing is logged of who asked for what."""

    def _check_sender(self) -> None:
        """Pages in a browser are no clients: neither those of other sites, nor those whose name leads here."""
        host = self.headers.get("Host", "").rpartition("]")
        name = (host[0] + host[1] + host[2].partition(":")[0]).lower()
        if self.server.gate.hosts is not None and name not in self.server.gate.hosts:
            raise RefusalError(HTTPStatus.MISDIRECTED_REQUEST, "this server is asked for by another name")
        if "Origin" in self.headers:
            raise RefusalError(HTTPStatus.FORBIDDEN, "pages in a browser are not answered")

    def _check_token(self) -> None:
        token, given = self.server.gate.token, self.headers.get("Authorization", "")
        if token is not None and not hmac.compare_digest(given.encode(), f"Bearer {token}".encode()):
            raise RefusalError(HTTPStatus.UNAUTHORIZED, "Authorization: Bearer with the right token is needed")

    def _body(self) -> bytes:
        if self.headers.get_content_type() != "application/json":
            raise RefusalError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "Content-Type must be application/json")
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdecimal()) or "Transfer-Encoding" in self.headers:
            raise RefusalError(HTTPStatus.LENGTH_REQUIRED, "Content-Length is needed")
        if int(length[:12]) > MAX_REQUEST_BYTES or len(length) > 12:
            raise RefusalError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"at most {MAX_REQUEST_BYTES} bytes a request")
        try:
            body = self.rfile.read(int(length))
        except (TimeoutError, UnusableReplyError) as error:
            raise RefusalError(HTTPStatus.REQUEST_TIMEOUT, "the request did not come in time") from error
        if len(body) < int(length):
            raise RefusalError(HTTPStatus.BAD_REQUEST, "the request was cut off")
        return body

    def _send(self, status: HTTPStatus, reply: Mapping[str, Any]) -> None:
        body = json.dumps(reply, allow_nan=False).encode()
        self.send_response(status)
        headers = {"Content-Type": "application/json", "Content-Length": str(len(body)), "Connection": "close",
                   "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}  # fmt: skip
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.connection.settimeout(RECEIVE_SECONDS)
        self.wfile.write(body)
