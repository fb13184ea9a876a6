"""An endpoint that the environment points to."""

from __future__ import annotations

import threading

import pytest
from tests.cli.endpoint import Endpoint, clean


@pytest.fixture
def endpoint(monkeypatch):
    """An endpoint that takes everything, to which the environment points."""
    server = Endpoint()
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    clean(monkeypatch)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", server.url)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
    yield server
    server.shutdown()
    thread.join()
    server.server_close()
