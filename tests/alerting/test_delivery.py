"""Telling sinks of findings without being held up by any."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
from threading import Event

import pytest

from otel_inference import guard
from otel_inference.alerting import Webhook
from otel_inference.alerting.configured import sinks_from
from otel_inference.alerting.retry import Retry
from otel_inference.alerting.sink import DeliveryError
from otel_inference.finding import FindingEvent, Severity

OPENED, UPDATED, CLOSED = FindingEvent

PATIENT = Retry(first_s=3600.0, longest_s=3600.0)

FORK = """
import os, sys, threading
from datetime import UTC, datetime
from otel_inference import guard
from otel_inference.alerting.delivery import Alerts
from otel_inference.finding import Finding, FindingChange, FindingEvent, FindingKind, Severity

told, asked, answer = [], threading.Event(), threading.Event()

class Sink:
    name = "sink"
    refresh_s = 3600.0

    def send(self, changes):
        asked.set()
        answer.wait(30)
        told.extend(change.finding.model for change in changes)

def opened(model):
    now = datetime.now(UTC)
    finding = Finding(FindingKind.STALL, Severity.CRITICAL, model, now, {}, "")
    return FindingChange(event=FindingEvent.OPENED, finding=finding, at=now)

alerts = Alerts([Sink()])
alerts.publish([opened("first"), opened("parent")])
assert asked.wait(30)
channel = alerts._channels[0]
channel._lock.acquire()
if os.fork() == 0:
    status = 1
    try:
        guard.reset_after_fork()
        alerts.reset_after_fork()
        answer.set()
        assert threading.active_count() == 1
        assert alerts._still_open() == []
        assert alerts.flush(0.0)
        alerts.publish([opened("child")])
        assert alerts.flush(30)
        assert told == ["child"], told
        alerts.stop(30)
        assert threading.active_count() == 1
        status = 0
    finally:
        os._exit(status)
channel._lock.release()
status = os.waitstatus_to_exitcode(os.wait()[1])
answer.set()
assert alerts.flush(30)
assert told == ["first", "parent"], told
sys.exit(status)
"""

EXIT = """
import sys
from datetime import UTC, datetime
from otel_inference.alerting import Webhook
from otel_inference.alerting.delivery import Alerts
from otel_inference.finding import Finding, FindingChange, FindingEvent, FindingKind, Severity

now = datetime.now(UTC)
finding = Finding(FindingKind.STALL, Severity.CRITICAL, "ranker", now, {}, "")
Alerts([Webhook(sys.argv[1])]).publish([FindingChange(event=FindingEvent.OPENED, finding=finding, at=now)])
"""


@pytest.fixture(autouse=True)
def _counts(drops):
    """Forget what was dropped."""


def test_begins_no_thread_before_there_is_something_to_tell(alerts, listener):
    """Making, flushing and stopping alerts that were never used starts nothing."""
    threads = threading.active_count()
    unused = alerts(listener(), listener())

    assert unused.flush(0.0)
    assert threading.active_count() == threads


def test_tells_every_sink_in_order(alerts, listener, change):
    """Each sink hears of every opening and closing, on a daemon thread of its own."""
    sinks = [listener(), listener()]
    published = alerts(*sinks)
    published.publish([change(model="a"), change(model="b")])
    published.publish([change(CLOSED, model="a")])
    threads = {thread.name: thread for thread in threading.enumerate()}

    assert published.flush(30)
    assert [sink.told for sink in sinks] == [[("opened", "a"), ("opened", "b"), ("closed", "a")]] * 2
    assert threads["otel-inference-alerts-1"].daemon
    assert threads["otel-inference-alerts-2"].daemon


def test_an_update_is_told_only_if_it_is_worse(alerts, listener, change):
    """Other evidence is no alert, a higher severity is one, a lower one is none, and then the higher is one again."""
    sink = listener()
    published = alerts(sink)
    for event, severity in [
        (OPENED, Severity.INFO), (UPDATED, Severity.INFO), (UPDATED, Severity.CRITICAL), (UPDATED, Severity.CRITICAL),
        (UPDATED, Severity.WARNING), (UPDATED, Severity.CRITICAL), (CLOSED, Severity.CRITICAL),
        (UPDATED, Severity.CRITICAL),
    ]:  # fmt: skip
        published.publish([change(event, severity=severity)])

    assert published.flush(30)
    assert [event for event, _ in sink.told] == ["opened", "updated", "updated", "closed"]


def test_a_sink_that_hangs_holds_up_nobody(alerts, listener, change, drops):
    """While one sink hangs, publishing returns, the others are told, and what outgrows its queue is counted."""
    hanging, well = listener("hanging"), listener("well")
    hanging.answer.clear()
    published = alerts(hanging, well, max_queued=2)
    published.publish([change(model="0")])
    assert hanging.asked.wait(30)
    for model in "1234":
        published.publish([change(model=model)])
        assert published._channels[1].mark().wait(30)

    assert [model for _, model in well.told] == list("01234")
    assert not published.flush(0.0)
    assert drops() == {"alerts.hanging": 2}
    hanging.answer.set()
    assert published.flush(30)
    assert [model for _, model in hanging.told] == ["0", "3", "4"]


def test_a_sink_that_fails_is_tried_again(alerts, listener, change, drops):
    """A change comes again until it is taken, and later ones wait their turn."""
    sink = listener(failing=2)
    published = alerts(sink)
    published.publish([change(model="a"), change(model="b")])

    assert published.flush(30)
    assert sink.told == [("opened", "a"), ("opened", "b")]
    assert sink.attempts == 4
    assert drops() == {}


@pytest.mark.parametrize(
    ("error", "attempts"),
    [(OSError, 3), (SystemExit, 3), (DeliveryError("down"), 3), (DeliveryError("no", is_final=True), 1)],
)
def test_gives_up_and_goes_on(alerts, listener, change, drops, error, attempts):
    """A change that fails too often, or was refused for good, is dropped and counted; the next one is told."""
    sink = listener(failing=attempts, error=error)
    published = alerts(sink)
    published.publish([change(model="a"), change(model="b")])

    assert published.flush(30)
    assert sink.told == [("opened", "b")]
    assert sink.attempts == attempts + 1
    assert drops() == {"alerts.listener": 1}


def test_what_waited_too_long_is_tried_once(alerts, listener, change, drops):
    """Behind a sink that is down, old changes do not each take as long as the first."""
    sink = listener(failing=2)
    published = alerts(sink, retry=Retry(first_s=3600.0, age_s=0.0))
    published.publish([change(model="a"), change(model="b"), change(model="c")])

    assert published.flush(30)
    assert (sink.told, sink.attempts) == ([("opened", "c")], 3)
    assert drops() == {"alerts.listener": 2}


def test_a_receiver_that_is_down_for_the_whole_run(alerts, receiver, change, drops, caplog):
    """Nothing blocks, and all that was not told is counted; the log says it once, without a secret."""
    caplog.set_level(logging.DEBUG)
    receiver.close()
    url = f"http://me:s3cret@{receiver.place}/s3cret?k=s3cret"
    published = alerts(Webhook(url, headers={"X-Key": "s3cret"}), max_queued=4)
    for number in range(20):
        published.publish([change(model=str(number))])
    published.stop(30)
    published.publish([change(model="late")])

    assert drops() == {"alerts.webhook": 21}
    messages = [record.getMessage() for record in caplog.records if record.name == "otel_inference"]
    assert messages == [f"alert sink webhook failed (1 so far): {receiver.url}: ConnectionRefusedError"]
    assert "s3cret" not in caplog.text


def test_logs_the_first_failure_and_then_one_in_a_hundred(alerts, listener, change, caplog):
    """A sink that is down for long does not fill the log."""
    published = alerts(listener(failing=10_000), max_queued=1000)
    published.publish([change(model=str(number)) for number in range(50)])

    assert published.flush(30)
    assert len(caplog.records) == 2  # of 150 failures


def test_a_function_that_fails_is_named_without_what_it_said(alerts, change, caplog, drops):
    """The log says what failed and where; the message, which may hold an address, stays out of it."""

    def tell(_):
        msg = "https://host/s3cret"
        raise ValueError(msg)

    published = alerts(*sinks_from(None, None, (tell,)))
    published.publish([change()])

    assert published.flush(30)
    assert caplog.messages[0].startswith("alert sink tell failed (1 so far): ValueError in tell, test_delivery.py:")
    assert "s3cret" not in caplog.text
    assert drops() == {"alerts.tell": 1}


def test_says_again_what_is_open(alerts, listener, change):
    """A sink that asks for it hears of all that is open, and of nothing that closed; a failure is no loss."""
    sink = listener(refresh_s=0.001)
    published = alerts(sink)
    published.publish([change(model="a"), change(model="b"), change(CLOSED, model="b")])
    assert published.flush(30)
    sink.failing = 1
    sink.told, sink.attempts = refreshed, _ = [], 0
    while ("updated", "a") not in refreshed:
        threading.Event().wait(0.005)

    assert set(refreshed) == {("updated", "a")}
    assert guard.drop_counts() == {}
    published.publish([change(CLOSED, model="a")])
    assert published.flush(30)
    told = len(refreshed)
    assert refreshed[-1] == ("closed", "a")
    assert published.flush(30)
    assert len(refreshed) == told


def test_stop_tries_once_more_and_then_counts(alerts, listener, change, drops):
    """Stopping cuts the wait of a failing sink short, tries each change once, and ends the thread."""
    failing, well = listener("failing", failing=100), listener("well")
    published = alerts(failing, well, retry=PATIENT)
    published.publish([change(model="a"), change(model="b")])
    assert failing.asked.wait(30)
    published.stop(30)
    published.stop(30)

    assert failing.attempts in {2, 3}  # stopped during the first attempt, or in the wait after it
    assert drops() == {"alerts.failing": 2}
    assert well.told == [("opened", "a"), ("opened", "b")]
    assert published.flush(0.0)


def test_stop_does_not_wait_for_a_sink_that_hangs(alerts, listener, change, drops):
    """What waits behind a hanging call is counted at once, and its thread ends when the call does."""
    sink = listener()
    sink.answer.clear()
    published = alerts(sink)
    published.publish([change(model="a"), change(model="b")])
    assert sink.asked.wait(30)
    thread = published._channels[0]._thread
    published.stop(0.01)

    assert drops() == {"alerts.listener": 1}
    sink.answer.set()
    thread.join(30)
    assert not thread.is_alive()
    assert sink.told == [("opened", "a")]


def test_a_sink_may_stop_the_alerts(alerts, change):
    """A function that switches everything off does not wait for itself."""
    stopped = Event()
    published = alerts(*sinks_from(None, None, (lambda _: (published.stop(30), stopped.set()),)))
    published.publish([change()])

    assert stopped.wait(30)


def test_a_machine_without_threads_keeps_what_it_can(alerts, listener, change, monkeypatch):
    """When no thread can be had, changes wait in the queue, and the next one tries again."""
    sink = listener()
    published = alerts(sink)
    with monkeypatch.context() as refused:
        refused.setattr(threading.Thread, "start", lambda _: 1 / 0)
        published.publish([change(model="a")])
    assert guard._errors.pop("alerts") == 1
    published.publish([change(model="b")])

    assert published.flush(30)
    assert sink.told == [("opened", "a"), ("opened", "b")]


def test_a_thread_that_broke_is_replaced(alerts, listener, change, monkeypatch):
    """When a log handler of the host breaks our thread, the next change begins another."""
    sink = listener(failing=1)
    published, broke = alerts(sink), Event()
    with monkeypatch.context() as broken:
        broken.setattr(logging.getLogger("otel_inference"), "handle", lambda _: 1 / 0)
        broken.setattr(threading, "excepthook", lambda _: broke.set())
        published.publish([change(model="a")])
        assert broke.wait(30)
    published.publish([change(model="b")])

    assert published.flush(30)
    assert ("opened", "b") in sink.told


def test_a_forked_child_tells_only_its_own():
    """What is queued and open in the parent is not the child's to tell, and the parent tells it."""
    done = subprocess.run([sys.executable, "-c", FORK], check=False, capture_output=True, text=True)

    assert done.returncode == 0, done.stderr


def test_what_waits_is_sent_at_exit(receiver):
    """A program that ends right after a finding has sent it."""
    done = subprocess.run([sys.executable, "-c", EXIT, receiver.url], check=False, capture_output=True, text=True)

    assert (done.returncode, done.stderr) == (0, "")
    assert [document["model"] for document in receiver.documents] == ["ranker"]
