"""Posting JSON over HTTP."""

from __future__ import annotations

import http.client
import logging
import socket

import pytest
from opentelemetry.instrumentation.utils import is_http_instrumentation_enabled, is_instrumentation_enabled

from otel_inference.alerting.endpoint import Endpoint
from otel_inference.alerting.sink import DeliveryError
from otel_inference.errors import ConfigError


@pytest.fixture
def endpoint(receiver):
    """The receiver, with secrets wherever an address can have them."""
    return Endpoint.of(f"http://me:s3cret@{receiver.place}/s3cret?k=s3cret", timeout_s=5.0, headers={"X-Key": "s3cret"})


@pytest.fixture
def nobody():
    """An address where nobody listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"http://me:s3cret@127.0.0.1:{bound.getsockname()[1]}/s3cret?k=s3cret"


def test_posts_json(endpoint, receiver):
    """Path, query, headers and user arrive as they were given."""
    endpoint.post({"a": 1})

    ((path, headers, document),) = receiver.posts
    assert (path, document) == ("/s3cret?k=s3cret", {"a": 1})
    assert (headers["X-Key"], headers["Content-Type"]) == ("s3cret", "application/json")
    assert headers["Authorization"] == "Basic bWU6czNjcmV0"
    assert headers["Host"] == receiver.place


def test_writes_json_that_every_reader_reads(endpoint, receiver):
    """Numbers that JSON has no word for become null, and foreign types become text."""
    endpoint.post({"numbers": [float("nan"), float("inf"), 1.5], "path": endpoint.__class__})

    assert receiver.documents[0]["numbers"] == [None, None, 1.5]
    assert isinstance(receiver.documents[0]["path"], str)


@pytest.mark.parametrize(
    ("status", "is_final"),
    [(302, True), (308, True), (400, True), (404, True), (408, False), (429, False), (503, False)],
)
def test_tells_refusal_from_trouble(endpoint, receiver, status, is_final):
    """An answer that another try cannot change is final; a redirect is one, and is not followed."""
    receiver.statuses = [status]
    with pytest.raises(DeliveryError) as refusal:
        endpoint.post({})

    assert str(refusal.value) == f"{receiver.url}: status {status}"
    assert refusal.value.is_final is is_final
    assert len(receiver.posts) == 1


def test_nobody_there(nobody):
    """What cannot be reached may be reached later; the error names class and origin, and carries no other error."""
    with pytest.raises(DeliveryError, match=r"^http://127\.0\.0\.1:\d+: ConnectionRefusedError$") as refusal:
        Endpoint.of(nobody, timeout_s=5.0, headers=None).post({})

    assert not refusal.value.is_final
    assert refusal.value.__context__ is None


def test_gives_up_on_a_server_that_does_not_answer(receiver):
    """The timeout is kept while waiting for the answer too."""
    receiver.answer.clear()
    with pytest.raises(DeliveryError, match="TimeoutError"):
        Endpoint.of(receiver.url, timeout_s=0.05, headers=None).post({})


def test_nothing_of_a_secret_is_logged(endpoint, nobody, receiver, caplog):
    """Not even at the lowest level does any logger write a secret, in success or in failure."""
    caplog.set_level(logging.DEBUG)
    receiver.statuses = [200, 500]
    endpoint.post({})
    for each in (endpoint, Endpoint.of(nobody, timeout_s=5.0, headers={"X-Key": "s3cret"})):
        with pytest.raises(DeliveryError):
            each.post({})

    assert "s3cret" not in caplog.text
    assert "s3cret" not in repr(endpoint)


def test_instrumentations_are_told_to_look_away(endpoint, monkeypatch):
    """While it connects, instrumentations of HTTP clients are off; afterwards they are on again."""
    seen = []
    connect = http.client.HTTPConnection.connect

    def noting(connection):
        seen.append((is_instrumentation_enabled(), is_http_instrumentation_enabled()))
        connect(connection)

    monkeypatch.setattr(http.client.HTTPConnection, "connect", noting)
    endpoint.post({})

    assert seen == [(False, False)]
    assert is_http_instrumentation_enabled()


def test_goes_through_the_environments_proxy(receiver, monkeypatch):
    """A proxy of the environment is asked for the whole address."""
    monkeypatch.setenv("http_proxy", receiver.url)
    Endpoint.of("http://alerts.invalid/hook", timeout_s=5.0, headers=None).post({})

    assert receiver.posts[0][0] == "http://alerts.invalid/hook"


@pytest.mark.parametrize("timeout_s", [0, -1, 61, float("nan"), True, "5"])
def test_refuses_timeouts_that_mean_nothing(timeout_s):
    """A timeout is more than 0 s and at most a minute."""
    with pytest.raises(ConfigError, match=r"timeout_s is .*; expected more than 0 and at most 60 seconds"):
        Endpoint.of("http://host", timeout_s=timeout_s, headers=None)


@pytest.mark.parametrize(
    "headers", [{"X Key": "s3cret"}, {"X-Key": "s3cret\r\nHost: evil"}, {"X-Key": 3}, {"": "s3cret"}]
)
def test_refuses_headers_that_cannot_be_sent(headers):
    """A header is refused by name when it is made, not by a library's message that shows it when it is sent."""
    with pytest.raises(ConfigError, match=r"header '.*' cannot be sent") as refusal:
        Endpoint.of("http://host", timeout_s=1.0, headers=headers)

    assert "s3cret" not in str(refusal.value)
