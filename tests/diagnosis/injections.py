"""Causes of slowness put into synthetic streams, with the name under which each is to be found."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field, replace

from tests.diagnosis.streams import STRETCH_S, Load, Machine, Stream

from otel_inference.diagnosis.attribution import causes
from otel_inference.diagnosis.profile import Profile
from otel_inference.diagnosis.scan import Slowdown
from otel_inference.diagnosis.signals import Signals

BEGIN_S = 600


@dataclass(kw_only=True)
class Injection:
    """How calls and machine are before the cause, and what it changes."""

    rng: random.Random
    usual: Load
    calls: dict = field(default_factory=dict)
    machine: dict = field(default_factory=dict)
    healthy: Machine = field(default_factory=Machine)

    @property
    def ratio(self):
        """How much slower calls are to be."""
        return self.calls.get("slower", 1.0)


def _injection(seed):
    """Calls that become 1.3 to 2.5 times as slow, for no reason yet."""
    rng = random.Random(seed)
    usual = Load(calls=rng.choice([20, 50, 100]), sigma=rng.choice([0.3, 0.5]))
    return Injection(rng=rng, usual=usual, calls={"slower": rng.uniform(1.3, 2.5)})


def cpu_hog(it):
    """Another process takes the processors."""
    lost = 1 - 1 / it.ratio
    it.machine = {
        "cpu_wait": max(0.25, lost * it.rng.uniform(0.7, 1.3)),
        "cpu_ratio": 0.4 * it.rng.uniform(0.7, 1.0),
        "gc_ratio": 0.003 * it.ratio,
        "delay_s": 0.0004,
    }


def own_cpu(it):
    """Too many calls at once for the processors."""
    lost = 1 - 1 / it.ratio
    it.machine = {"cpu_wait": max(0.25, lost * it.rng.uniform(0.6, 1)), "cpu_ratio": 0.97, "delay_s": 0.0005}


def throttling(it):
    """A quota stops the process, which the kernel counts as waiting for a processor too."""
    lost = 1 - 1 / it.ratio
    it.healthy = Machine(limit_cores=2.0)
    it.machine = {
        "throttled": max(0.3, lost * it.rng.uniform(0.8, 1.5)),
        "cpu_wait": lost * it.rng.uniform(0.7, 1.2),
        "cpu_ratio": 0.95,
        "delay_s": 0.001,
    }


def memory_balloon(it):
    """Memory is taken away, and the kernel reclaims."""
    lost = 1 - 1 / it.ratio
    it.machine = {
        "memory_wait": lost * it.rng.uniform(0.35, 1.0),
        "limit_hits": it.rng.choice([0, 3, 20]),
        "cpu_wait": it.rng.uniform(0.02, 0.2),
        "cpu_ratio": 0.5,
    }


def gc_load(it):
    """Collections stop the process; sometimes other threads are seen to wait for the interpreter."""
    lost = 1 - 1 / it.ratio
    it.machine = {
        "gc_ratio": lost * it.rng.uniform(0.5, 1.0),
        "cpu_ratio": 0.55,
        "delay_s": it.rng.choice([0.0003, 0.006]),
    }


def interpreter_lock(it):
    """Threads of Python never let go of the interpreter."""
    it.machine = {"delay_s": it.rng.uniform(0.006, 0.07), "cpu_ratio": 0.45, "cpu_wait": 0.04}


def lock(it):
    """Each call holds a lock that is taken 70 to 90 % of the time."""
    it.usual = replace(it.usual, calls=it.rng.uniform(100, 250))
    it.calls = {"locked_s": STRETCH_S / it.usual.calls * it.rng.uniform(0.7, 0.9)}


def sleep(it):
    """The model sleeps in each call."""
    it.calls = {"added_s": 0.06 * (it.ratio - 1)}


def tokenizer(it):
    """Preparing the input, which took little, takes all that was added."""
    it.usual = replace(it.usual, stages={"preprocess": 0.05, "forward": 0.9})
    it.calls["stages"] = {"preprocess": 1 - 0.95 / it.ratio, "forward": 0.9 / it.ratio}


def decoding(it):
    """Writing tokens takes longer."""
    it.usual = replace(it.usual, stages={"prefill": 0.3, "decode": 0.7})
    it.calls["stages"] = {"prefill": 0.3 / it.ratio, "decode": 1 - 0.3 / it.ratio}


INJECTED = {
    cpu_hog: "cpu",
    own_cpu: "cpu",
    throttling: "cpu_throttled",
    memory_balloon: "memory",
    gc_load: "gc",
    interpreter_lock: "lock",
    lock: "lock",
    sleep: "model",
    tokenizer: "preprocess",
    decoding: "decode",
}


def first_cause(inject, seed):
    """Subject of the likeliest cause, looked for 40 to 120 s after it began, its begin known to 20 s or so."""
    it = _injection(f"{inject.__name__} {seed}")
    inject(it)
    ends_s = BEGIN_S + it.rng.choice([40, 60, 120])
    stream = Stream(lambda at_s: replace(it.usual, **it.calls) if at_s >= BEGIN_S else it.usual, seed=seed)
    stretches = [stream.stretch(started_s) for started_s in range(0, ends_s, round(STRETCH_S))]
    before = [each for each in stretches if each.started_s < BEGIN_S]
    after = [each for each in stretches if each.started_s >= BEGIN_S]
    usual = sum(map(_log_service, before)) / len(before)
    slowdown = Slowdown(
        since_s=BEGIN_S + it.rng.choice([-20, -10, 0, 10]),
        at_s=ends_s,
        ratio=math.exp(sum(map(_log_service, after)) / len(after) - usual),
        before=Profile.of(before[-30:]),
        after=Profile.of(after[-6:]),
        course=[(each.ended_s, _log_service(each) - usual) for each in stretches[-60:]],
    )
    return causes(slowdown, _signals(it, ends_s))[0].subject


def _signals(it, ends_s):
    """What the probes saw; the kernel's averages follow with a delay of ten seconds."""
    signals, wait = Signals(), it.healthy.cpu_wait
    changed = replace(it.healthy, **it.machine)
    for at_s in range(0, ends_s, 2):
        machine = changed if at_s >= BEGIN_S else it.healthy
        wait += (machine.cpu_wait - wait) * 0.2
        signals.note(replace(machine, cpu_wait=wait).reading(at_s, it.rng), at_s)
    return signals


def _log_service(stretch):
    calls = sum(each.calls for each in stretch.by_size.values())
    return sum(each.log_service for each in stretch.by_size.values()) / max(calls, 1)
