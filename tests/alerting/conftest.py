"""A receiver on loopback, findings, and sinks that note what they are told."""

from __future__ import annotations

import json
import threading
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event

import pytest

from otel_inference import guard
from otel_inference.alerting.delivery import Alerts
from otel_inference.alerting.retry import Retry
from otel_inference.finding import Finding, FindingChange, FindingEvent, FindingKind, Severity

NOON = datetime(2026, 8, 1, 12, tzinfo=UTC)
AT_ONCE = Retry(first_s=0.001, longest_s=0.001, attempts=3)


class Receiver:
    """An HTTP server that notes what is posted to it, and answers as told."""

    def __init__(self):
        """Begin to listen; it answers 200."""
        self.posts = []
        self.statuses = []
        self.answer = Event()
        self.answer.set()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.posts.append((self.path, dict(self.headers), json.loads(body)))
                receiver.answer.wait(30)
                self.send_response(receiver.statuses.pop(0) if receiver.statuses else 200)
                self.send_header("Location", "/elsewhere")
                self.end_headers()

            def log_message(self, *_):
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.place = f"127.0.0.1:{self._server.server_port}"
        self.url = f"http://{self.place}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    @property
    def documents(self):
        """What was posted, without how."""
        return [document for _, _, document in self.posts]

    def close(self):
        """Answer nobody any more."""
        self.answer.set()
        self._server.shutdown()
        self._server.server_close()


class Listener:
    """A sink that notes what it is told, and fails or hangs as told."""

    def __init__(self, name="listener", *, failing=0, error=OSError, refresh_s=None):
        """Begin untold."""
        self.name = name
        self.failing = failing
        self.error = error
        self.refresh_s = refresh_s
        self.told = []
        self.attempts = 0
        self.asked, self.answer = Event(), Event()
        self.answer.set()

    def send(self, changes):
        """Note the changes."""
        self.attempts += 1
        self.asked.set()
        self.answer.wait(30)
        if self.failing:
            self.failing -= 1
            raise self.error
        self.told += [(change.event.value, change.finding.model) for change in changes]


@pytest.fixture
def receiver():
    """A webhook's receiver."""
    receiver = Receiver()
    yield receiver
    receiver.close()


@pytest.fixture
def change():
    """Gives a change of a finding about a model."""

    def make(event=FindingEvent.OPENED, model="ranker", severity=Severity.WARNING, at=NOON, since=NOON, **options):
        kind = options.pop("kind", FindingKind.LATENCY_SHIFT)
        evidence = options.pop("evidence", {"p99_s": 0.75, "window_s": 60.0})
        finding = Finding(kind, severity, model, since, evidence, "Use a smaller batch.", **options)
        return FindingChange(event=event, finding=finding, at=at)

    return make


@pytest.fixture
def alerts():
    """Gives alerts that try failing sinks three times without waiting, and stops them afterwards."""
    begun = []

    def begin(*sinks, **options):
        begun.append(Alerts(sinks, **{"retry": AT_ONCE, **options}))
        return begun[-1]

    yield begin
    for each in begun:
        for channel in each._channels:
            if isinstance(channel._sink, Listener):
                channel._sink.answer.set()
        each.stop(30)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("otel-inference-alerts")]


@pytest.fixture
def drops():
    """Counts of what was given up, forgotten afterwards."""
    guard._dropped.clear()
    yield guard.drop_counts
    guard._dropped.clear()


@pytest.fixture
def listener():
    """The class of sinks that note what they are told."""
    return Listener
