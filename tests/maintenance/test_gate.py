"""Who may run, who may wait and who is turned away, decided without a clock or a lock of its own."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_inference.errors import ConfigError
from otel_inference.maintenance.gate import Gate


def taught(service_s=0.1, *, deadline_s=1.0, workers=1, size=None, calls=40, **options):
    """A gate that has seen calls of one length, one after the other, the last of which ended at time 0."""
    gate = Gate(deadline_s, workers, **options)
    for call in range(calls):
        start = (call - calls) * service_s
        assert gate.admit(start, 0, 0, size)
        gate.finished(start + service_s, start, service_s, size)
    return gate


def queue(gate, calls, *, at=0.0, running=1, queued=0, size=None):
    """How many of so many calls that arrive at once are let in to wait."""
    let_in = 0
    for _ in range(calls):
        let_in += gate.admit(at, running, queued + let_in, size)
    return let_in


class TestAdmission:
    """At arrival."""

    def test_lets_a_call_start_where_a_place_is_free(self):
        """With nobody waiting, as many as k are let in."""
        gate = taught(workers=2)

        assert gate.admit(0.0, 0, 0)
        assert gate.admit(0.0, 1, 0)
        assert gate.run_limit(0.0) == 2

    def test_lets_wait_whoever_can_be_done_in_time(self):
        """A burst at one place, of calls of 0.1 s within 1 s: as many wait as leave the last its own 0.1 s."""
        assert queue(taught(), 20) == 9

    def test_more_places_let_more_wait(self):
        """The wait is shared by the places."""
        assert queue(taught(workers=4), 60, running=4) == pytest.approx(4 * 9, abs=1)

    def test_a_queue_that_stands_is_kept_shorter_than_a_burst(self):
        """Of the same arrivals one may wait in a queue that was empty of late, and may not where it never was."""
        fresh, stood = taught(), taught()
        queue(fresh, 9)
        queue(stood, 8)
        for step in range(1, 11):
            assert stood.may_start(step * 0.15, 0.5)
            stood.finished(step * 0.15 + 0.1, step * 0.15, 0.1)
            stood.admit(step * 0.15 + 0.12, 1, 7)

        assert fresh.admit(0.0, 1, 8)
        assert not stood.admit(1.6, 1, 8)

    def test_overload_keeps_the_queue_just_long_enough(self):
        """With four in five turned away, three waiting calls keep a place busy; one more would only be later."""
        gate = taught(0.05, workers=4)
        for _ in range(400):
            gate.admit(0.0, 4, 100)

        assert gate.admit(0.0, 4, 0)
        assert not gate.admit(0.0, 4, 5)

    def test_a_pause_ends_the_overload(self):
        """A burst after a pause is treated as after a quiet hour."""
        gate = taught(0.05, workers=4)
        for _ in range(400):
            gate.admit(0.0, 4, 100)

        assert gate.admit(2.0, 4, 0)
        assert gate.admit(2.0, 4, 5)

    def test_a_request_may_bring_its_own_deadline(self):
        """The stricter deadline turns away where the gate's would not; one that has passed lets nothing in."""
        gate = taught()

        assert gate.admit(0.0, 1, 3)
        assert not gate.admit(0.0, 1, 3, None, 0.3)
        assert gate.admit(0.0, 1, 3, None, 0.9)
        assert not gate.admit(0.0, 0, 0, None, 0.0)

    def test_nothing_known_lets_few_wait(self):
        """Before the first call has ended the queue is bounded all the same, also without a deadline."""
        for deadline_s in (0.5, None):
            assert queue(Gate(deadline_s, 2), 100, running=2) == 20

    def test_a_hung_server_makes_no_error(self):
        """However many are turned away while nothing ends, the gate goes on answering."""
        gate = taught()
        queue(gate, 9)
        for _ in range(60_000):
            assert not gate.admit(0.5, 1, 9)

        assert gate.admit(0.5, 1, 1)


class TestSizes:
    """Where the size of a call is known before it runs."""

    def sized(self, **options):
        """A gate that knows 0.02 s and 0.001 s per unit of size."""
        gate = Gate(1.0, 1, **options)
        for call in range(200):
            size = 10 + call * 37 % 150
            assert gate.admit(call, 0, 0, size)
            gate.finished(call + 0.5, call, 0.02 + 0.001 * size, size)
        return gate

    def test_learns_what_is_fixed_and_what_grows(self):
        """Also of a size never seen."""
        gate = self.sized()

        assert gate.expected_s(10) == pytest.approx(0.03, rel=0.05)
        assert gate.expected_s(800) == pytest.approx(0.82, rel=0.05)

    def test_waits_for_the_work_before_it_not_for_the_calls(self):
        """Nine small calls before one are no hindrance, nine large ones are."""
        small, large = self.sized(), self.sized()

        assert queue(small, 9, at=300.0, size=20) == 9
        assert small.admit(300.0, 1, 9, 20)
        assert queue(large, 9, at=300.0, size=150) < 9

    def test_a_call_that_takes_too_long_runs_only_on_a_free_place(self):
        """The forecast may be wrong: where nobody is kept waiting it is tried."""
        gate = self.sized()

        assert not gate.admit(300.0, 1, 0, 2000)
        assert gate.admit(300.0, 0, 0, 2000)

    def overloaded(self, sizes):
        """A gate whose calls have such sizes in turn and take 0.001 s for each unit; all but few are turned away."""
        gate = Gate(1.0, 1)
        for call in range(200):
            size = sizes[call % len(sizes)]
            assert gate.admit(call, 0, 0, size)
            gate.finished(call + 0.5, call, 0.001 * size, size)
        for _ in range(400):
            gate.admit(300.0, 1, 10**6, 100)
        return gate

    def test_overload_turns_nobody_away_for_a_size_that_fits(self):
        """What needs no more than three eighths of the deadline may join the same queue, be it small or large."""
        for size in (20, 100, 280):
            shorter, longer = self.overloaded([20, 100, 180]), self.overloaded([20, 100, 180])
            assert queue(shorter, 5, at=300.0, size=100) == 5
            assert queue(longer, 6, at=300.0, size=100) == 6

            assert shorter.admit(300.0, 1, 5, size)
            assert not longer.admit(300.0, 1, 6, size)

    def test_overload_leaves_large_calls_what_is_unsure(self):
        """A call has to be in time even if it takes a little more than expected; how much is learned while calls wait."""
        steady, unsteady = self.overloaded([20, 100, 180]), self.overloaded([20, 100, 180])
        for gate, factors in ((steady, (1.0, 1.0)), (unsteady, (0.5, 1.5))):
            for call in range(1000):
                gate.admit(300.0, 1, 1, 100)
                gate.finished(300.0, 299.0, 0.1 * factors[call % 2], 100)

        assert steady.may_start(300.0, 0.85, 140)
        assert not unsteady.may_start(300.0, 0.85, 140)

    def test_overload_with_equal_sizes_keeps_the_queue_short(self):
        """Where no size can profit from a longer queue, waiting longer would make calls later and nobody better off."""
        assert queue(self.overloaded([100]), 20, at=300.0, size=100) < 4

    def test_whoever_leaves_takes_its_work_along(self):
        """The wait of the next one is shorter by what the cancelled call would have taken, not by a mean call."""
        gate = self.sized()
        queue(gate, 3, at=300.0, size=100)
        queue(gate, 1, at=300.0, queued=3, size=20)
        before_s = gate.retry_after_s(300.0, 1, 4)
        gate.left(300.0, 20)

        assert before_s - gate.retry_after_s(300.0, 1, 3) == pytest.approx(gate.expected_s(20))

    def test_calls_without_a_size_count_with_the_mean(self):
        """Sized and unsized calls share the queue."""
        gate = self.sized()
        mean_s = gate.expected_s(None)

        assert queue(gate, 3, at=300.0) == 3
        assert gate.retry_after_s(300.0, 1, 3) == pytest.approx(4 * mean_s)
        assert gate.admit(300.0, 1, 3, 100)
        assert gate.retry_after_s(300.0, 1, 4) == pytest.approx(4 * mean_s + gate.expected_s(100))

    @pytest.mark.parametrize("size", [0, -1, math.nan, math.inf, 1e200, pytest.param(10**400, id="huge")])
    def test_an_impossible_size_is_none(self, size):
        """It is treated as a call of unknown size in every step."""
        gate = taught()

        assert gate.admit(0.0, 1, 0, size)
        assert gate.may_start(0.1, 0.1, size)
        for _ in range(5):  # the first of its size class teach nothing
            gate.finished(0.2, 0.1, 0.1, size)
        assert gate.expected_s(size) == gate.expected_s(100) == pytest.approx(0.1)

    def test_equal_sizes_say_nothing_of_others(self):
        """A size unlike any before is expected to take as long as all."""
        gate = taught(size=50)

        assert gate.expected_s(5000) == pytest.approx(0.1)


class TestStart:
    """When a place becomes free."""

    def test_drops_a_call_whose_time_is_over(self):
        """Whoever would be done too late does not start."""
        gate = taught()
        queue(gate, 3)

        assert gate.may_start(0.5, 0.5)
        assert not gate.may_start(0.99, 0.99)

    def test_in_overload_leaves_more_time(self):
        """A wait that is fine in a burst is too long where others with more time left would take the place."""
        gate = taught(0.1, deadline_s=0.5)
        burst = gate.may_start(0.0, 0.42)
        for _ in range(400):
            gate.admit(0.0, 1, 100)

        assert burst
        assert not gate.may_start(0.0, 0.42)

    def test_a_deadline_nobody_can_keep_still_lets_calls_run(self):
        """Calls longer than the deadline are served one by one, with no queue."""
        gate = taught(2.0, deadline_s=0.5)

        assert gate.admit(0.0, 0, 0)
        assert not gate.admit(0.0, 1, 0)

    def test_whoever_leaves_is_waited_for_no_more(self):
        """A cancelled call makes the wait of the next one shorter."""
        gate = taught(size=100)
        queue(gate, 3, size=100)
        before_s = gate.retry_after_s(0.0, 1, 3)
        gate.left(0.0, 100)

        assert before_s == pytest.approx(0.4)
        assert gate.retry_after_s(0.0, 1, 2) == pytest.approx(0.3)

    def test_says_when_to_come_back(self):
        """At once where a place is free; after a second where nothing is known."""
        assert taught().retry_after_s(0.0, 0, 0) == 0.0
        assert Gate(0.5, 1).retry_after_s(0.0, 1, 4) == 1.0


class TestEnd:
    """When a call has ended."""

    @pytest.mark.parametrize("service_s", [math.nan, math.inf, 0.0, -1.0])
    def test_an_impossible_time_teaches_nothing(self, service_s):
        """Nor does a call that failed."""
        gate = taught()
        gate.finished(0.1, 0.0, service_s)
        gate.finished(0.1, 0.0, 5.0, None, False)

        assert gate.expected_s() == pytest.approx(0.1)


class TestDeadline:
    """Where none is given."""

    def test_is_learned_while_nobody_waits(self):
        """Ten times as long as a call takes, at least; not longer because calls are slow under load."""
        gate = taught(0.1, deadline_s=None, calls=100)
        calm_s = gate.deadline_s
        gate.admit(0.0, 1, 5)
        for _ in range(100):
            gate.finished(0.5, 0.0, 0.5)

        assert 1.0 <= calm_s < 1.5
        assert gate.deadline_s == calm_s

    def test_is_infinite_until_then(self):
        """Which lets nobody be late."""
        gate = Gate(None, 1)

        assert gate.deadline_s == math.inf
        assert gate.may_start(0.0, 1e9)

    @pytest.mark.parametrize("options", [{"deadline_s": 0.0}, {"deadline_s": math.nan}, {"workers": 0}, {"guess": 0}])
    def test_nonsense_is_an_error(self, options):
        """A deadline that has passed and a limit that lets nothing run are mistakes of whoever wrote them."""
        with pytest.raises(ConfigError):
            Gate(**{"deadline_s": 1.0, **options})


class TestClock:
    """Clocks that stop or go back."""

    def test_going_back_is_survived(self):
        """After it the gate still lets in and turns away."""
        gate = taught(workers=None, guess=2)
        queue(gate, 3, running=2)
        for step in range(50):
            now = -1000.0 + step * 0.1
            gate.admit(now, 1, 0)
            gate.finished(now + 0.05, now, 0.1)

        assert gate.admit(-900.0, 0, 0)
        assert queue(gate, 100, at=-900.0, running=2) < 40

    @settings(max_examples=60, deadline=None)
    @given(st.data())
    def test_no_sequence_of_calls_breaks_it(self, data):
        """Whatever is said in whatever order, answers come and k stays at least 1."""
        gate = Gate(data.draw(st.sampled_from([None, 0.5])), data.draw(st.sampled_from([None, 3])), guess=2)
        numbers = st.floats(-10, 10) | st.sampled_from([math.nan, math.inf, 0.0])
        steps = st.tuples(st.sampled_from("asfl"), numbers, numbers, st.none() | numbers, st.integers(0, 20))
        for step, now, time_s, size, count in data.draw(st.lists(steps, max_size=60)):
            if step == "a":
                assert gate.admit(now, count, count // 2, size, data.draw(st.none() | numbers)) in {True, False}
            elif step == "s":
                assert gate.may_start(now, time_s, size) in {True, False}
            elif step == "f":
                gate.finished(now, now - 1.0, time_s, size, ok=count > 0)
            else:
                gate.left(now, size)
            assert gate.run_limit(now) >= 1
            assert gate.retry_after_s(now, count, count) >= 0.0
