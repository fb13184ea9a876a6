"""What listens at a port: whether it speaks TLS and is to be trusted, and whether it speaks HTTP/1 or HTTP/2.

The exporters say of all mistakes in these that they timed out, so it is looked at here once an export has failed.
"""

from __future__ import annotations

import socket
import ssl
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

HTTP: Final = "http/protobuf"
GRPC: Final = "grpc"

_HTTP_1_REQUEST: Final = b"HEAD / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
_HTTP_2_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
"""How an HTTP/2 client begins (RFC 9113, 3.4), with a frame of settings that sets nothing."""
_FRAME_HEADER: Final = 9
_SETTINGS: Final = 4
"""The type of the frame with which an HTTP/2 server begins."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """What was found out about who listens."""

    speaks_tls: bool
    distrust: str | None = None
    """Why its certificate is not trusted; `None` where it is, or there is none."""
    protocols: frozenset[str] = frozenset()
    """Of `HTTP` and `GRPC` those whose transport it speaks; empty where it answered neither, or is not trusted."""


def listener(host: str, port: int, timeout_s: float, *, certificates: str | None = None) -> Listener:
    """Find out what listens.

    Args:
        host: Its name or address.
        port: Its port.
        timeout_s: How long to wait for each of at most four answers.
        certificates: File, or folder, of the authorities to trust; default: those of the machine.
    """
    place = (host, port)
    anybody = ssl.create_default_context()
    anybody.check_hostname, anybody.verify_mode = False, ssl.CERT_NONE
    if _refusal(place, timeout_s, anybody) is not None:
        return Listener(speaks_tls=False, protocols=_protocols(place, timeout_s, None))
    try:
        folder = certificates if certificates is not None and Path(certificates).is_dir() else None
        trusted = ssl.create_default_context(capath=folder, cafile=None if folder else certificates)
        trusted.hostname_checks_common_name = False  # as the exporters do (RFC 9525)
    except OSError as error:
        return Listener(speaks_tls=True, distrust=f"{certificates} cannot be read ({error.strerror or error})")
    refusal = _refusal(place, timeout_s, trusted)
    if refusal is not None:
        return Listener(speaks_tls=True, distrust=getattr(refusal, "verify_message", "") or str(refusal))
    return Listener(speaks_tls=True, protocols=_protocols(place, timeout_s, trusted))


@contextmanager
def _connection(place: tuple[str, int], timeout_s: float, context: ssl.SSLContext | None) -> Iterator[socket.socket]:
    """A connection, by TLS if there is a context."""
    with socket.create_connection(place, timeout=timeout_s) as plain:
        if context is None:
            yield plain
        else:
            with context.wrap_socket(plain, server_hostname=place[0]) as secure:
                yield secure


def _refusal(place: tuple[str, int], timeout_s: float, context: ssl.SSLContext) -> OSError | None:
    """Why no TLS connection comes about, or `None` if one does."""
    try:
        with _connection(place, timeout_s, context):
            return None
    except OSError as error:
        return error


def _protocols(place: tuple[str, int], timeout_s: float, context: ssl.SSLContext | None) -> frozenset[str]:
    found = set()
    if _answer(place, timeout_s, context, "http/1.1", _HTTP_1_REQUEST).startswith(b"HTTP/1"):
        found.add(HTTP)
    frame = _answer(place, timeout_s, context, "h2", _HTTP_2_PREFACE)
    if len(frame) == _FRAME_HEADER and frame[3] == _SETTINGS:
        found.add(GRPC)
    return frozenset(found)


def _answer(
    place: tuple[str, int], timeout_s: float, context: ssl.SSLContext | None, protocol: str, greeting: bytes
) -> bytes:
    """The first bytes that come back for a greeting; fewer, or none, where it is not understood."""
    answer = b""
    if context is not None:
        context.set_alpn_protocols([protocol])
    try:
        with _connection(place, timeout_s, context) as connection:
            connection.sendall(greeting)
            while len(answer) < _FRAME_HEADER and (piece := connection.recv(_FRAME_HEADER - len(answer))):
                answer += piece
    except OSError:
        return answer
    return answer
