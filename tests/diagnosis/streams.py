"""Synthetic calls and readings on a manual clock, and what a diagnosis makes of them."""

from __future__ import annotations

import copy
import functools
import math
import random
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from otel_inference.diagnosis.diagnosis import Diagnosis
from otel_inference.diagnosis.observation import ModelObservation
from otel_inference.finding import FindingEvent
from otel_inference.health.horizon import HorizonCounts
from otel_inference.health.sketch import QuantileSketch
from otel_inference.health.snapshot import ModelHealth, latency_of
from otel_inference.health.stretch import Exemplar, Stretch
from otel_inference.health.window import WindowSnapshot, wilson_interval
from otel_inference.resources.reading import Pressure, Reading

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
GIB = 1 << 30
STRETCH_S = 10.0


@dataclass(frozen=True, kw_only=True)
class Load:
    """How calls of one model are, for a stretch."""

    calls: float = 30.0
    """Expected number in ten seconds."""
    slower: float = 1.0
    """Factor on the work of every call."""
    added_s: float = 0.0
    """Seconds that every call sleeps in the model."""
    slow_from: int = 1 << 40
    """Size of input from which on calls take `slow_by` times as long."""
    slow_by: float = 1.0
    sizes: tuple[int, ...] = (64, 128, 256, 512)
    sigma: float = 0.3
    failing: float = 0.0
    rejected: float = 0.0
    queue_s: float = 0.0
    locked_s: float = 0.0
    """Seconds that each call holds a lock which all calls take."""
    stages: dict[str, float] = field(default_factory=dict)
    """Shares of the service by stage."""
    cold: int = 0
    """First calls in the stretch, a hundred times as slow."""
    active_calls: int = 1
    oldest_active_s: float = 0.1
    utilization: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What the probes see, on average."""

    cpu_ratio: float = 0.4
    limit_cores: float = 4.0
    cpu_wait: float = 0.02
    throttled: float = 0.0
    rss_bytes: float = 2.0 * GIB
    memory_limit_bytes: int = 16 * GIB
    memory_wait: float = 0.0
    limit_hits: int = 0
    gc_ratio: float = 0.003
    delay_s: float = 0.0002
    cpu_busy: float | None = None
    """Whether the processors are in use by anybody; `None` where that cannot be read, as of what follows."""
    call_lock: float | None = None
    call_pause: float | None = None

    def reading(self, at_s, rng):
        """A reading with some noise."""

        def noisy(value, top=1.0):
            return min(top, max(0.0, value * rng.lognormvariate(0, 0.2)))

        cpu = min(1.0, max(0.0, rng.gauss(self.cpu_ratio, 0.03)))
        return Reading(
            at_s=at_s,
            utilization={"cpu": cpu, "memory": self.rss_bytes / self.memory_limit_bytes},
            cpu_used_cores=cpu * self.limit_cores,
            cpu_limit_cores=self.limit_cores,
            cpu_throttled_ratio=noisy(self.throttled),
            cpu_pressure=Pressure(some_avg10_ratio=noisy(self.cpu_wait), is_own_group=True),
            rss_bytes=int(self.rss_bytes * rng.uniform(0.995, 1.005)),
            memory_limit_bytes=self.memory_limit_bytes,
            memory_limit_hits=self.limit_hits,
            memory_pressure=Pressure(some_avg10_ratio=noisy(self.memory_wait), is_own_group=True),
            gc_pause_ratio=noisy(self.gc_ratio),
            interpreter_delay_s=noisy(self.delay_s),
            cpu_busy_ratio=None if self.cpu_busy is None else noisy(self.cpu_busy),
            call_lock_ratio=None if self.call_lock is None else noisy(self.call_lock),
            call_pause_ratio=None if self.call_pause is None else noisy(self.call_pause),
        )


@dataclass(frozen=True)
class During:
    """One thing for a time, and another before and after."""

    begin_s: float
    end_s: float
    usual: Load
    other: Load

    def __call__(self, at_s):
        """What holds then."""
        return self.other if self.begin_s <= at_s < self.end_s else self.usual


class Stream:
    """Calls of one model: `load` tells by the time how they are."""

    def __init__(self, load, *, model="ranker", seed=1):
        """Begin at time 0."""
        self.load = load if callable(load) else during(0.0, 0.0, load)
        self.model = model
        self.rng = random.Random(f"{model} {seed}")
        self.counts = HorizonCounts()
        self.slow = HorizonCounts()
        self.threshold_s = 0.5
        self.recent = []
        self.sketch = QuantileSketch()
        for _ in range(100):
            self.sketch.add(0.05 * self.rng.lognormvariate(0, 0.3))

    def stretch(self, started_s):
        """The calls of ten seconds."""
        load, rng = self.load(started_s), self.rng
        stretch = Stretch(started_s, started_s + STRETCH_S)
        lock_free_s = -math.inf
        for index in range(_poisson(rng, load.calls)):
            rejected = rng.random() < load.rejected
            failed = rejected or rng.random() < load.failing
            cold = index < load.cold
            size = rng.choice(load.sizes)
            size += rng.randrange(max(1, size // 2))
            service_s = (0.005 + 0.0002 * size) * rng.lognormvariate(0, load.sigma) * load.slower + load.added_s
            service_s *= (load.slow_by if size >= load.slow_from else 1.0) * (100 if cold else 1)
            if load.locked_s:
                at_s = STRETCH_S * index / load.calls + rng.random()
                lock_free_s = max(lock_free_s, at_s) + load.locked_s * rng.uniform(0.5, 1.5)
                service_s += lock_free_s - at_s
            queue_s = load.queue_s * rng.uniform(0.5, 1.5)
            exemplar = Exemplar(int(started_s) + 1, index + 1)
            stretch.add(
                service_s + queue_s,
                failed=failed,
                rejected=rejected,
                cold=cold,
                input_size=size,
                queue_s=queue_s,
                exemplar=exemplar,
            )
            self.counts.add(stretch.ended_s - 0.001, failed=failed)
            if not failed:
                self.slow.add(stretch.ended_s - 0.001, failed=service_s + queue_s > self.threshold_s)
                stretch.add_stages({stage: int(1e9 * share * service_s) for stage, share in load.stages.items()})
        self.recent = [*self.recent[-5:], stretch]
        return stretch

    def observation(self, at_s, stretches):
        """What an evaluation finds."""
        load = self.load(at_s)
        calls, errors = sum(each.calls for each in self.recent), sum(each.errors for each in self.recent)
        window = WindowSnapshot(
            covered_s=min(60.0, at_s),
            calls=calls,
            errors=errors,
            warm_calls=calls,
            warm_total_s=sum(each.duration_s for each in self.recent),
            max_s=max((each.max_s for each in self.recent), default=0.0),
            sketch=self.sketch,
        )
        health = ModelHealth(
            model=self.model,
            throughput=calls / 60,
            latency=latency_of(window),
            error_ratio=errors / calls if calls else 0.0,
            error_ratio_interval=wilson_interval(errors, calls),
            utilization=load.utilization,
            active_calls=load.active_calls,
            oldest_active_s=load.oldest_active_s,
            calls=calls,
            errors=errors,
            window=window,
        )
        return ModelObservation(
            health=health,
            stretches=stretches,
            errors=lambda horizon_s: self.counts.counts(horizon_s, at_s),
            slow=lambda horizon_s: self.slow.counts(horizon_s, at_s),
            age_s=at_s,
            stalled=Exemplar(7, 8),
        )


@dataclass
class Told:
    """What changed, by time in seconds."""

    changes: list = field(default_factory=list)

    def at(self, event, name):
        """When findings called `name` (kind, or kind:subject) had that event."""
        return [at_s for at_s, change in self.changes if change.event is event and _named(change.finding, name)]

    def opened(self, name):
        """When it opened."""
        return self.at(FindingEvent.OPENED, name)

    def closed(self, name):
        """When it closed."""
        return self.at(FindingEvent.CLOSED, name)

    def first(self, name):
        """As it was told of first."""
        return next(change.finding for _, change in self.changes if _named(change.finding, name))

    def last(self, name):
        """As it was told of last."""
        return [change.finding for _, change in self.changes if _named(change.finding, name)][-1]

    @property
    def names(self):
        """What was opened, each once, in the order of first openings."""
        return list(
            dict.fromkeys(
                f"{change.finding.kind.value}:{change.finding.subject}"
                if change.finding.subject
                else change.finding.kind.value
                for _, change in self.changes
                if change.event is FindingEvent.OPENED
            )
        )


def _named(finding, name):
    kind, _, subject = name.partition(":")
    return finding.kind.value == kind and (not subject or finding.subject == subject)


def run(streams, until_s, *, machine=None, diagnosis=None, step_s=5.0, seed=1, from_s=0.0, told=None):
    """Evaluate every `step_s` until `until_s`; gives what was told, and the diagnosis.

    `machine` is a `Machine` or tells one by the time; `None` for no readings.
    """
    streams = [streams] if isinstance(streams, Stream) else streams
    diagnosis, told = diagnosis or Diagnosis(), told or Told()
    rng = random.Random(seed)
    at_s = from_s
    while at_s < until_s:
        before_s, at_s = at_s, at_s + step_s
        begins_s = [index * STRETCH_S for index in range(int(before_s // STRETCH_S), int(at_s // STRETCH_S))]
        models = {
            each.model: each.observation(at_s, [each.stretch(begin_s) for begin_s in begins_s]) for each in streams
        }
        now_machine = machine(at_s) if callable(machine) else machine
        reading = None if now_machine is None else now_machine.reading(at_s, rng)
        changes = diagnosis.evaluate(at_s, EPOCH + timedelta(seconds=at_s), models, reading)
        told.changes += [(at_s, change) for change in changes]
    return told, diagnosis


def during(begin_s, end_s, usual, **changed):
    """`usual`, but with some fields changed from `begin_s` to `end_s`."""
    return During(begin_s, end_s, usual, replace(usual, **changed))


BEGIN_S, END_S, UNTIL_S = 720.0, 1200.0, 1440.0
"""What goes wrong begins, ends, and is looked at until then."""
USUAL = Load()
QUIET = Machine()


@functools.cache
def _warmed_up(machine):
    """Usual calls on a quiet machine, up to where something goes wrong."""
    stream, diagnosis = Stream(USUAL), Diagnosis()
    told, _ = run(stream, BEGIN_S, machine=machine, diagnosis=diagnosis)
    return stream, diagnosis, told


def run_wrong(load, until_s=END_S, *, machine=QUIET, quiet=QUIET, step_s=5.0):
    """As `run`, with calls and a machine that were usual and `quiet` until 720 s: that part is run once for all tests."""
    stream, diagnosis, told = copy.deepcopy(_warmed_up(quiet))
    stream.load = load
    return run(stream, until_s, machine=machine, diagnosis=diagnosis, told=told, from_s=BEGIN_S, step_s=step_s)


def wrong(usual=USUAL, **changed):
    """Calls that differ from the usual ones from 720 to 1200 s."""
    return during(BEGIN_S, END_S, usual, **changed)


def opens_within(told, name, delay_s):
    """Whether it opened once, and at most `delay_s` after the begin."""
    opened = told.opened(name)
    return len(opened) == 1 and BEGIN_S < opened[0] <= BEGIN_S + delay_s


def closes_within(told, name, delay_s):
    """Whether it closed once, and at most `delay_s` after the end."""
    closed = told.closed(name)
    return len(closed) == 1 and END_S < closed[0] <= END_S + delay_s


def _poisson(rng, mean):
    if mean <= 0:
        return 0
    if mean > 30:
        return max(0, round(rng.gauss(mean, math.sqrt(mean))))
    count, left = 0, math.exp(-mean)
    product = rng.random()
    while product > left:
        count += 1
        product *= rng.random()
    return count
