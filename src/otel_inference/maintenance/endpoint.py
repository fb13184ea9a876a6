"""Where a receiver listens: HTTP, one path, a token, and no request that holds up another.

Each request has a thread and a few seconds. Of those that are open at once there is a bound, beyond which the oldest
has to go: one that is meant well is over within milliseconds, so whoever connects and says nothing makes room.
"""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, HTTPServer
from socket import SHUT_RDWR
from threading import Lock, Thread
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from otel_inference import guard

if TYPE_CHECKING:
    from collections.abc import Callable
    from socket import socket

THREAD_NAME: Final = "otel-inference-receiver"
PATH: Final = "/alerts"
MAX_BODY_BYTES: Final = 1 << 20
MAX_REQUESTS: Final = 16
"""Requests that are open at once."""

_REQUEST_S: Final = 5.0
"""How long a request may take, from its connection to its end."""
_POLL_S: Final = 0.5
"""How soon a stop is noticed, a request that is late, and an alert that was not repeated."""


class Endpoint(HTTPServer):
    """Listens for one receiver.

    Args:
        place: Address and port.
        allows: Whether what a request shows as `Authorization` will do.
        take: Takes a document in and says how much of it mattered; raises `ValueError` where it is none,
            `TimeoutError` where it cannot now.
            Called by several threads.
    """

    request_queue_size = 128

    def __init__(
        self, place: tuple[str, int], *, allows: Callable[[str | None], bool], take: Callable[[Any], int]
    ) -> None:
        self.allows = allows
        self.take = take
        self.timeout = _POLL_S
        self._open: dict[socket, float] = {}
        """When each request has to be over, in the order in which they came."""
        self._lock = Lock()
        super().__init__(place, _Handler)

    def server_bind(self) -> None:
        """Without the standard library's look-up of the host's name, which may take seconds."""
        super(HTTPServer, self).server_bind()
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def server_close(self) -> None:
        """Listen no longer, and end what is open."""
        super().server_close()
        self._end(list(self._open))

    def process_request(self, request: Any, client_address: Any) -> None:
        """Handle a request on a thread of its own, and end the oldest where there are too many."""
        with self._lock:
            oldest = list(self._open)[: len(self._open) + 1 - MAX_REQUESTS]
            self._open[request] = monotonic() + _REQUEST_S
        self._end(oldest)
        arguments = (request, client_address)
        Thread(target=self._handle, args=arguments, name=f"{THREAD_NAME}-request", daemon=True).start()

    def shutdown_request(self, request: Any) -> None:
        """See the standard library."""
        with self._lock:
            self._open.pop(request, None)
        super().shutdown_request(request)

    def end_late(self) -> None:
        """End requests whose time is over, however busily they send."""
        now_s = monotonic()
        with self._lock:
            late = [request for request, due_s in self._open.items() if due_s < now_s]
        self._end(late)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Count what is ours; a client that went away is not, and nothing is printed."""
        del request, client_address
        if not isinstance(sys.exc_info()[1], OSError):
            guard.failed("receiver")

    def _handle(self, request: Any, client_address: Any) -> None:
        try:
            self.finish_request(request, client_address)
        except Exception:  # noqa: BLE001 - the thread is ours, and there is nobody to tell
            self.handle_error(request, client_address)
        finally:
            self.shutdown_request(request)

    def _end(self, requests: list[socket]) -> None:
        """Make whoever reads from or writes to these find that they are over."""
        with self._lock:  # none is closed meanwhile: its number may be that of another file by then
            for request in requests:
                if request in self._open:
                    with suppress(OSError):
                        request.shutdown(SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    """One request."""

    timeout = _REQUEST_S
    server_version = "otel-inference"
    sys_version = ""
    server: Endpoint

    def do_POST(self) -> None:
        """Answer 200 with what was taken; else 401, 404, 411, 413, 400, 408 or 503, having changed nothing."""
        self.close_connection = True
        if not self.server.allows(self.headers.get("Authorization")):
            self._answer(HTTPStatus.UNAUTHORIZED)
            return
        if self.path != PATH:
            self._answer(HTTPStatus.NOT_FOUND)
            return
        body = self._body()
        if isinstance(body, HTTPStatus):
            self._answer(body)
            return
        try:
            taken = self.server.take(json.loads(body))
        except (ValueError, RecursionError):
            self._answer(HTTPStatus.BAD_REQUEST)
            return
        except TimeoutError:
            self._answer(HTTPStatus.SERVICE_UNAVAILABLE)
            return
        self._answer(HTTPStatus.OK, taken=taken)

    def _body(self) -> bytes | HTTPStatus:
        """What was sent, or the status to answer with."""
        length = self.headers.get("Content-Length")
        if length is None:
            return HTTPStatus.LENGTH_REQUIRED
        if not (length.isascii() and length.isdigit()):
            return HTTPStatus.BAD_REQUEST
        if len(length) > len(str(MAX_BODY_BYTES)) or int(length) > MAX_BODY_BYTES:
            return HTTPStatus.REQUEST_ENTITY_TOO_LARGE
        body = self.rfile.read(int(length))
        return body if len(body) == int(length) else HTTPStatus.REQUEST_TIMEOUT

    def _answer(self, status: HTTPStatus, **content: int) -> None:
        body = json.dumps({"status": status.phrase, **content}).encode()
        self.send_response(status)
        if status is HTTPStatus.UNAUTHORIZED:
            self.send_header("WWW-Authenticate", "Bearer")
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name that http.server gives it
        """Print nothing: standard error is the host's."""
