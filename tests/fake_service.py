"""A reward service on loopback that speaks and misbehaves as it is told. `from fake_service import Service, ok`."""

import json
import socket
import socketserver
import struct
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Behaviour = Callable[[socket.socket, threading.Event], None]
"""Does something with a connection whose request was read; the event is set when the service closes."""


@dataclass(frozen=True)
class Request:
    """What came: `number` counts from 0 in the order of arrival."""

    number: int
    path: str
    headers: Mapping[str, str]
    body: Any


class Service:
    """Answers every request as `behave` says. Use it as a context manager.

    Attributes:
        requests: what came, in order of arrival.
        url: http://127.0.0.1:port.
    """

    def __init__(self, behave: Callable[[Request], Behaviour]) -> None:
        self.requests: list[Request] = []
        self.behave = behave
        self.closing = threading.Event()
        self._lock = threading.Lock()
        service = self

        class Handler(socketserver.StreamRequestHandler):
            timeout = 10

            def handle(self) -> None:
                request = service._read(self.rfile)
                if request is not None:
                    service.behave(request)(self.connection, service.closing)

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = True
            allow_reuse_address = True
            request_queue_size = 64

            def handle_error(self, request: Any, client_address: Any) -> None:
                pass  # clients break connections off on purpose

        self._server = Server(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)

    def _read(self, stream: Any) -> Request | None:
        first = stream.readline().decode()
        if not first:
            return None
        headers = {}
        while line := stream.readline().decode().strip():
            name, _, value = line.partition(": ")
            headers[name.lower()] = value
        body = json.loads(stream.read(int(headers["content-length"])))
        with self._lock:
            request = Request(len(self.requests), first.split()[1], headers, body)
            self.requests.append(request)
        return request

    def __enter__(self) -> "Service":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


# ------------------------------------------------------------------------------------------ behaviours
def raw(*parts: bytes, pause: float = 0.0) -> Behaviour:
    """Sends the parts as they are, with a pause after each, and closes."""

    def behave(connection: socket.socket, closing: threading.Event) -> None:
        for part in parts:
            connection.sendall(part)
            if pause and closing.wait(pause):
                return

    return behave


def http(
    status: int, body: bytes, headers: Mapping[str, str] | None = None, length: int | None = None
) -> tuple[bytes, bytes]:
    """Head and body of a reply."""
    head = [f"HTTP/1.1 {status} Whatever", f"Content-Length: {len(body) if length is None else length}"]
    head += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return ("\r\n".join(head) + "\r\n\r\n").encode(), body


def ok(reply: Any) -> Behaviour:
    """200 with an object as JSON."""
    return raw(*http(200, json.dumps(reply).encode()))


def said(text: str | bytes, status: int = 200, **headers: str) -> Behaviour:
    """A reply with exactly this body."""
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return raw(*http(status, text if isinstance(text, bytes) else text.encode(), names))


def hang(connection: socket.socket, closing: threading.Event) -> None:
    """Never answers."""
    closing.wait(30)


def reset(connection: socket.socket, closing: threading.Event) -> None:
    """Breaks the connection off with a reset."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def drip(reply: Any, pause: float = 0.02) -> Behaviour:
    """A good reply, a byte at a time, status line included."""
    whole = b"".join(http(200, json.dumps(reply).encode()))
    return raw(*(whole[i : i + 1] for i in range(len(whole))), pause=pause)


def chunked(*chunks: bytes, end: bool = True) -> Behaviour:
    """200 with a chunked body."""
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    return raw(head, *(b"%x\r\n%s\r\n" % (len(c), c) for c in chunks), b"0\r\n\r\n" if end else b"")


def flood(connection: socket.socket, closing: threading.Event) -> None:
    """A body without length and without end."""
    connection.sendall(b'HTTP/1.1 200 OK\r\n\r\n{"rewards": [')
    while not closing.is_set():
        connection.sendall(b"1.0, " * 4096)


# ------------------------------------------------------------------------------------------ an honest service
def score_of(text: str) -> float:
    """What every honest service here says of a text: a function of its letters alone."""
    return (sum(map(ord, text)) % 1009) / 8 - 50


def rewards(texts: Sequence[str]) -> Behaviour:
    """An honest OpenRLHF reply."""
    return ok({"rewards": [score_of(text) for text in texts]})


def honest(request: Request) -> Behaviour:
    """An honest OpenRLHF service."""
    return rewards(request.body["query"])


def free_port() -> int:
    """A port of loopback where nobody listens."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
