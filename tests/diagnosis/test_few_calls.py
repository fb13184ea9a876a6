"""Models that are called seldom, slowly, or no longer: with the registry, the view and the evaluation of a process."""

from __future__ import annotations

import random

import pytest

from otel_inference.diagnosis.diagnosis import Diagnosis
from otel_inference.evaluation import Evaluation
from otel_inference.health.snapshot import HealthState
from otel_inference.telemetry.registry import HealthRegistry
from otel_inference.telemetry.view import HealthView

MODEL = "llm"


class World:
    """A process on a manual clock, evaluated once a second or less often."""

    def __init__(self, **utilization):
        """Begin at time 0, with what is used of the machine."""
        self.now_s = 0.0
        self.running_since_s = []
        self.registry = HealthRegistry(clock=lambda: self.now_s)
        self.told = []
        self._view = HealthView(
            self.registry,
            running=lambda _: list(self.running_since_s),
            resources=lambda: utilization,
            capacity=lambda _: 1.0,
            findings=self._findings,
        )
        self.evaluation = Evaluation(
            self.registry,
            self._view,
            stalled=lambda _: None,
            reading=lambda: None,
            diagnosis=Diagnosis,
            takers=[self._take],
        )

    def end(self, duration_s, *, failed=False, cold=False, **facts):
        """A call ends now."""
        model = self.registry.of(MODEL, age_s=duration_s)
        model.ended(self.now_s, duration_s, failed=failed, cold=cold, size=100, **facts)

    def wait(self, seconds, *, step_s=1.0):
        """Let time go by."""
        for _ in range(round(seconds / step_s)):
            self.now_s += step_s
            self.evaluation.now()

    def times(self, event, kind):
        """When findings of that kind had that event."""
        return [at_s for at_s, what, finding in self.told if what == event and finding.kind.value == kind]

    @property
    def state(self):
        """Of the model."""
        return self._view.health()[MODEL].state

    def _findings(self, model):
        return self.evaluation.findings(model)

    def _take(self, outcome):
        self.told += [(self.now_s, change.event.value, change.finding) for change in outcome.changes]


def test_a_model_whose_calls_take_long_does_not_hang():
    """Calls of 40 s never are five in a minute; once one of them is known, the others are as long as is usual."""
    world = World()
    world.registry.of(MODEL)
    for number in range(20):
        world.running_since_s = [world.now_s]
        world.wait(40)
        world.end(40.0, cold=number == 0)

    assert max(world.times("opened", "stall")) < 80
    assert len(world.times("closed", "stall")) == len(world.times("opened", "stall"))
    assert world.state is HealthState.OK


@pytest.mark.parametrize("failing", [True, False], ids=["fails", "slow"])
def test_what_is_wrong_with_a_model_is_over_when_nobody_calls_it(failing):
    """As after a rollback: half an hour later it is well, and until then the evidence is that of its calls."""
    world, dice = World(), random.Random(7)

    def serve(seconds, *, slower=1.0, failed=False):
        for _ in range(seconds):
            world.wait(1)
            for _ in range(3):
                world.end(0.1 * slower * dice.lognormvariate(0.0, 0.2), failed=failed and dice.random() < 0.5)

    serve(900)
    serve(60, slower=1.0 if failing else 2.0, failed=failing)
    kind = "error_burst" if failing else "latency_shift"
    assert len(world.times("opened", kind)) == 1
    world.wait(3600, step_s=5.0)

    (closed_s,) = world.times("closed", kind)
    assert 960 + 1800 <= closed_s <= 960 + 1900
    assert world.state is HealthState.OK
    assert not world.evaluation.findings()
    assert all(finding.evidence["calls"] > 0 for _, _, finding in world.told if finding.kind.value == kind)
    assert world.times("opened", "bottleneck") == world.times("closed", "bottleneck") == []


def test_a_few_failures_of_a_model_that_is_seldom_called_are_over_in_time():
    """Four failed calls and no more: not for days."""
    world = World()
    for number in range(4):
        world.wait(20)
        world.end(0.1, failed=True, cold=number == 0)
    world.wait(3600, step_s=5.0)

    assert len(world.times("opened", "error_burst")) == 1
    assert world.times("closed", "error_burst")[0] < 80 + 1900
    assert world.state is HealthState.OK


def test_three_failing_calls_an_hour_go_on_failing():
    """Each comes twenty minutes after the one before, and it is one finding, which began with the first failure."""
    world = World()
    for number in range(12):
        world.wait(1200, step_s=5.0)
        world.end(0.1, failed=number > 2, cold=number == 0)

    assert len(world.times("opened", "error_burst")) == 1
    assert world.times("closed", "error_burst") == []


@pytest.mark.parametrize("calls_per_minute", [10, 30])
def test_a_queue_of_a_few_long_calls_is_found(calls_per_minute):
    """Calls that wait for 20 s and are worked on for 5: as sure as with many, only later."""
    world, dice = World(cpu=0.3, gpu=0.99), random.Random(2)
    for _ in range(600):
        world.wait(1)
        if dice.random() < calls_per_minute / 60:
            world.end(25.0, queue_s=20.0)

    (opened_s,) = world.times("opened", "bottleneck")
    assert opened_s < 300
    finding = next(finding for _, _, finding in world.told if finding.kind.value == "bottleneck")
    assert finding.subject == "queue"
    assert finding.evidence["gpu_ratio"] == 0.99
    assert "idle" not in finding.advice  # the accelerator is what calls wait for


def test_calls_that_wait_for_nothing_take_no_places():
    """Without a limiter four calls at once on one core are no saturation."""
    world = World()
    for _ in range(120):
        world.wait(1)
        for _ in range(4):
            world.end(1.0)

    assert world.told == []


def test_a_queue_is_over_soon_after_the_last_call():
    """Nobody waits where nobody calls."""
    world = World()
    for _ in range(60):
        world.wait(1)
        for _ in range(4):
            world.end(1.0, queue_s=0.8)
            world.end(0.01, failed=True, rejected=True, queue_s=0.01)
    opened = [finding for _, what, finding in world.told if what == "opened"]
    world.wait(180)

    assert {finding.key for finding in opened} >= {"bottleneck:queue:llm", "saturation:concurrency:llm"}
    queue = next(finding for finding in opened if finding.subject == "queue")
    assert queue.evidence["queue_per_call_s"] == 0.8  # of those that were served
    assert not world.evaluation.findings()


def test_the_stages_of_a_compiling_call_are_not_those_of_the_others():
    """What is set against the durations of warm calls that succeeded is of such calls only."""
    world = World()
    for _ in range(50):
        world.end(0.1, stage_ns={"prefill": 20_000_000}, device_s=0.05)
    world.end(30.0, cold=True, stage_ns={"prefill": 29_000_000_000}, device_s=20.0)
    world.end(0.1, failed=True, stage_ns={"prefill": 20_000_000}, device_s=0.05)
    world.now_s = 10.0

    (stretch,) = world.registry.of(MODEL).take_stretches()
    assert stretch.stage_s["prefill"] == pytest.approx(1.0)
    assert stretch.device_s == pytest.approx(2.5)
