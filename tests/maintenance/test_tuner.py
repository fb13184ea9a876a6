"""What a tuner tries, keeps and puts back, on servers whose best setting is known."""

from __future__ import annotations

import math
import random
from itertools import pairwise
from threading import Event, Thread

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_inference import guard
from otel_inference.errors import ConfigError, KnobError
from otel_inference.health.stretch import Stretch
from otel_inference.maintenance.knob import Knob
from otel_inference.maintenance.tuner import JOURNAL_LENGTH, Tuner
from otel_inference.maintenance.tuning import TuningWindow


class _Server:
    """Works on batches one after the other: a batch of n takes 4 n + 32 ms; its 95th percentile is 1.3 times that."""

    def __init__(self, size=1, *, noise=0.0, seed=0, levels=(1, 2, 4, 8, 16, 32, 64)):
        self.size = size
        self.slower = 1.0
        self.waiting = 1.0
        self.fails_above = math.inf
        self.calls = 100
        self.tuner = None
        self.sizes = []
        """By window."""
        self._rng = random.Random(seed)
        self._noise = noise
        self.knob = Knob("size", lambda: self.size, self.set, levels=levels, timeout_s=0.5)

    def set(self, size):
        self.size = size

    def window(self):
        fails = self.size > self.fails_above
        service_s = self.slower * (0.004 * self.size + 0.032)
        self.sizes.append(self.size)
        return TuningWindow(
            at_s=10.0 * len(self.sizes),
            duration_s=10.0,
            calls=0 if fails else self.calls,
            work=0.0 if fails else float(self.calls * self.size),
            mean_service_s=service_s * self._rng.lognormvariate(0, self._noise),
            p95_s=1.3 * self.waiting * service_s * self._rng.lognormvariate(0, self._noise),
            errors=self.calls if fails else 0,
        )

    def tune(self, windows=100, **options):
        self.tuner = self.tuner or Tuner([self.knob], **options)
        return [record for _ in range(windows) for record in self.tuner.step(self.window())]


def _outcomes(records):
    return [str(record.outcome) for record in records]


@pytest.mark.parametrize(("slo_p95_s", "best"), [(None, 64), (0.2, 16), (0.055, 1)])
def test_finds_the_largest_batch_that_keeps_to_the_objective(slo_p95_s, best):
    """Without an objective the fastest level wins, with one the fastest within it."""
    server = _Server(noise=0.05)
    server.tune(120, slo_p95_s=slo_p95_s)

    assert server.tuner.best == {"size": best}
    assert server.sizes[-20:].count(best) >= 12


def test_compares_in_blocks_that_alternate():
    """Base and candidate take turns as A B B A, so that a drift meets both."""
    server = _Server(size=8, levels=[8, 16])
    server.tune(9)

    assert server.sizes[:9] == [8, 16, 16, 8, 8, 16, 16, 8, 16]
    assert _outcomes(server.tuner.journal) == ["accepted"]
    assert server.tuner.journal[0].pairs == 4


def test_puts_back_what_is_slower():
    """A candidate that does less is not kept, and the record says by how much."""
    server = _Server(size=64, levels=[4, 64])
    (record,) = server.tune(8)

    assert (record.outcome, record.before, record.after, server.size) == ("rejected", 64, 4, 64)
    assert record.gain == pytest.approx(4 / 48 * 288 / 64 - 1)


def test_gives_up_at_once_what_breaks_the_objective():
    """A candidate is put back after two windows over the objective, and left alone for long."""
    server = _Server(size=8, levels=[8, 64])
    records = server.tune(120, slo_p95_s=0.2)

    assert server.sizes[:4] == [8, 64, 64, 8]
    assert _outcomes(records) == ["aborted"]
    assert server.sizes.count(64) == 2


def test_pauses_longer_and_longer():
    """When nothing is better, the tuner rests for 8 windows, then 16, up to 64."""
    server = _Server(size=64, levels=[4, 64])
    server.tune(300)
    begins = [index for index in range(1, 300) if server.sizes[index - 1 : index + 1] == [64, 4]]
    trials = [begin for last, begin in zip([-9, *begins], begins, strict=False) if begin - last > 4]

    pauses = [later - earlier for earlier, later in pairwise(trials)]
    assert all(later >= earlier for earlier, later in pairwise(pauses))
    assert pauses[0] < 20
    assert 64 < pauses[-1] < 80


def test_steps_down_at_once_when_the_machine_slows():
    """A base over the objective in two windows of three is lowered without a trial."""
    server = _Server(size=16)
    server.tune(30, slo_p95_s=0.15)
    server.slower = 1.5
    records = server.tune(3)

    assert _outcomes(records) == ["relieved"]
    assert server.size == 8


def test_puts_a_step_down_back_that_made_it_worse():
    """Where a smaller batch only lets the queue grow, the batch is put back and not lowered again soon."""
    server = _Server(size=16, levels=[8, 16])
    server.tune(4, slo_p95_s=0.15)
    for _ in range(60):
        server.waiting = 4.0 if server.size == 16 else 10.0
        server.tune(1)

    assert [each for each in _outcomes(server.tuner.journal) if each in {"relieved", "restored"}] == [
        "relieved",
        "restored",
    ]
    assert server.tuner.best == {"size": 16}


def test_begins_anew_when_the_service_changes():
    """After a drift of the speed under one setting, what was rejected is tried again at once."""
    server = _Server(size=64, levels=[4, 64])
    server.tune(150)
    server.slower = 0.6
    records = server.tune(20)

    assert _outcomes(records)[0] == "reopened"
    assert 4 in server.sizes[-20:]


def test_never_keeps_a_setting_under_which_calls_fail():
    """A level under which every call fails is left at once, although it is the fastest by far."""
    server = _Server(noise=0.05)
    server.fails_above = 8
    server.tune(200)

    assert server.tuner.best == {"size": 8}
    assert sum(size > 8 for size in server.sizes) <= 2
    assert "of 100 calls failed" in next(r.reason for r in server.tuner.journal if r.outcome == "aborted")


def test_gives_up_quality_only_while_it_must():
    """A brown-out knob goes down with the objective broken, and up again to where it was, but is never tried lower."""
    server = _Server(size=16)
    server.knob = Knob("size", lambda: server.size, server.set, levels=[4, 8, 16], brown_out=True)
    server.tune(60, slo_p95_s=0.2)
    assert set(server.sizes) == {16}
    server.waiting = 3.0
    server.tune(40)
    assert server.tuner.best == {"size": 4}
    server.waiting = 1.0
    server.tune(100)
    assert server.tuner.best == {"size": 16}


def test_tunes_several_knobs_one_at_a_time():
    """Two knobs reach their joint optimum, and a trial differs from the best known setting in one of them."""
    setting = {"size": 1, "threads": 6}
    cost = {1: 1.05, 2: 0.77, 3: 0.70, 4: 0.79, 6: 0.99}
    knobs = [
        Knob("size", lambda: setting["size"], lambda size: setting.update(size=size), levels=[1, 2, 4, 8]),
        Knob("threads", lambda: setting["threads"], lambda count: setting.update(threads=count), levels=list(cost)),
    ]
    tuner, rng = Tuner(knobs), random.Random(1)
    for index in range(200):
        service_s = (0.004 * setting["size"] + 0.03) * cost[setting["threads"]] * rng.lognormvariate(0, 0.05)
        at_s, work = 10.0 * index, 100.0 * setting["size"]
        tuner.step(
            TuningWindow(at_s=at_s, duration_s=10, calls=100, work=work, mean_service_s=service_s, p95_s=service_s)
        )
        assert sum(tuner.setting[name] != value for name, value in tuner.best.items()) <= 1
    assert tuner.best == {"size": 8, "threads": 3}


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 10_000), noise=st.floats(0, 0.5), slo=st.floats(0.01, 1.0))
def test_stays_within_bounds_and_undoes_whatever_happens(seed, noise, slo):
    """Whatever the windows say, only levels are set, and `undo` leaves what was at the start."""
    server, rng = _Server(size=8, noise=noise, seed=seed), random.Random(seed)
    for _ in range(60):
        server.slower, server.waiting = rng.choice([0.5, 1.0, 3.0]), rng.choice([1.0, 1.0, 20.0])
        server.calls, server.fails_above = rng.choice([0, 5, 100]), rng.choice([4, 1000])
        server.tune(1, slo_p95_s=slo)
    server.tuner.undo()

    assert set(server.sizes) <= set(server.knob.levels)
    assert server.size == 8


def test_stop_leaves_the_best_known_setting():
    """Stopped in the middle of a trial, the tuner puts the base back and does nothing any more."""
    server = _Server(size=8, levels=[8, 16, 32])
    server.tune(10)
    assert (server.size, server.tuner.best) == (32, {"size": 16})
    server.tuner.stop()
    assert server.size == 16
    server.tune(20)
    assert set(server.sizes[10:]) == {16}
    server.tuner.undo()
    assert server.size == 8
    assert _outcomes(server.tuner.journal) == ["accepted", "undone", "undone"]


def test_a_stop_while_a_knob_is_being_set_is_done_after_it():
    """`stop` does not wait for a step that runs elsewhere; that step puts the base back at its end."""
    server, setting, go_on = _Server(size=8), Event(), Event()

    def slowly(size):
        setting.set()
        go_on.wait(5)
        server.size = size

    server.knob = Knob("size", lambda: server.size, slowly, levels=[8, 16])
    server.tuner = Tuner([server.knob])
    stepping = Thread(target=server.tune, args=(1,))
    stepping.start()
    setting.wait(5)
    server.tuner.stop()
    assert stepping.is_alive()
    go_on.set()
    stepping.join()
    assert server.size == 8


def test_a_setter_that_raises_leaves_the_old_value_and_is_reported():
    """After three failures the knob is left alone."""
    server = _Server(size=8)

    def refuse(size):
        msg = f"no memory for {size}"
        raise MemoryError(msg)

    server.knob = Knob("size", lambda: server.size, refuse, levels=[8, 16])
    records = server.tune(100)

    assert set(server.sizes) == {8}
    assert _outcomes(records) == ["failed"] * 3
    assert "no memory for 16" in records[0].reason
    assert "left alone after 3 failures" in records[2].reason


def test_a_setter_that_hangs_leaves_the_old_value_and_is_reported():
    """The tuner goes on without the knob, and a value that arrives late is taken back."""
    server, released = _Server(size=8), Event()

    def hang(size):
        if size == 16:
            released.wait(5)
        server.size = size

    server.knob = Knob("size", lambda: server.size, hang, levels=[8, 16], timeout_s=0.02)
    records = server.tune(20)
    assert set(server.sizes) == {8}
    assert set(_outcomes(records)) == {"failed"}
    assert "did not return within 0.02 s" in records[0].reason
    late = server.knob._late
    released.set()
    while late.running:
        Event().wait(0.001)
    assert server.size == 8


def test_tries_to_put_the_base_back_until_it_can():
    """While a candidate cannot be taken back, its windows count for nothing."""
    server, broken = _Server(size=8), []

    def put(size):
        if broken:
            raise OSError(broken.pop())
        server.size = size

    server.knob = Knob("size", lambda: server.size, put, levels=[8, 16])
    server.tune(2)
    broken += ["one", "two"]
    server.tune(2)
    assert server.size == 16
    server.tune(1)
    assert server.size == 8
    assert _outcomes(server.tuner.journal) == ["failed", "failed"]


def test_yields_to_somebody_else():
    """A value that somebody else set is taken as the one to start from and to go back to."""
    server = _Server(size=8)
    server.tune(3)
    server.size = 10
    records = server.tune(1)
    assert _outcomes(records) == ["yielded"]
    server.tune(60)
    assert server.tuner.best == {"size": 64}
    server.tuner.undo()
    assert server.size == 10


def test_leaves_a_knob_alone_that_was_set_outside_its_levels():
    """Somebody who goes beyond the levels wants no tuning."""
    server = _Server(size=8)
    server.tune(3)
    server.size = 1000
    server.tune(100)
    server.tuner.undo()

    assert server.size == 1000
    assert _outcomes(server.tuner.journal) == ["yielded"]


def test_leaves_out_windows_of_calls_from_before_a_change():
    """Where calls last longer than a fifth of a window, the window after a change is not counted."""
    server = _Server(size=8, levels=[8, 16])
    server.waiting = 50.0
    server.tune(5)

    assert server.sizes == [8, 16, 16, 16, 8]


def test_puts_small_windows_together():
    """With 10 calls in a window a block takes two of them."""
    server = _Server(size=8, levels=[8, 16])
    server.calls = 10
    server.tune(8)

    assert server.sizes == [8, 8, 16, 16, 16, 16, 8, 8]


def test_ends_a_trial_that_sees_too_few_calls():
    """When the traffic stops, a candidate does not stay in force."""
    server = _Server(size=8, levels=[8, 16])
    server.tune(2)
    server.calls = 0
    records = server.tune(10)

    assert _outcomes(records) == ["rejected"]
    assert "too few calls" in records[0].reason
    assert server.size == 8


def test_maximises_what_the_user_says():
    """A custom objective decides, and a window for which it fails is left out."""
    server = _Server(size=8)
    server.tune(60, objective=lambda window: 1 / window.mean_service_s)
    assert server.tuner.best == {"size": 1}

    other = _Server(size=8)
    before = guard.error_counts().get("tuner.objective", 0)
    other.tune(30, objective=lambda window: 1 / 0)
    assert other.tuner.best == {"size": 8}
    assert guard.error_counts()["tuner.objective"] == before + 30
    guard._errors.clear()


def test_takes_stretches_of_health():
    """Ten seconds of calls as health counts them are a window, whatever sizes the calls have."""
    threads, rng = {"count": 1}, random.Random(0)
    knob = Knob("threads", lambda: threads["count"], lambda count: threads.update(count=count), levels=[1, 2, 4])
    tuner = Tuner([knob])
    for index in range(60):
        stretch = Stretch(10.0 * index, 10.0 * index + 10)
        for _ in range(100):
            size = rng.choice([10, 100, 1000])
            stretch.add(0.0001 * size / threads["count"] ** 0.5 * rng.lognormvariate(0, 0.2), input_size=size)
        tuner.observe(stretch)

    assert tuner.best == {"threads": 4}


def test_the_journal_is_bounded():
    """Only the last entries are kept."""
    server = _Server(size=8, levels=[8, 16])
    server.tune(1)
    for index in range(JOURNAL_LENGTH + 10):
        server.size = 8 if index % 2 else 16
        server.tune(1)

    assert len(server.tuner.journal) == JOURNAL_LENGTH


@pytest.mark.parametrize("knobs", [[], [_Server().knob, _Server().knob], ["size"]])
def test_needs_knobs_of_different_names(knobs):
    """No knob, two of one name, or something else is an error of the caller's."""
    with pytest.raises(ConfigError, match="expected one or more Knob objects"):
        Tuner(knobs)


@pytest.mark.parametrize("knobs", [_Server().knob, 8])
def test_needs_a_list_of_knobs(knobs):
    """A knob by itself, or no list, is refused with what to write."""
    with pytest.raises(ConfigError, match=r"expected a list .* such as Tuner\(\[knob\]\)"):
        Tuner(knobs)


@pytest.mark.parametrize("slo_p95_s", [0, -1, math.nan])
def test_needs_an_objective_that_means_something(slo_p95_s):
    """An objective is a time."""
    with pytest.raises(ConfigError, match="expected seconds greater than 0"):
        Tuner([_Server().knob], slo_p95_s=slo_p95_s)


def test_needs_levels_that_include_the_value_in_force():
    """A knob that stands outside its levels is an error that says what to do."""
    with pytest.raises(KnobError, match=r"knob 'size' reads 100; expected from 1 to 64: give it levels"):
        Tuner([_Server(size=100).knob])


def test_starts_from_a_value_between_levels():
    """A value that is no level is one as long as the tuner runs."""
    server = _Server(size=10, levels=[8, 16])
    server.tune(1)
    server.tuner.undo()

    assert (server.size, server.tuner.best) == (10, {"size": 10})


def test_works_in_a_forked_child():
    """A child forked while the parent's tuner was at work has its own turn."""
    server = _Server(size=8, levels=[8, 16])
    server.tune(1)
    server.tuner._turn.acquire()
    assert server.tune(20) == []
    server.tuner.reset_after_fork()
    server.tune(20)

    assert server.tuner.best == {"size": 16}
