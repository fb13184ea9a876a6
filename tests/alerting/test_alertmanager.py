"""Alerts of Prometheus Alertmanager: what is sent, and what Debian's Alertmanager makes of it."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest

from otel_inference.alerting import Alertmanager
from otel_inference.alerting.alertmanager import _DESCRIPTIONS, alert
from otel_inference.alerting.sink import DeliveryError
from otel_inference.finding import FindingEvent, FindingKind, Severity

PLACES = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/bin", "/usr/local/bin", "/opt/alertmanager"))
BINARY = shutil.which("prometheus-alertmanager", path=PLACES) or shutil.which("alertmanager", path=PLACES)
NOON = datetime(2026, 8, 1, 12, tzinfo=UTC)

CONFIGURATION = """
route:
  receiver: hook
  group_by: [service, model]
  group_wait: 0s
  group_interval: 1s
receivers:
  - name: hook
    webhook_configs:
      - url: {url}/notified
"""


class Server:
    """A running Alertmanager."""

    def __init__(self, folder, receiver):
        """Begin one on a free port of loopback, and wait until it is ready."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.url = f"http://127.0.0.1:{free.getsockname()[1]}"
        (folder / "alertmanager.yml").write_text(CONFIGURATION.format(url=receiver.url))
        self.log = (folder / "log").open("w+")
        self.process = subprocess.Popen(
            [
                BINARY, f"--config.file={folder}/alertmanager.yml", f"--storage.path={folder}/data",
                f"--web.listen-address={self.url.removeprefix('http://')}", "--cluster.listen-address=",
            ],
            stdout=self.log,
            stderr=subprocess.STDOUT,
        )  # fmt: skip
        self.wait_for(self.is_ready)

    def is_ready(self):
        """Whether it answers."""
        assert self.process.poll() is None, Path(self.log.name).read_text()
        try:
            with urlopen(f"{self.url}/-/ready", timeout=5) as answer:
                return answer.status == 200
        except URLError:
            return False

    def alerts(self):
        """What it shows as open."""
        with urlopen(f"{self.url}/api/v2/alerts", timeout=5) as answer:
            return json.load(answer)

    @staticmethod
    def wait_for(truth):
        """Wait until `truth()` holds, and give it."""
        deadline_s = time.monotonic() + 30
        while not (found := truth()):
            assert time.monotonic() < deadline_s
            time.sleep(0.02)
        return found

    def close(self):
        """End it."""
        self.process.terminate()
        self.process.wait(30)
        self.log.close()


@pytest.fixture
def server(tmp_path, receiver):
    """An Alertmanager that notifies the receiver."""
    if BINARY is None:
        pytest.skip("no Alertmanager is installed: apt-get install prometheus-alertmanager")
    server = Server(tmp_path, receiver)
    yield server
    server.close()


def labels(document):
    """Labels of a posted alert, without the process's own."""
    return {name: text for name, text in document["labels"].items() if name != "instance"}


def ends(document):
    """When an alert ends."""
    return datetime.fromisoformat(document["endsAt"])


def test_posts_an_alert(receiver, change):
    """An open finding is an alert that goes by itself in five minutes, named by its kind."""
    before = datetime.now(UTC)
    opened = change(kind=FindingKind.SATURATION, subject="cpu", explained_by="stall::", trace_id="a" * 32)
    Alertmanager(receiver.url, service="ranking").send([opened])

    ((path, _, (document,)),) = receiver.posts
    assert path == "/api/v2/alerts"
    assert document["labels"] == {
        "alertname": "InferenceSaturation", "severity": "warning", "kind": "saturation", "model": "ranker",
        "subject": "cpu", "service": "ranking", "instance": f"{socket.gethostname()}:{os.getpid()}",
    }  # fmt: skip
    assert document["annotations"] == {
        "summary": "saturation (cpu): ranker", "description": "A resource is used up.",
        "advice": "Use a smaller batch.", "evidence": "p99_s 0.75, window_s 60", "explained_by": "stall::",
        "trace_id": "a" * 32,
    }  # fmt: skip
    assert document["startsAt"] == "2026-08-01T12:00:00.000Z"
    assert timedelta(seconds=299) < ends(document) - before < timedelta(seconds=330)


@pytest.mark.parametrize("path", ["", "/", "/api/v2/alerts", "/api/v2/alerts/"])
def test_finds_the_api_below_the_address(receiver, change, path):
    """The address is Alertmanager's own, with its path prefix, or that of its API."""
    Alertmanager(f"{receiver.url}/prefix{path}?key=s3cret").send([change()])

    assert receiver.posts[0][0] == "/prefix/api/v2/alerts?key=s3cret"


def test_a_closed_finding_ends_when_it_closed(receiver, change):
    """Sent late, an end is still the end, and it is never before the beginning."""
    at = datetime(2026, 8, 1, 13, tzinfo=UTC)
    sink = Alertmanager(receiver.url)
    sink.send([change(FindingEvent.CLOSED, at=at), change(FindingEvent.CLOSED, since=at)])

    assert [ends(document) for document in receiver.documents[0]] == [at, at]


def test_another_severity_is_another_alert(receiver, change):
    """The alert of the severity before ends when a finding gets worse, again if that could not be sent."""
    sink = Alertmanager(receiver.url)
    sink.send([change(severity=Severity.WARNING)])
    receiver.statuses = [503]
    with pytest.raises(DeliveryError):
        sink.send([change(FindingEvent.UPDATED, severity=Severity.CRITICAL)])
    sink.send([change(FindingEvent.UPDATED, severity=Severity.CRITICAL)])
    sink.send([change(FindingEvent.CLOSED, severity=Severity.CRITICAL)])

    now = datetime.now(UTC)
    told = [[(each["labels"]["severity"], ends(each) > now) for each in document] for document in receiver.documents]
    worse = [("warning", False), ("critical", True)]
    assert told == [[("warning", True)], worse, worse, [("critical", False)]]
    assert sink._shown == {}


def test_knows_every_kind(change):
    """Every kind has a name in the style of alerts, and a description."""
    names = {alert(change(kind=kind).finding, None, ends=NOON)["labels"]["alertname"] for kind in FindingKind}

    assert names >= {"InferenceSloBurn", "InferenceLatencyShift", "InferenceStall"}
    assert len(names) == len(_DESCRIPTIONS) == len(FindingKind)


def test_the_page_for_users_names_every_alert(change):
    """`docs/alerts.md` lists every `alertname`, and its example is a configuration that Alertmanager takes."""
    page = (Path(__file__).parents[2] / "docs" / "alerts.md").read_text(encoding="utf-8")
    names = {alert(change(kind=kind).finding, None, ends=NOON)["labels"]["alertname"] for kind in FindingKind}
    assert names == set(re.findall(r"`(Inference\w+)`", page))
    if (amtool := shutil.which("amtool", path=PLACES)) is None:
        pytest.skip("the names are right; the example was not checked, since no amtool is installed")
    example = re.search(r"```yaml\n(.*?)```", page, re.DOTALL)[1]
    checked = subprocess.run([amtool, "check-config"], input=example, check=False, capture_output=True, text=True)

    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_shows_no_secret():
    """Its `repr` has the origin only."""
    assert repr(Alertmanager("http://me:s3cret@host:9093/s3cret")) == "Alertmanager('http://host:9093')"


def test_alertmanager_receives_shows_and_resolves_a_finding(server, receiver, change, alerts):
    """A real Alertmanager shows a finding while it is open, and notifies of both its ends."""
    now = datetime.now(UTC)
    published = alerts(Alertmanager(server.url, service="ranking"))
    published.publish([change(model="ranker", since=now - timedelta(minutes=1)), change(model=None, since=now)])
    assert published.flush(30)

    shown = {each["labels"].get("model"): each for each in server.wait_for(server.alerts)}
    assert labels(shown["ranker"]) == {
        "alertname": "InferenceLatencyShift", "kind": "latency_shift", "model": "ranker", "service": "ranking",
        "severity": "warning",
    }  # fmt: skip
    assert shown["ranker"]["annotations"]["advice"] == "Use a smaller batch."
    assert shown["ranker"]["status"]["state"] in {"active", "unprocessed"}
    assert None in shown

    server.wait_for(lambda: "firing" in notified(receiver, "ranker"))
    published.publish([change(FindingEvent.CLOSED, model="ranker", since=now, at=datetime.now(UTC))])
    assert published.flush(30)
    server.wait_for(lambda: [each["labels"].get("model") for each in server.alerts()] == [None])
    assert server.wait_for(lambda: notified(receiver, "ranker")[-1:] == ["resolved"])


def test_alertmanager_shows_one_alert_of_a_finding_that_got_worse(server, change, alerts):
    """A real Alertmanager replaces the alert of the severity before; a finding said again stays one alert."""
    now = datetime.now(UTC)
    sink = Alertmanager(server.url)
    published = alerts(sink)
    published.publish([change(since=now), change(FindingEvent.UPDATED, since=now, severity=Severity.CRITICAL)])
    assert published.flush(30)
    sink.send(published._still_open())

    server.wait_for(lambda: [each["labels"]["severity"] for each in server.alerts()] == ["critical"])


def notified(receiver, model):
    """Statuses that Alertmanager notified of, about a model."""
    return [
        each["status"]
        for path, _, document in list(receiver.posts)
        if path == "/notified"
        for each in document["alerts"]
        if each["labels"].get("model") == model
    ]
