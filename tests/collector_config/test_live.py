"""Real Prometheus and Alertmanager over the demo's models: every query has data, and an alert goes all the way.

The models of `make demo` are served under the launcher and scraped, as README says of Debian's Prometheus.
The windows of the rules are cut from hours to seconds, and so are all waits: how long the real ones are
is what `promtool test rules` is for. The Python exporter has no exemplars, so those are not seen here.
"""

from __future__ import annotations

import importlib.util
import json
import math
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml
from opentelemetry.trace import NoOpTracer
from tests.collector_config import names

from otel_inference.maintenance.maintainer import Maintainer
from otel_inference.maintenance.receiver import Receiver

TOKEN = "a token of the test's own"
PROGRAMS = ("prometheus", "prometheus-alertmanager")
MISSING = [name for name in PROGRAMS if shutil.which(name) is None]
DEMO = Path(__file__).parents[2] / "examples" / "demo" / "run.py"
MODEL = "SmolLM2-135M-Instruct"
"""The one that has all metrics: it generates, and a limiter stands before it."""
PATIENCE_S = 180.0
"""It takes a language model half a minute to load on two cores that do nothing else."""
SECONDS = {"1m": 4, "5m": 6, "10m": 6, "30m": 6, "1h": 7, "2h": 7, "6h": 8, "1d": 9, "3d": 10}
"""What windows are cut to."""
ELSEWHERE = re.compile(r"otelcol_|hw_gpu_")
"""What only a Collector or an accelerator can give."""

pytestmark = [
    pytest.mark.skipif(
        bool(MISSING), reason=f"not installed: apt-get install --no-install-recommends {' '.join(MISSING)}"
    ),
    pytest.mark.timeout(4 * PATIENCE_S),
]


@dataclass
class Story:
    """What was seen from the first call to the resolved alert."""

    without_data: list[str] = field(default_factory=list)
    nameless: list[str] = field(default_factory=list)
    rules: list[dict] = field(default_factory=list)
    pages: list[dict] = field(default_factory=list)
    """Labels of what fired for an error budget, at any time."""
    received: list = field(default_factory=list)
    ran: list = field(default_factory=list)
    open_at_the_end: tuple | None = None

    def sees(self, prometheus, receiver):
        """Look what burns now; whether all three, from the alert to the callback, have been seen."""
        with suppress(OSError):  # it may not listen yet
            self.pages += [
                alert["labels"]
                for alert in ask(prometheus, "alerts")["alerts"]
                if alert["state"] == "firing" and alert["labels"]["alertname"] == "InferenceErrorBudgetBurn"
            ]
        self.received += burning(receiver)
        is_critical = any(page["long"] == "1h" and page["severity"] == "critical" for page in self.pages)
        return is_critical and self.received and any(event.finding.subject == "errors" for event in self.ran)


@pytest.fixture(scope="module")
def story(tmp_path_factory):
    """Fail calls until the alert has come all the way, ask everything, heal, and wait until it is over."""
    folder = tmp_path_factory.mktemp("fleet")
    story = Story()
    with ExitStack() as stack:
        maintainer = stack.enter_context(maintained(story.ran))
        receiver = stack.enter_context(received(maintainer))
        port = free_port()
        traffic = stack.enter_context(served(folder, port))
        alertmanager = stack.enter_context(alerted(folder, receiver))
        prometheus = stack.enter_context(scraped(folder, alertmanager, port))
        until(lambda: story.sees(prometheus, receiver), "the alert reaches the receiver, and the callback runs")
        asked = [expression for expression in expressions() if not ELSEWHERE.search(expression)]
        story.without_data = without_data(prometheus, asked)
        story.nameless = [title for title, asked, legend in shown() if "" in legends(prometheus, asked, legend)]
        story.rules = [rule for group in ask(prometheus, "rules")["groups"] for rule in group["rules"]]
        traffic.stdin.write("heal\n")
        traffic.stdin.flush()
        until(lambda: not burning(receiver), "the alert resolves")
        story.open_at_the_end = burning(receiver)
    return story


def test_every_query_and_every_recorded_series_has_data(story):
    """Each panel's expression and each recording rule gave a finite number for the demo's traffic."""
    assert story.without_data == []


def test_every_line_has_a_name(story):
    """The legend of each panel tells each series apart that its expression gives."""
    assert story.nameless == []


def test_every_rule_can_be_evaluated(story):
    """Prometheus evaluated each rule at least once, without an error."""
    assert {rule["name"] for rule in story.rules} == {rule.get("record") or rule["alert"] for rule in names.rules()}
    assert [rule["name"] for rule in story.rules if rule["health"] != "ok"] == []


def test_failing_calls_set_off_the_burn_rate_alert(story):
    """While requests that cannot succeed are sent, the page for the error budget fires for the service's models."""
    assert any(page["long"] == "1h" and page["severity"] == "critical" for page in story.pages)
    assert {page["job"] for page in story.pages} == {"inference"}
    assert {page["inference_model"] for page in story.pages} <= {MODEL, "all-MiniLM-L6-v2", "magika"}


def test_the_alert_reaches_the_receiver_and_the_callback(story):
    """Alertmanager delivers it with the token, it becomes a finding, and the maintenance callback is called with it."""
    ran = {event.finding.key for event in story.ran if event.finding.subject == "errors"}
    assert ran
    assert ran & {finding.key for finding in story.received}
    assert {finding.evidence["service"] for finding in story.received} == {"inference"}


def test_the_alert_resolves_when_calls_succeed_again(story):
    """After the calls are well again the alert ends, Alertmanager says so, and the finding closes."""
    assert story.open_at_the_end == ()


def burning(receiver):
    """What the receiver knows of error budgets; calls of a language model may be slow all the time."""
    return tuple(finding for finding in receiver.findings() if finding.subject == "errors")


@contextmanager
def served(folder, port):
    """The demo's models under the launcher, with endless traffic, and their metrics at `port`."""
    spec = importlib.util.spec_from_file_location("demo_run", DEMO)
    demo = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(demo)
    (folder / "models").mkdir()
    demo.lay_out_models(folder / "models")
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "COV"))}
    environ |= {
        "OTEL_METRICS_EXPORTER": "prometheus",
        "OTEL_TRACES_EXPORTER": "none",
        "OTEL_LOGS_EXPORTER": "none",
        "OTEL_EXPORTER_PROMETHEUS_HOST": "127.0.0.1",
        "OTEL_EXPORTER_PROMETHEUS_PORT": str(port),
    }
    command = [demo.LAUNCHER, sys.executable, Path(__file__).with_name("demo_traffic.py"), folder / "models"]
    with running(command, folder / "traffic.log", env=environ) as traffic:
        yield traffic


@contextmanager
def maintained(ran):
    """A maintainer with one callback, which notes its events."""
    maintainer = Maintainer()

    @maintainer.on("slo_burn", cooldown=1.0, max_per_hour=100)
    def note(event):
        ran.append(event)

    maintainer.start("act", health=lambda _model: None, tracer=NoOpTracer())
    yield maintainer
    maintainer.stop()


@contextmanager
def received(maintainer):
    """A receiver that feeds the maintainer."""
    receiver = Receiver(maintainer.notice, token=TOKEN, port=0)
    receiver.start()
    yield receiver
    receiver.stop()


@contextmanager
def alerted(folder, receiver):
    """Alertmanager with the committed configuration, impatient; gives its address."""
    config = yaml.safe_load((names.ROOT / "alertmanager" / "alertmanager.yaml").read_text())
    for route in (config["route"], *config["route"]["routes"]):
        route |= {"group_wait": "1s", "group_interval": "1s", "repeat_interval": "1m"}
    (hook,) = (entry for receiver in config["receivers"] for entry in receiver.get("webhook_configs", ()))
    hook["url"] = receiver.url
    (folder / "token").write_text(TOKEN)
    (folder / "alertmanager.yaml").write_text(yaml.safe_dump(config))
    address = f"127.0.0.1:{free_port()}"
    arguments = [
        f"--config.file={folder / 'alertmanager.yaml'}",
        f"--storage.path={folder / 'alertmanager'}",
        f"--web.listen-address={address}",
        "--cluster.listen-address=",
    ]
    with running(["prometheus-alertmanager", *arguments], folder / "alertmanager.log"):
        yield address


@contextmanager
def scraped(folder, alertmanager, port):
    """Prometheus with the committed configuration and rules, impatient; gives its address."""
    address = f"127.0.0.1:{free_port()}"
    config = yaml.safe_load((names.ROOT / "prometheus" / "scrape.yaml").read_text())
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"] = [alertmanager]
    for job in config["scrape_configs"]:
        job["static_configs"][0]["targets"] = [address if job["job_name"] == "prometheus" else f"127.0.0.1:{port}"]
    for path in names.RULES:
        (folder / path.name).write_text(hurried(path.read_text()))
    config["rule_files"] = [str(folder / path.name) for path in names.RULES]
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(config))
    arguments = [
        f"--config.file={folder / 'prometheus.yaml'}",
        f"--storage.tsdb.path={folder / 'prometheus'}",
        f"--web.listen-address={address}",
    ]
    with running(["prometheus", *arguments], folder / "prometheus.log"):
        yield address


def hurried(rules):
    """Rules with windows, waits and intervals of seconds."""
    rules = re.sub(r"(\[|offset )(\w+)", lambda window: f"{window[1]}{SECONDS[window[2]]}s", rules)
    rules = re.sub(r"interval: \w+", "interval: 1s", rules)
    return re.sub(r"for: \w+", "for: 1s", rules)


@contextmanager
def running(command, log, **options):
    """A process of the test's, ended with it; what it says goes to `log`."""
    with log.open("w") as said:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=said, stderr=said, text=True, **options)
    try:
        yield process
    finally:
        process.terminate()
        process.communicate(timeout=30)


def free_port():
    """A port of the loopback address that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def until(is_so, what):
    """Ask until it is so."""
    deadline_s = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < deadline_s, f"not within {PATIENCE_S:.0f} s: {what}"
        time.sleep(0.25)


def without_data(prometheus, asked):
    """Which expressions give nothing for as long as there is patience."""
    deadline_s = time.monotonic() + PATIENCE_S
    while (asked := [each for each in asked if not has_data(prometheus, each)]) and time.monotonic() < deadline_s:
        time.sleep(1.0)
    return asked


def ask(prometheus, path, **parameters):
    """What Prometheus's API answers."""
    url = f"http://{prometheus}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
    with urllib.request.urlopen(url, timeout=10) as answer:
        return json.load(answer)["data"]


def has_data(prometheus, expression):
    """Whether an expression gave a finite number lately."""
    now = time.time()
    found = ask(prometheus, "query_range", query=expression, start=now - 10, end=now, step=1)["result"]
    return any(math.isfinite(float(value)) for series in found for _, value in series["values"])


def expressions():
    """What panels ask, and what rules record."""
    return [asked for _, asked, _ in shown()] + sorted(names.recorded())


def shown():
    """Title, expression and legend of all that panels show, as Grafana would ask with one model chosen."""
    return [
        (
            panel["title"],
            names.filled(target["expr"], rate="8s", span="15s", job="inference", model=MODEL),
            target["legendFormat"],
        )
        for path in names.DASHBOARDS
        for panel in names.panels(json.loads(path.read_text()))
        for target in panel["targets"]
    ]


def legends(prometheus, expression, legend):
    """The names of the lines that an expression gives now."""
    series = ask(prometheus, "query", query=expression)["result"]
    return {
        re.sub(r"{{(\w+)}}", lambda label, each=each: each["metric"].get(label[1], ""), legend).strip()
        for each in series
    }
