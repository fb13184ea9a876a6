"""An endpoint of OTLP over HTTP for the tests of `otel-inference check`, and how they look at its results."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, HTTPServer


class Endpoint(HTTPServer):
    """Takes OTLP by HTTP, or answers as it is told."""

    status = 200
    ahead = timedelta()

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Answer)

    @property
    def url(self):
        """Where it listens."""
        return f"http://127.0.0.1:{self.server_port}"


class _Answer(BaseHTTPRequestHandler):
    def do_POST(self):
        """Answer with the status of the server."""
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(self.server.status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_HEAD(self):
        """Refuse, as endpoints of OTLP do, and say the time."""
        self.send_response(405)
        self.end_headers()

    def date_time_string(self, timestamp=None):
        """The time, as far ahead as the test says."""
        return format_datetime(datetime.now(UTC) + self.server.ahead, usegmt=True)

    def log_message(self, *_):
        """Print nothing."""


def clean(monkeypatch):
    """Take every variable of OpenTelemetry's away."""
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)


def subjects(results, verdict):
    """What had that verdict."""
    return [result.subject for result in results if result.verdict is verdict]


def one(results, subject):
    """The one result on a subject."""
    (result,) = (result for result in results if result.subject == subject)
    return result
