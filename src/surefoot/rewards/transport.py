"""One HTTP POST, bounded in time and size, over the standard library.

Redirects are not followed, proxies of the environment are not used, certificates are verified, nothing is kept
between two requests. Whatever arrives is read through a `BoundedStream`, so that a server that sends a byte a second,
or without end, holds nobody up.
"""

import contextlib
import http.client
import io
import os
import socket
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult

HEADER_BYTES = 2**16
"""What may come before a body."""


class NoReplyError(Exception):
    """No whole reply came: asking again may help."""


class UnusableReplyError(Exception):
    """The reply, or the server, is of a kind that asking again does not change."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What a server answered. Header names are in small letters; `end_marked`: a body cut off would have shown."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    end_marked: bool


class BoundedStream(io.RawIOBase):
    """What arrives at a socket, until a moment of `time.monotonic()` and up to a number of bytes.

    Raises:
        TimeoutError: that moment has passed. UnusableReplyError: more has arrived.
    """

    def __init__(self, sock: socket.socket, ends: float, limit: int) -> None:
        self._socket = sock
        self._ends = ends
        self._left = limit

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Waits for the next bytes."""
        self._socket.settimeout(seconds_until(self._ends))
        count = self._socket.recv_into(buffer)
        self._left -= count
        if self._left < 0:
            raise UnusableReplyError("more came than is allowed")
        return count

    def makefile(self, _mode: str) -> io.BufferedReader:
        """What `http.client` asks a socket for."""
        return io.BufferedReader(self)


def post(
    url: SplitResult, body: bytes, headers: Mapping[str, str], *, connect_timeout: float, ends: float, limit: int
) -> Reply:
    """Sends `body` and waits for the whole reply.

    Args:
        url: http or https; its fragment is not sent.
        body: sent as it is.
        headers: beside Host, Content-Length and the like.
        connect_timeout: seconds that connecting may take, for each address of the host.
        ends: moment of `time.monotonic()` at which the whole reply must be there.
        limit: bytes of the largest body that is read.

    Raises:
        NoReplyError: not reached, too late, or cut off. UnusableReplyError: too large, or the certificate is wrong.
    """
    try:
        return _exchange(url, body, headers, connect_timeout, ends, limit)
    except ssl.SSLCertVerificationError as error:
        raise UnusableReplyError(f"its certificate is not accepted: {error.verify_message}") from error
    except TimeoutError as error:
        raise NoReplyError("no whole reply in time") from error
    except socket.gaierror as error:
        raise NoReplyError(f"its name cannot be resolved: {error.strerror}") from error
    except (OSError, http.client.HTTPException, ValueError) as error:  # ValueError: a chunk of negative size
        raise NoReplyError(f"{type(error).__name__}: {error}") from error


def seconds_until(ends: float) -> float:
    """Seconds left until a moment of `time.monotonic()`.

    Raises:
        TimeoutError: none is left.
    """
    left = ends - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def token_from(variable: str | None) -> str | None:
    """The secret in an environment variable; None where no variable is named.

    Raises:
        ValueError: it is not set, or cannot stand in a header. The message names the variable, never the secret.
    """
    if variable is None:
        return None
    token = os.environ.get(variable, "")
    if not token or not token.isascii() or not all(33 <= ord(character) <= 126 for character in token):
        found = "is empty or not set" if not token else "holds a blank or a character that no header can carry"
        raise ValueError(f"token_env={variable!r}: that environment variable {found}")
    return token


def _exchange(
    url: SplitResult, body: bytes, headers: Mapping[str, str], connect_timeout: float, ends: float, limit: int
) -> Reply:
    make = http.client.HTTPSConnection if url.scheme == "https" else http.client.HTTPConnection
    connection = make(str(url.hostname), url.port, timeout=min(connect_timeout, seconds_until(ends)))
    try:
        connection.connect()
        connection.sock.settimeout(seconds_until(ends))
        with contextlib.suppress(BrokenPipeError):  # it may have answered before it had read everything
            connection.request("POST", url._replace(scheme="", netloc="", fragment="").geturl(), body, headers)
        stream: Any = BoundedStream(connection.sock, ends, limit + HEADER_BYTES)
        response = http.client.HTTPResponse(stream, method="POST")
        response.begin()
        end_marked = response.chunked or response.length is not None
        if (response.length or 0) > limit:
            raise UnusableReplyError(f"its reply of {response.length} bytes is larger than the limit of {limit}")
        content = response.read(limit + 1)
        if len(content) > limit:
            raise UnusableReplyError(f"its reply is larger than the limit of {limit} bytes")
        if response.length:
            raise NoReplyError(f"its reply was cut off {response.length} bytes before its end")
        found = {name.lower(): value for name, value in response.getheaders()}
        return Reply(response.status, found, content, end_marked)
    finally:
        connection.close()
