"""Causes of slowness put into synthetic streams, with the name under which each is to be found."""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace

from tests.diagnosis.streams import STRETCH_S, Load, Machine, Stream, run

BEGIN_S = 600


@dataclass(kw_only=True)
class Injection:
    """How calls and machine are before the cause, and what it changes."""

    rng: random.Random
    usual: Load
    calls: dict = field(default_factory=dict)
    machine: dict = field(default_factory=dict)
    told: dict = field(default_factory=dict)
    """What else the cause changes on a machine that tells what threads wait for, and how busy processors are."""
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
    # Calls that compute in several threads wait for the slowest of them.
    it.told = {"cpu_busy": 1.0, "call_lock": it.rng.choice([0.03, 0.9 * lost])}


def own_cpu(it):
    """Too many calls at once for the processors."""
    lost = 1 - 1 / it.ratio
    it.machine = {"cpu_wait": max(0.25, lost * it.rng.uniform(0.6, 1)), "cpu_ratio": 0.97, "delay_s": 0.0005}
    it.told = {"cpu_busy": 1.0, "call_lock": 0.1}


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
    it.told = {"call_lock": it.rng.choice([0.03, 0.9 * lost])}


def memory_balloon(it):
    """Memory is taken away, and the kernel reclaims."""
    lost = 1 - 1 / it.ratio
    it.machine = {
        "memory_wait": lost * it.rng.uniform(0.35, 1.0),
        "limit_hits": it.rng.choice([0, 3, 20]),
        "cpu_wait": it.rng.uniform(0.02, 0.2),
        "cpu_ratio": 0.5,
    }
    it.told = {"call_pause": lost * it.rng.uniform(0.0, 0.5)}


def gc_load(it):
    """Collections stop the process; sometimes other threads are seen to wait for the interpreter."""
    lost = 1 - 1 / it.ratio
    it.machine = {
        "gc_ratio": lost * it.rng.uniform(0.5, 1.0),
        "cpu_ratio": 0.55,
        "delay_s": it.rng.choice([0.0003, 0.006]),
    }
    it.told = {"call_lock": 0.1}


def interpreter_lock(it):
    """Threads of Python never let go of the interpreter."""
    it.machine = {"delay_s": it.rng.uniform(0.006, 0.07), "cpu_ratio": 0.45, "cpu_wait": 0.04}
    it.told = {"call_lock": 0.1}


def lock(it):
    """Each call holds a lock that is taken 70 to 90 % of the time."""
    it.usual = replace(it.usual, calls=it.rng.uniform(100, 250))
    taken = it.rng.uniform(0.7, 0.9)
    it.calls = {"locked_s": STRETCH_S / it.usual.calls * taken}
    it.told = {"call_lock": taken * it.rng.uniform(0.8, 1.0)}


def sleep(it):
    """The model sleeps in each call."""
    it.calls = {"added_s": 0.06 * (it.ratio - 1)}
    it.told = {"call_pause": (1 - 1 / it.ratio) * it.rng.uniform(0.8, 1.1)}


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


DISTRACTIONS = {"gc_ratio": 0.05, "memory_wait": 0.15, "cpu_wait": 0.3, "delay_s": 0.008, "cpu_ratio": 0.95}
"""What else may be seen on a machine, and by how much, at another time than the cause."""


_TELLS = 0.5
_TOLD = {"cpu_busy": 0.5, "call_lock": 0.03, "call_pause": 0.05}
"""What half of the machines say when all is well."""


def first_bottleneck(inject, seed):
    """Subject of the first bottleneck that a whole diagnosis finds within 150 s; another signal rises at another time."""
    it = _injection(f"{inject.__name__} {seed}")
    inject(it)
    if it.rng.random() < _TELLS:
        it.healthy, it.machine = replace(it.healthy, **_TOLD), it.machine | it.told
    other, much = it.rng.choice([each for each in DISTRACTIONS.items() if each[0] not in it.machine])
    other_s = it.rng.choice([200, 400, BEGIN_S - 100, BEGIN_S + 120])
    stream = Stream(lambda at_s: replace(it.usual, **it.calls) if at_s >= BEGIN_S else it.usual, seed=seed)
    machine = _lagging(it)

    def distracted(at_s):
        seen = machine(at_s)
        return replace(seen, **{other: max(getattr(seen, other), much)}) if at_s >= other_s else seen

    told, _ = run(stream, BEGIN_S + 150, machine=distracted, seed=seed)
    subjects = [name.partition(":")[2] for name in told.names if name.startswith("bottleneck")]
    return subjects[0] if subjects else None


def _lagging(it):
    """The machine by the time, asked for every five seconds: the kernel's averages follow with a delay of ten."""
    changed, wait = replace(it.healthy, **it.machine), [it.healthy.cpu_wait]

    def machine(at_s):
        now = changed if at_s >= BEGIN_S else it.healthy
        wait[0] += (now.cpu_wait - wait[0]) * 0.4
        return replace(now, cpu_wait=wait[0])

    return machine
