"""A fleet's alerts as findings: what is taken, from whom, and for how long."""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime

import pytest

from otel_inference import guard
from otel_inference.errors import ConfigError
from otel_inference.finding import FindingKind, Severity
from otel_inference.maintenance import endpoint
from otel_inference.maintenance import receiver as module
from otel_inference.maintenance.endpoint import MAX_BODY_BYTES
from otel_inference.maintenance.receiver import Receiver, notices_in, with_fleet

TOKEN = "correct horse battery staple"


def alert(status="firing", fingerprint="f1", **labels):
    """One alert of a notification, as Alertmanager 0.25 writes it."""
    given = {"alertname": "InferenceErrorBudgetBurn", "scope": "fleet", "kind": "slo_burn", "severity": "critical"}
    return {
        "status": status,
        "labels": {**given, "job": "ranking", "inference_model": "ranker", "subject": "errors", **labels},
        "annotations": {"summary": "20% of calls fail", "advice": "Look at the traces."},
        "startsAt": "2026-08-01T12:00:00.123456789Z",
        "endsAt": "0001-01-01T00:00:00Z",
        "fingerprint": fingerprint,
    }


def notification(*alerts):
    """What Alertmanager posts."""
    return {"version": "4", "status": "firing", "receiver": "otel-inference", "alerts": list(alerts)}


class Clock:
    """A clock that the test sets."""

    now = 0.0

    def __call__(self):
        """The time."""
        return self.now


@pytest.fixture
def told():
    """What the maintainer was told, in order."""
    return []


@pytest.fixture
def idle(told):
    """A receiver that does not listen, and its clock."""
    clock = Clock()
    return Receiver(told.append, token=TOKEN, hold_s=100.0, clock=clock), clock


@pytest.fixture
def listening(told, monkeypatch):
    """A receiver that listens on a free port of the loopback address."""
    monkeypatch.setattr(endpoint, "_POLL_S", 0.02)
    receiver = Receiver(told.append, token=TOKEN, port=0)
    receiver.start()
    yield receiver
    receiver.stop()
    assert endpoint.THREAD_NAME not in {thread.name for thread in threading.enumerate()}


def post(receiver, body, *, token=TOKEN, path="/alerts", method="POST", headers=None):
    """Status and content of the answer to one request."""
    place = receiver.url.removeprefix("http://").partition("/")[0]
    connection = http.client.HTTPConnection(place, timeout=5)
    try:
        given = {} if token is None else {"Authorization": f"Bearer {token}"}
        connection.request(method, path, body, {**given, **(headers or {})})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def test_an_alert_over_the_fleet_becomes_a_finding():
    """Labels and annotations of an alert give kind, severity, model, subject, begin, evidence and advice."""
    (notice,) = notices_in(notification(alert()))
    finding = notice.finding
    assert (finding.kind, finding.severity, finding.model) == (FindingKind.SLO_BURN, Severity.CRITICAL, "ranker")
    assert finding.subject == "errors"
    assert finding.since == datetime(2026, 8, 1, 12, 0, 0, 123456, tzinfo=UTC)
    assert finding.advice == "Look at the traces."
    assert finding.evidence["service"] == "ranking"
    assert finding.evidence["alert"] == "InferenceErrorBudgetBurn"


def test_what_is_not_over_a_fleet_is_passed_over():
    """Alerts without `scope: fleet`, and those of no kind of finding, set nothing off."""
    strange = [alert(scope="process"), alert(kind="unheard_of"), alert(kind="")]
    assert list(notices_in(notification(*strange))) == []


def test_a_strange_alert_still_becomes_a_finding_with_defaults():
    """An unknown severity, no begin and no annotations give a warning that begins now."""
    bare = {"labels": {"scope": "fleet", "kind": "stall", "severity": "page"}, "startsAt": "noon"}
    (notice,) = notices_in({"alerts": [bare]})
    assert notice.finding.severity is Severity.WARNING
    assert notice.finding.model is None
    assert (datetime.now(UTC) - notice.finding.since).total_seconds() < 60


@pytest.mark.parametrize("document", [None, 1, [], {}, {"alerts": 1}, {"alerts": ["x"]}])
def test_what_is_no_notification_is_refused(idle, document):
    """Anything but a notification is a `ValueError` and changes nothing."""
    receiver, _ = idle
    with pytest.raises(ValueError, match="expected a notification"):
        receiver.take(document)
    assert receiver.findings() == ()


def test_it_tells_when_an_alert_opens_and_when_it_is_over(idle, told):
    """A firing alert is told once, its repetition is not, and its end is."""
    receiver, _ = idle
    assert receiver.take(notification(alert())) == 1
    assert receiver.take(notification(alert())) == 1
    assert [len(findings) for findings in told] == [1]
    receiver.take(notification(alert("resolved")))
    assert [len(findings) for findings in told] == [1, 0]


def test_two_alerts_of_one_key_are_one_finding_with_the_worse_severity(idle):
    """Windows of a burn-rate rule that fire together are one finding, for as long as one of them does."""
    receiver, _ = idle
    receiver.take(notification(alert(fingerprint="a", severity="warning"), alert(fingerprint="b")))
    assert [finding.severity for finding in receiver.findings()] == [Severity.CRITICAL]
    receiver.take(notification(alert("resolved", fingerprint="b")))
    assert [finding.severity for finding in receiver.findings()] == [Severity.WARNING]


def test_an_alert_that_is_not_repeated_is_over(idle, told):
    """When its end was lost, a finding closes after `hold_s`, and that is told."""
    receiver, clock = idle
    receiver.take(notification(alert(), alert(fingerprint="f2", inference_model="writer")))
    clock.now = 60.0
    receiver.take(notification(alert()))
    clock.now = 120.0
    assert [finding.model for finding in receiver.findings()] == ["ranker"]
    receiver.forget_unrepeated()
    assert [[finding.model for finding in findings] for findings in told] == [["ranker", "writer"], ["ranker"]]


def test_open_findings_are_bounded(idle, monkeypatch):
    """Beyond the bound an alert is given up and counted; those that are open stay."""
    monkeypatch.setattr(module, "MAX_OPEN", 2)
    receiver, _ = idle
    before = guard.drop_counts().get("receiver", 0)
    receiver.take(notification(*(alert(fingerprint=name, inference_model=name) for name in "abc")))
    assert [finding.model for finding in receiver.findings()] == ["a", "b"]
    assert guard.drop_counts()["receiver"] == before + 1


def test_long_texts_are_cut():
    """No text of an alert is longer in a finding than 500 characters."""
    (notice,) = notices_in(notification(alert(inference_model="x" * 10_000)))
    assert len(notice.finding.model) == 500


def test_a_notification_is_taken_over_http(listening, told):
    """A post with the token is answered 200, and the callback hears of the finding on the receiver's thread."""
    status, body = post(listening, json.dumps(notification(alert())))
    assert (status, json.loads(body)) == (200, {"status": "OK", "taken": 1})
    assert [finding.key for finding in told[0]] == ["slo_burn:errors:ranker"]
    assert listening.findings() == told[0]


@pytest.mark.parametrize("token", [None, "", "wrong", TOKEN[:-1], "Bearer", "\xe9"])
def test_nothing_is_taken_without_the_token(listening, token):
    """A wrong or missing token is answered 401, and nothing is open after it."""
    status, _ = post(listening, json.dumps(notification(alert())), token=token)
    assert status == 401
    assert listening.findings() == ()


@pytest.mark.parametrize(
    ("body", "options", "expected"),
    [
        ("{", {}, 400),
        ("[" * 100_000, {}, 400),
        ("{}", {"path": "/elsewhere"}, 404),
        (None, {"method": "GET"}, 501),
        (None, {"headers": {"Content-Length": str(MAX_BODY_BYTES + 1)}}, 413),
        (None, {"headers": {"Content-Length": "9" * 10_000}}, 413),
        (None, {"headers": {"Content-Length": "-1"}}, 400),
        (iter([b"{}"]), {"headers": {"Transfer-Encoding": "chunked"}}, 411),
    ],
)
def test_bad_requests_are_answered_and_it_goes_on(listening, capfd, body, options, expected):
    """Each kind of bad request has its status, prints nothing, and the next good one is taken."""
    assert post(listening, body, **options)[0] == expected
    assert post(listening, json.dumps(notification(alert())))[0] == 200
    assert capfd.readouterr().err == ""


def connected(receiver):
    """A connection on which nothing has been sent."""
    host, port = receiver.url.removeprefix("http://").partition("/")[0].split(":")
    return socket.create_connection((host, int(port)), timeout=10)


def test_a_client_that_promises_a_body_holds_up_nobody(listening):
    """While a client with the token has sent half of its request, others are served."""
    with connected(listening) as client:
        client.sendall(f"POST /alerts HTTP/1.1\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: 9\r\n\r\n".encode())
        assert post(listening, json.dumps(notification(alert())))[0] == 200


@pytest.mark.parametrize(
    "begun",
    [
        b"POST /alerts HTTP/1.1\r\nX: ",
        f"POST /alerts HTTP/1.1\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: 99999\r\n\r\n".encode(),
    ],
    ids=["head", "body"],
)
def test_a_client_that_sends_without_an_end_is_sent_away(listening, monkeypatch, begun):
    """A request that is not over in its time is ended, though each of its pieces comes soon."""
    monkeypatch.setattr(endpoint, "_REQUEST_S", 0.3)

    def dribble(client):
        client.sendall(begun)
        until_s = time.monotonic() + 30
        while time.monotonic() < until_s:
            client.sendall(b"x")
            time.sleep(0.02)

    with connected(listening) as client, pytest.raises(OSError, match=r"Broken pipe|reset"):
        dribble(client)


def test_clients_that_say_nothing_make_room(listening, monkeypatch):
    """However many connect and wait, the next good request is served, and the oldest of them is sent away at once."""
    monkeypatch.setattr(endpoint, "_REQUEST_S", 60.0)
    monkeypatch.setattr(endpoint._Handler, "timeout", 60.0)
    with ExitStack() as stack:
        idle = [stack.enter_context(connected(listening)) for _ in range(endpoint.MAX_REQUESTS + 1)]
        assert post(listening, json.dumps(notification(alert())))[0] == 200
        assert idle[0].recv(1) == b""


def test_stopping_ends_what_is_open(listening, monkeypatch):
    """A client that has said nothing yet finds its connection closed, and no thread waits for it."""
    monkeypatch.setattr(endpoint._Handler, "timeout", 60.0)
    with connected(listening) as client:
        assert post(listening, json.dumps(notification(alert())))[0] == 200  # came later: the other one is open by now
        listening.stop()
        assert client.recv(1) == b""


def test_starts_again_where_it_was(listening):
    """A port that was just in use is free again, as it has to be where a process is restarted."""
    port = int(listening.url.removeprefix("http://").partition("/")[0].split(":")[1])
    again = Receiver(lambda _: None, token=TOKEN, port=port)
    with connected(listening):  # and does not close when it is closed
        assert post(listening, json.dumps(notification(alert())))[0] == 200
        listening.stop()
        again.start()
        try:
            assert post(again, json.dumps(notification(alert())))[0] == 200
        finally:
            again.stop()


def test_many_at_once_are_all_served(listening, told):
    """Fifty clients at the same time are each answered 200, and one alert that they all tell of is told once."""
    body = json.dumps(notification(alert()))
    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(lambda _: post(listening, body)[0], range(50)))
    assert answers == [200] * 50
    assert len(told) == 1


def test_a_callback_that_hangs_stops_neither_refusals_nor_the_receiver(monkeypatch):
    """While a callback hangs, strangers are still refused, and `stop` comes back."""
    hanging, released = threading.Event(), threading.Event()

    def hang(_findings):
        hanging.set()
        released.wait(30)

    receiver = Receiver(hang, token=TOKEN, port=0)
    receiver.start()
    try:
        with connected(receiver) as client:
            body = json.dumps(notification(alert()))
            head = f"POST /alerts HTTP/1.1\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: {len(body)}\r\n\r\n"
            client.sendall((head + body).encode())
            assert hanging.wait(10)
            assert post(receiver, "{}", token="wrong")[0] == 401
            receiver.stop()
            assert receiver.url is None
    finally:
        released.set()


def test_a_callback_that_hangs_keeps_no_more_than_its_own_thread(monkeypatch):
    """Notifications that come meanwhile are answered 503, so that Alertmanager sends them again, and are over."""
    monkeypatch.setattr(module, "_TURN_S", 0.05)
    hanging, released = threading.Event(), threading.Event()
    receiver = Receiver(lambda _: hanging.set() or released.wait(30), token=TOKEN, port=0)
    receiver.start()
    try:
        with ThreadPoolExecutor(1) as pool:
            first = pool.submit(post, receiver, json.dumps(notification(alert())))
            assert hanging.wait(10)
            others = [post(receiver, json.dumps(notification(alert(fingerprint="f2"))))[0] for _ in range(3)]
            released.set()
            assert (first.result(10)[0], others) == (200, [503] * 3)
        assert post(receiver, json.dumps(notification(alert(fingerprint="f2"))))[0] == 200
    finally:
        released.set()
        receiver.stop()


def test_a_request_that_is_over_is_not_ended_again(listening):
    """Its file is closed by then, and the number may be that of a file of the host's."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        listening._server._end([ours])  # was never one of those that are open
        theirs.sendall(b"x")
        assert ours.recv(1) == b"x"


def test_half_characters_are_replaced():
    """What JSON can say and UTF-8 cannot write does not reach spans and journals."""
    (notice,) = notices_in(json.loads(json.dumps(notification(alert(inference_model="rank\ud800er")))))
    assert notice.finding.model == "rank?er"


def test_a_callback_that_raises_changes_nothing_for_alertmanager():
    """The notification is taken all the same, and the failure is counted."""

    def failing(_findings):
        raise LookupError

    before = guard.error_counts().get("receiver", 0)
    receiver = Receiver(failing, token=TOKEN)
    try:
        assert receiver.take(notification(alert())) == 1
        assert len(receiver.findings()) == 1
        assert guard.error_counts()["receiver"] == before + 1
    finally:
        guard._errors.pop("receiver", None)


def test_starting_and_stopping_again_does_nothing(told):
    """Start and stop are idempotent, and what was open is forgotten."""
    receiver = Receiver(told.append, token=TOKEN, port=0)
    receiver.start()
    url = receiver.url
    receiver.start()
    assert receiver.url == url
    receiver.take(notification(alert()))
    receiver.stop()
    receiver.stop()
    assert (receiver.url, receiver.findings()) == (None, ())


def test_a_process_has_its_own_findings_and_the_fleets(listening):
    """What is open over the fleet stands beside what is open here, each key once, for as long as a receiver listens."""
    listening.take(notification(alert(), alert(fingerprint="f2", kind="stall", subject="")))
    (notice,) = notices_in(notification(alert(severity="info")))
    joined = with_fleet((notice.finding,))
    assert [(finding.key, finding.severity.value) for finding in joined] == [
        ("slo_burn:errors:ranker", "info"),
        ("stall::ranker", "critical"),
    ]
    listening.stop()
    assert with_fleet(()) == ()


def test_a_port_in_use_is_a_clear_error(listening):
    """Listening where another does is a `ConfigError` that names the place."""
    port = int(listening.url.removesuffix("/alerts").rpartition(":")[2])
    with pytest.raises(ConfigError, match=f"cannot listen on 127.0.0.1:{port}"):
        Receiver(print, token=TOKEN, port=port).start()


@pytest.mark.parametrize("options", [{"token": "short"}, {"token": None}, {"token": TOKEN, "hold_s": 0.0}])
def test_what_protects_nothing_is_refused(options):
    """A short token, none, and a hold of no time are a `ConfigError`, which does not show the token."""
    with pytest.raises(ConfigError) as error:
        Receiver(print, **options)
    assert "short'" not in str(error.value)


FORKING = """
import os, sys
from otel_inference.maintenance import receiver as module
from otel_inference.maintenance.receiver import Receiver
receiver = Receiver(print, token="x" * 16, port=0)
receiver.start()
child = os.fork()
if child == 0:
    module.reset_after_fork()
    os._exit(0 if receiver.url is None and module.with_fleet(()) == () else 1)
_, status = os.waitpid(child, 0)
import http.client
connection = http.client.HTTPConnection(receiver.url.removeprefix("http://").partition("/")[0], timeout=5)
connection.request("POST", "/alerts", "{}")
sys.exit(status or connection.getresponse().status != 401)
"""


def test_a_forked_child_does_not_listen():
    """After a fork the child has no receiver, and the parent's goes on."""
    done = subprocess.run([sys.executable, "-c", FORKING], timeout=60, check=False, env={**os.environ})
    assert done.returncode == 0
