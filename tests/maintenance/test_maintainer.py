"""The maintainer: what runs when, how it is held back, judged and undone, and that nobody waits for it."""

from __future__ import annotations

import ctypes
import importlib
import logging
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from datetime import UTC, datetime
from threading import Event

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from otel_inference import guard, nesting, observe
from otel_inference.errors import ConfigError
from otel_inference.finding import Finding, FindingKind, Severity
from otel_inference.health.snapshot import ModelHealth, latency_of
from otel_inference.health.window import SlidingWindow
from otel_inference.maintenance import maintainer as module
from otel_inference.maintenance.action import Action
from otel_inference.maintenance.execution import THREAD_NAME as ACTION_THREAD
from otel_inference.maintenance.maintainer import THREAD_NAME, Maintainer
from otel_inference.maintenance.policy import Mode
from otel_inference.maintenance.verdict import Verdict
from otel_inference.resources.reading import Reading

FORK = """
import os, sys, threading
from datetime import UTC, datetime
from opentelemetry.trace import NoOpTracer
from otel_inference.finding import Finding, FindingKind, Severity
from otel_inference.maintenance.maintainer import THREAD_NAME, maintainer, on

ran, release = threading.Event(), threading.Event()
pids = []

@on("stall", cooldown=0)
def act(event):
    pids.append(os.getpid())
    ran.set()
    release.wait(30)

stalled = [Finding(FindingKind.STALL, Severity.WARNING, "m", datetime.now(UTC), {}, "")]
names = lambda: sorted(thread.name for thread in threading.enumerate())
maintainer.start("act", health=lambda model: None, tracer=NoOpTracer())
maintainer.notice(stalled)
assert ran.wait(30)
assert names() == ["MainThread", "otel-inference-action", THREAD_NAME]
if os.fork() == 0:
    status = 1
    try:
        maintainer.reset_after_fork()
        assert names() == ["MainThread"]
        assert maintainer.journal() == ()
        pids.clear(), ran.clear(), release.set()
        maintainer.notice(stalled)
        assert ran.wait(30)
        maintainer.notice(stalled)
        assert names().count(THREAD_NAME) == 1
        maintainer.stop(30)
        assert set(pids) == {os.getpid()}
        assert names() == ["MainThread"]
        status = 0
    finally:
        os._exit(status)
status = os.waitstatus_to_exitcode(os.wait()[1])
release.set()
maintainer.stop(30)
assert pids == [os.getpid()]
sys.exit(status)
"""

SIGNALS = """
import os, signal
from otel_inference.maintenance.maintainer import Maintainer

maintainer = Maintainer()
assert maintainer.install_kill_switch()
assert maintainer.install_kill_switch()
os.kill(os.getpid(), signal.SIGUSR2)
assert maintainer.mode == "off"
os.kill(os.getpid(), signal.SIGUSR2)
assert maintainer.mode == "act"
maintainer.stop()
assert signal.getsignal(signal.SIGUSR2) is signal.SIG_DFL

theirs = lambda number, frame: None
signal.signal(signal.SIGUSR2, theirs)
assert not maintainer.install_kill_switch()
maintainer.stop()
assert signal.getsignal(signal.SIGUSR2) is theirs

signal.signal(signal.SIGUSR2, signal.SIG_DFL)
assert maintainer.install_kill_switch()
signal.signal(signal.SIGUSR2, signal.SIG_DFL)  # as a worker of gunicorn does
assert maintainer.install_kill_switch()
signal.signal(signal.SIGUSR2, theirs)
maintainer.stop()
assert signal.getsignal(signal.SIGUSR2) is theirs
"""


def found(kind="stall", *, model="ranker", subject=None, severity=Severity.WARNING, **known):
    """A finding."""
    return Finding(FindingKind(kind), severity, model, datetime.now(UTC), {}, "", subject=subject, **known)


def health(duration_s=0.1, *, calls=100, failing=0):
    """Health of the model `ranker`, all of whose calls took as long."""
    window = SlidingWindow()
    for index in range(calls):
        window.add(index * 0.5, duration_s, failed=index < failing)
    snapshot = window.snapshot(calls * 0.5)
    return ModelHealth(
        model="ranker",
        throughput=snapshot.throughput,
        latency=latency_of(snapshot),
        error_ratio=snapshot.error_ratio,
        error_ratio_interval=snapshot.error_ratio_interval,
        window=snapshot,
    )


class Stage:
    """A maintainer with a clock, a health and telemetry of its own; `look` is what its thread does when it is woken."""

    def __init__(self):
        """Begin at 1,000 s with nothing registered."""
        self.now_s = 1000.0
        self.health = health()
        self.reported = []
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.maintainer = Maintainer()
        self.start()

    def start(self, mode="act", **options):
        """Start it."""
        self.maintainer.start(
            mode,
            health=lambda _: self.health,
            tracer=self.provider.get_tracer("test"),
            report=self.reported.append,
            clock=lambda: self.now_s,
            **options,
        )

    def look(self, *findings, after_s=0.0):
        """Some time later: decide, run and judge while these findings are open."""
        self.now_s += after_s
        self.maintainer._open = findings
        self.maintainer._step()

    def outcomes(self):
        """Action and outcome of each entry of the journal."""
        return [(entry.action, entry.outcome.value) for entry in self.maintainer.journal()]

    def span(self):
        """The one span there is."""
        (span,) = self.exporter.get_finished_spans()
        return span


@pytest.fixture
def stage():
    """A stage, of which no thread is left."""
    stage = Stage()
    yield stage
    stage.maintainer.stop(30)
    assert not [thread for thread in threading.enumerate() if thread.name in {THREAD_NAME, ACTION_THREAD}]


@pytest.fixture
def ran(stage):
    """Events that a callback on stalls was called with."""
    events = []

    @stage.maintainer.on("stall")
    def act(event):
        events.append(event)

    return events


@pytest.fixture
def failures(monkeypatch):
    """Failures of our own since the test began, which are not left behind."""
    counts = Counter()
    monkeypatch.setattr(guard, "_errors", counts)
    return lambda: dict(counts)


def test_runs_when_a_finding_opens_and_after_each_cool_down(stage, ran):
    """While it stays open the callback runs once a cool-down; once it has closed, no more."""
    stage.look(found())
    stage.look(found(), after_s=59)
    assert len(ran) == 1
    stage.look(found(), after_s=1)
    assert len(ran) == 2
    stage.look(found("saturation"), after_s=100)
    stage.look(after_s=100)

    assert len(ran) == 2


def test_a_callback_is_told_what_and_how_it_is(stage, ran):
    """The event has the finding, the health of its model and what maintenance did before."""
    finding = found()
    stage.look(finding)
    stage.look(finding, after_s=60)

    assert ran[0].finding is finding
    assert ran[0].health is stage.health
    assert ran[0].journal == ()
    assert [entry.outcome for entry in ran[1].journal] == ["done"]


def test_a_callback_of_one_model_ignores_the_others(stage):
    """With a model given, only findings of that model set it off; the decorator returns the function itself."""
    models = []

    def act(event):
        models.append(event.finding.model)

    assert stage.maintainer.on(FindingKind.STALL, model="ranker")(act) is act
    stage.look(found(), found(model="reader"), found(model=None))

    assert models == ["ranker"]


def test_one_function_may_have_several_triggers(stage):
    """Decorated twice it is one action: its cap counts the runs about both kinds together."""
    kinds = []

    @stage.maintainer.on("stall", max_per_hour=3, cooldown=1)
    @stage.maintainer.on("saturation", max_per_hour=3, cooldown=1)
    def act(event):
        kinds.append(event.finding.kind)

    for _ in range(4):
        stage.look(found(), found("saturation"), after_s=2)

    assert kinds == ["stall", "saturation", "stall"]
    assert stage.outcomes()[-1] == ("act", "refused")


@pytest.mark.parametrize("options", [{"kind": "stal"}, {"kind": "stall", "cooldown": -1}])
def test_a_mistake_is_told_where_it_is_made(stage, options):
    """An unknown kind or a value that means nothing is a ConfigError of the decorator."""
    with pytest.raises(ConfigError):
        stage.maintainer.on(**options)(print)

    assert stage.maintainer.actions() == ()


def test_each_run_is_a_span_linked_to_the_evidence(stage, ran):
    """The span has its own trace, says what and why, and links to a span that shows the problem."""
    stage.look(found(trace_id="0af7651916cd43dd8448eb211c80319c", span_id="b7ad6b7169203331", subject="call"))
    span = stage.span()

    assert (span.name, span.parent, span.status.status_code) == ("maintenance act", None, StatusCode.UNSET)
    assert [hex(link.context.span_id) for link in span.links] == ["0xb7ad6b7169203331"]
    assert dict(span.attributes) == {
        "inference.maintenance.action": "act",
        "inference.maintenance.outcome": "done",
        "inference.finding.kind": "stall",
        "inference.finding.severity": "warning",
        "inference.finding.subject": "call",
        "inference.model": "ranker",
    }
    assert stage.maintainer.journal()[0].trace_id == f"{span.context.trace_id:032x}"


@pytest.mark.parametrize("trace_id", [None, "not hexadecimal"])
def test_a_finding_without_evidence_has_no_link(stage, ran, trace_id):
    """Ids that are missing or are none leave the span without a link."""
    stage.look(found(model=None, trace_id=trace_id, span_id="1"))

    assert stage.span().links == ()
    assert stage.outcomes() == [("act", "done")]


def test_each_run_is_reported_and_once_more_when_it_is_judged(stage, ran):
    """The runtime is told of every entry; of one that was judged again, with its verdict."""
    stage.health = health(calls=0)
    stage.look(found())
    stage.look(after_s=60)

    assert [entry.verdict for entry in stage.reported] == [None, Verdict.UNCHANGED]
    assert stage.maintainer.journal() == (stage.reported[1],)


@pytest.mark.parametrize("raised", [ValueError("no"), SystemExit(3), KeyboardInterrupt(), GeneratorExit()])
def test_a_callback_that_raises_is_a_failure_and_nothing_else(stage, caplog, raised):
    """Whatever it raises is logged, journalled and on the span; nothing is raised here."""

    @stage.maintainer.on("stall")
    def act(event):
        raise raised

    stage.look(found())
    span, (entry,) = stage.span(), stage.maintainer.journal()

    assert (span.status.status_code, span.attributes["error.type"]) == (StatusCode.ERROR, type(raised).__qualname__)
    assert entry.outcome == "failed"
    assert entry.detail.startswith(type(raised).__name__)
    assert "maintenance action act: it failed" in caplog.text


def test_an_exception_that_cannot_be_told_is_told_by_its_name(stage, failures):
    """An exception whose text fails costs the span its event, and the journal the text."""

    class MuteError(Exception):
        def __str__(self):
            raise ValueError

    @stage.maintainer.on("stall")
    def act(event):
        raise MuteError

    stage.look(found())

    assert stage.maintainer.journal()[0].detail == "MuteError: (its text cannot be had)"
    assert stage.span().attributes["error.type"].endswith("MuteError")
    assert failures() == {"exception": 1}


def test_a_callback_whose_thread_is_killed_is_a_failure(stage):
    """An exception set in its thread from outside ends that thread only."""
    begun, thread_ids = Event(), []

    @stage.maintainer.on("stall")
    def act(event):
        thread_ids.append(threading.get_ident())
        begun.set()
        while True:
            Event().wait(0.001)

    def kill():
        begun.wait(30)
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread_ids[0]), ctypes.py_object(SystemExit))

    killer = threading.Thread(target=kill)
    killer.start()
    stage.look(found())
    killer.join()

    assert stage.outcomes() == [("act", "failed")]


def test_three_failures_in_a_row_disable_a_callback(stage):
    """After the third it is refused, which the journal says once, until somebody enables it."""
    fails = [True]

    @stage.maintainer.on("stall", cooldown=1)
    def act(event):
        if fails[0]:
            raise ValueError

    for _ in range(6):
        stage.look(found(), after_s=1)
    assert [outcome for _, outcome in stage.outcomes()] == ["failed", "failed", "failed", "refused"]
    assert stage.maintainer.journal()[-1].detail == "disabled: it failed 3 times in a row"
    fails[0] = False
    stage.maintainer.enable("act")
    stage.look(found(), after_s=1)

    assert stage.outcomes()[-1] == ("act", "done")
    with pytest.raises(ConfigError, match="unknown action 'akt'"):
        stage.maintainer.enable("akt")


def test_a_callback_that_hangs_is_left_alone_and_disabled_meanwhile(stage):
    """It counts as timed out, others run on, no second thread hangs, and once it returns it may run again."""
    release, others = Event(), []

    @stage.maintainer.on("stall", timeout=0.01, cooldown=1)
    def act(event):
        release.wait(30)

    stage.maintainer.on("stall", cooldown=1)(others.append)
    for _ in range(3):
        stage.look(found(), after_s=1)
    hanging = [thread for thread in threading.enumerate() if thread.name == ACTION_THREAD]
    assert (len(hanging), len(others)) == (1, 3)
    assert stage.outcomes().count(("act", "timed_out")) == 1
    assert "disabled: an earlier run has not returned" in [entry.detail for entry in stage.maintainer.journal()]
    release.set()
    hanging[0].join(30)
    stage.look(found(), after_s=1)

    assert stage.outcomes()[-2:] == [("act", "done"), ("append", "done")]


def test_a_thousand_triggers_a_second_cause_the_capped_runs(stage, ran):
    """However many findings there are of however many models, a callback runs six times in an hour."""
    for index in range(1000):
        stage.look(found(model=f"model{index % 100}"), after_s=0.001)

    assert len(ran) == 6
    assert stage.outcomes()[6:] == [("act", "refused")]


def test_a_process_runs_twenty_actions_an_hour(stage):
    """Many callbacks share a cap, and critical findings come first."""
    severities = []
    for index in range(10):
        stage.maintainer.on("stall")(lambda event, _index=index: severities.append(event.finding.severity))
    stage.look(*[found(model=str(index)) for index in range(3)], found(severity=Severity.CRITICAL))

    assert len(severities) == 20
    assert severities[:10] == [Severity.CRITICAL] * 10


def test_worse_calls_the_undo(stage):
    """When health is worse after it has settled, `undo` is called with the event of the run."""
    done, undone = [], []
    stage.maintainer.on("latency_shift", undo=undone.append)(done.append)
    stage.look(found("latency_shift"))
    stage.health = health(0.2)
    stage.look(after_s=59)
    assert undone == []
    stage.look(after_s=1)
    run, undo = stage.maintainer.journal()

    assert undone == done
    assert (run.verdict, run.detail) == ("worse", "calls of the same size take 2 times as long as before")
    assert (run.before["mean_s"], run.after["mean_s"]) == (pytest.approx(0.1), pytest.approx(0.2))
    assert (undo.outcome, undo.run) == ("undone", run.run)


@pytest.mark.parametrize(("duration_s", "verdict"), [(0.05, "improved"), (0.1, "unchanged")])
def test_better_or_the_same_is_kept(stage, duration_s, verdict):
    """What did not hurt is not undone."""
    undone = []
    stage.maintainer.on("latency_shift", undo=undone.append)(lambda _: None)
    stage.look(found("latency_shift"))
    stage.health = health(duration_s)
    stage.look(after_s=60)

    assert undone == []
    assert [entry.verdict for entry in stage.maintainer.journal()] == [verdict]


def test_what_made_it_worse_three_times_in_an_hour_is_disabled(stage):
    """After three roll-backs it is refused."""
    stage.maintainer.on("latency_shift", undo=print)(lambda _: None)
    for factor in (1, 2, 4, 8):
        stage.health = health(0.1 * factor)
        stage.look(found("latency_shift"), after_s=60)

    assert [outcome for _, outcome in stage.outcomes()] == ["done", "undone"] * 3 + ["refused"]


def test_an_undo_that_fails_disables_its_action(stage, caplog):
    """What cannot be taken back is not done again."""
    stage.maintainer.on("latency_shift", undo=lambda _: 1 / 0)(lambda _: None)
    stage.look(found("latency_shift"))
    stage.health = health(0.2)
    stage.look(found("latency_shift"), after_s=60)

    assert [outcome for _, outcome in stage.outcomes()] == ["done", "undo_failed", "refused"]
    assert "could not be undone" in stage.maintainer.journal()[-1].detail


def test_nothing_is_undone_while_maintenance_is_off(stage):
    """The verdict is found, and the journal says why nothing followed from it."""
    undone = []
    stage.maintainer.on("latency_shift", undo=undone.append)(lambda _: None)
    stage.look(found("latency_shift"))
    stage.health = health(0.2)
    stage.maintainer.set_mode("off")
    stage.look(found("latency_shift"), after_s=60)

    assert undone == []
    assert stage.maintainer.journal()[-1].detail == "not undone: maintenance is set to off"


def test_changes_to_one_model_are_watched_one_after_the_other(stage):
    """What can be undone waits for the verdict on what was done to the same model; other models do not."""
    models = []
    for _ in range(2):
        stage.maintainer.on("stall", undo=print)(lambda event: models.append(event.finding.model))
    stage.look(found(), found(model="reader"))
    assert models == ["ranker", "reader"]
    stage.look(found(), found(model="reader"), after_s=59)
    assert len(models) == 2
    stage.look(found(), found(model="reader"), after_s=1)

    assert len(models) == 4


def test_observe_runs_nothing_and_says_what_it_would(stage, ran):
    """The journal has what would have run, as often as it would have."""
    stage.maintainer.set_mode("observe")
    for _ in range(10):
        stage.look(found(), after_s=30)

    assert ran == []
    assert stage.exporter.get_finished_spans() == ()
    assert stage.outcomes() == [("act", "would_run")] * 5


def test_off_does_nothing_and_can_be_switched_while_it_runs(stage, ran):
    """What `set_mode` chooses holds from the next action on, and over what `start` says."""
    stage.maintainer.on("stall")(lambda _: stage.maintainer.set_mode(Mode.OFF))
    stage.maintainer.on("stall")(ran.append)
    stage.look(found())
    stage.start("act")
    stage.look(found(), after_s=60)

    assert len(ran) == 1
    assert stage.maintainer.mode == "off"
    with pytest.raises(ConfigError, match="unknown maintenance mode 'on'"):
        stage.maintainer.set_mode("on")


@pytest.mark.parametrize(
    ("answer", "told"),
    [(False, "its precondition does not hold"), ("", "its precondition does not hold"), ("no torch", "no torch")],
)
def test_a_precondition_refuses_with_a_reason(stage, answer, told):
    """What its precondition forbids does not run, uses up no run, and the journal says why once."""
    answers = [answer] * 3 + [True]
    stage.maintainer.add(
        Action(name="shed", kind="stall", run=lambda _: None, precondition=lambda _: answers.pop(0), max_per_hour=1)
    )
    for _ in range(4):
        stage.look(found(), after_s=60)

    assert stage.outcomes() == [("shed", "refused"), ("shed", "done")]
    assert stage.maintainer.journal()[0].detail == told


def test_a_precondition_that_fails_counts_as_a_failure(stage, caplog):
    """It forbids the run, and three in a row disable the action."""
    stage.maintainer.add(Action(name="shed", kind="stall", run=print, precondition=lambda _: 1 / 0))
    for _ in range(4):
        stage.look(found(), after_s=60)

    assert [entry.detail for entry in stage.maintainer.journal()] == [
        "its precondition failed: ZeroDivisionError: division by zero",
        "disabled: it failed 3 times in a row",
    ]


def test_a_callback_may_register_and_remove(stage):
    """What a callback registers runs at once if it is due, and what it removes does not."""
    ran = []
    stage.maintainer.on("stall")(lambda _: stage.maintainer.on("stall")(ran.append))
    stage.maintainer.on("stall")(lambda _: stage.maintainer.remove("print"))
    stage.maintainer.on("stall")(print)
    stage.look(found())

    assert len(ran) == 1
    assert ("print", "done") not in stage.outcomes()


def test_a_process_wide_finding_is_judged_by_the_machine(stage):
    """Utilization is taken from the readings of the last half minute; health is that of every model by name."""
    stage.maintainer.stop()
    reading = [Reading(at_s=0.0, utilization={"cpu": 0.1})]
    stage.health = {"ranker": health()}
    stage.start(reading=lambda: reading[0], window_s=30.0)
    events = []
    stage.maintainer.on("saturation")(events.append)
    for used in (0.99, 0.97):
        reading[0] = Reading(at_s=stage.now_s, utilization={"cpu": used})
        stage.maintainer.notice([])
    stage.look(found("saturation", model=None, subject="cpu"))
    reading[0] = Reading(at_s=stage.now_s + 31, utilization={"cpu": 0.5})
    stage.now_s += 31
    stage.maintainer.notice([])
    stage.look()

    assert events[0].health is stage.health
    assert stage.maintainer.journal()[0].detail == "cpu 50% used, before 98%"


def test_notice_hands_over_and_returns(stage):
    """The callback runs on a thread of its own, in a trace of its own, outside any call, while the caller goes on."""
    seen, release, done = [], Event(), Event()

    @stage.maintainer.on("stall")
    def act(event):
        seen.append((threading.current_thread().name, nesting.current.get()))
        release.wait(30)
        done.set()

    stage.maintainer.notice([found()])
    for _ in range(1000):
        stage.maintainer.notice([found()])
    release.set()
    assert done.wait(30)
    stage.maintainer.stop(30)

    assert seen == [(ACTION_THREAD, None)]
    assert stage.outcomes() == [("act", "done")]


def test_no_thread_begins_without_something_to_do(stage, ran):
    """Findings that nothing is registered for, and a maintainer that is stopped, begin no thread."""
    stage.maintainer.notice([found("saturation")])
    stage.maintainer.notice([])
    stage.maintainer.stop()
    stage.maintainer.notice([found()])

    assert THREAD_NAME not in [thread.name for thread in threading.enumerate()]
    assert ran == []


def test_settled_runs_are_judged_without_being_told(stage):
    """Its thread wakes by itself when a run has settled."""
    judged = Event()
    stage.maintainer.start(
        "act",
        health=lambda _: stage.health,
        tracer=stage.provider.get_tracer("test"),
        report=lambda entry: entry.verdict and judged.set(),
        window_s=0.01,
    )
    stage.maintainer.on("stall")(lambda _: None)
    stage.maintainer.notice([found()])

    assert judged.wait(30)


def test_a_callback_may_call_models_and_evaluate(telemetry, stage):
    """A model called in a callback is counted like any other call and sets off nothing while it runs."""
    depth = []

    @observe("ranker")
    def rank():
        return len(depth)

    @stage.maintainer.on("stall", cooldown=0, max_per_hour=2)
    def act(event):
        depth.append(rank())
        stage.maintainer.notice([found(), found("saturation")])

    stage.look(found())

    assert depth == [0]
    assert [span.name for span in telemetry.spans()] == ["call ranker"]
    assert telemetry.spans()[0].parent.span_id == stage.span().context.span_id


def test_calls_go_on_while_a_callback_hangs(telemetry, stage):
    """Calls of models neither wait for a callback nor know of it."""
    begun, release = Event(), Event()

    @stage.maintainer.on("stall", timeout=30)
    def act(event):
        begun.set()
        release.wait(30)

    stage.maintainer.notice([found()])
    assert begun.wait(30)
    for _ in range(10):
        with observe("ranker"):
            stage.maintainer.notice([found()])
    assert len(telemetry.spans()) == 10
    assert stage.outcomes() == []
    release.set()


def test_stopping_from_a_callback_does_not_wait_for_itself(stage):
    """A callback may stop what called it; nothing more runs then, and a later start goes on."""
    ran, stopped = [], Event()

    @stage.maintainer.on("stall", cooldown=0)
    def act(event):
        ran.append(event)
        if len(ran) == 1:
            stage.maintainer.stop(30)
            stopped.set()

    stage.maintainer.on("stall")(ran.append)
    stage.maintainer.notice([found()])
    assert stopped.wait(5)
    thread = stage.maintainer._thread
    thread.join(30)
    assert len(ran) == 1
    stage.start()
    stage.look(found())

    assert len(ran) == 3


def test_stopping_does_not_wait_for_an_action_that_hangs(stage):
    """`stop` gives up after its timeout; a start soon after goes on with the same thread."""
    begun, release = Event(), Event()
    stage.maintainer.on("stall")(lambda _: (begun.set(), release.wait(30)))
    stage.maintainer.notice([found()])
    assert begun.wait(30)
    thread = stage.maintainer._thread
    stage.maintainer.stop(0.01)
    stage.start()
    stage.maintainer.notice([found()])

    assert stage.maintainer._thread is thread
    release.set()


def test_a_machine_without_threads_breaks_nothing(stage, ran, monkeypatch):
    """Where no thread can be had nothing is raised, and the next evaluation tries again."""

    def refuse(_):
        raise RuntimeError

    with monkeypatch.context() as refused:
        refused.setattr(threading.Thread, "start", refuse)
        stage.maintainer.notice([found()])
        stage.look(found())
    assert stage.outcomes() == [("act", "failed")]
    stage.look(found(), after_s=60)

    assert len(ran) == 1


def test_what_the_runtime_lends_may_fail(stage, ran, failures):
    """Health, spans and reports that raise are counted, and the callback runs nevertheless."""

    def fail(*_, **__):
        raise OSError

    stage.maintainer.start("act", health=fail, tracer=type("T", (), {"start_span": fail})(), report=fail)
    stage.maintainer._open = (found(),)
    stage.maintainer._step()

    assert ran[0].health is None
    assert failures() == {"maintenance.health": 2, "maintenance.span": 1, "maintenance.report": 1}


def test_a_reload_keeps_the_one_maintainer():
    """A module that is loaded again has the maintainer it had."""
    before = module.maintainer
    try:
        assert importlib.reload(module).maintainer is before
        assert module.on == before.on
    finally:
        module.Maintainer = Maintainer


def test_a_function_that_is_defined_again_is_registered_once_and_forgiven(stage):
    """After a reload of the program's module its callback is there once, and enabled."""
    for body in ("1 / 0", "None"):
        namespace = {"__name__": "serving"}
        exec(f"def act(event): {body}", namespace)
        stage.maintainer.on("stall", cooldown=1)(namespace["act"])
        for _ in range(3):
            stage.look(found(), after_s=1)

    assert [action.name for action in stage.maintainer.actions()] == ["act"]
    assert [outcome for _, outcome in stage.outcomes()] == ["failed"] * 3 + ["done"] * 3


@pytest.mark.parametrize("program", [FORK, SIGNALS])
def test_in_a_process_of_its_own(program):
    """A forked child has one maintainer with a thread of its own; SIGUSR2 toggles, where nobody else uses it."""
    done = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True)

    assert done.returncode == 0, done.stderr


def test_the_kill_switch_is_of_the_main_thread_and_logged(stage, caplog):
    """Another thread cannot install it; a toggle is logged by the next evaluation, and forgotten when it stops."""
    installed = []
    thread = threading.Thread(target=lambda: installed.append(stage.maintainer.install_kill_switch()))
    thread.start()
    thread.join()
    stage.maintainer._toggle()
    with caplog.at_level(logging.WARNING):
        stage.maintainer.notice([])
        stage.maintainer.notice([])

    assert installed == [False]
    assert caplog.text.count("maintenance was switched off by SIGUSR2") == 1
    assert signal.getsignal(signal.SIGUSR2) is signal.SIG_DFL
    stage.start()
    assert stage.maintainer.mode == "off"
    stage.maintainer.stop()
    assert stage.maintainer.mode == "act"


def test_the_journal_goes_to_a_file(stage, ran, tmp_path):
    """With a path given each run is a line there, and another one with its verdict."""
    path = tmp_path / "journal.jsonl"
    stage.start(journal_path=os.fspath(path))
    stage.look(found())
    stage.look(after_s=60)

    assert ['"verdict"' in line for line in path.read_text().splitlines()] == [False, True]
