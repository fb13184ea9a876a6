"""The simulator against queueing theory, and the gate against other limiters in short; `benchmarks/limiting` in full."""

from __future__ import annotations

import dataclasses
import math
from statistics import fmean

import pytest
from benchmarks.limiting import contenders
from benchmarks.limiting.bound import bound, small_first
from benchmarks.limiting.cell import BOUND, BOUND_SIZED, BOUND_SMALL, FIFO, SHARING, Cell
from benchmarks.limiting.contended import Contended, in_time
from benchmarks.limiting.gated import Gated
from benchmarks.limiting.limits import Aimd, Fixed, Gradient2, InFlight, Scheduled, Vegas
from benchmarks.limiting.simulation import simulate
from benchmarks.limiting.station import Fifo, ProcessorSharing
from benchmarks.limiting.workload import DEADLINE_S, MEAN_S, SERVICES, SIZE_NOISE, STEPS, Phase, workload

from otel_inference.maintenance.gate import Gate

SHORT = tuple(dataclasses.replace(phase, duration_s=12.0) for phase in STEPS)


def steady(workers, service, load, calls):
    """One phase in which so many calls arrive."""
    duration_s = calls * MEAN_S / workers / load
    return workload(workers, SERVICES[service], 1, (Phase(title="", load=load, duration_s=duration_s),))


def stays_s(calls, station, limit=math.inf):
    """How long each call was there, infinite for those turned away."""
    outcome = simulate(calls, station, InFlight(Fixed(10**9 if limit == math.inf else limit)))
    return [end_s - arrival_s for arrival_s, end_s in zip(calls.arrivals_s, outcome.end_s, strict=True)]


def mean_wait_s(calls, station):
    """Mean of what the calls were there beyond their work."""
    took = zip(stays_s(calls, station), calls.work_s, strict=True)
    return fmean(stay_s - work_s for stay_s, work_s in took if stay_s < math.inf)


def erlang_b(workers, offered):
    """Share turned away by a server without a queue (Erlang, 1917)."""
    blocked = 1.0
    for places in range(1, workers + 1):
        blocked = offered * blocked / (places + offered * blocked)
    return blocked


def erlang_c(workers, offered):
    """Share that has to wait (Erlang, 1917)."""
    blocked = erlang_b(workers, offered)
    return blocked / (1 - offered / workers * (1 - blocked))


class TestTheory:
    """Where theory knows the answer, the simulator agrees."""

    @pytest.mark.parametrize(("workers", "load"), [(1, 0.5), (4, 0.7)])
    def test_waits_in_line_as_erlang_says(self, workers, load):
        """M/M/c: mean wait = P(wait) * S / (c - offered)."""
        calls = steady(workers, "exponential", load, 100_000)
        expected_s = erlang_c(workers, workers * load) * MEAN_S / (workers * (1 - load))

        assert mean_wait_s(calls, Fifo(workers)) == pytest.approx(expected_s, rel=0.08)

    def test_waits_in_line_as_pollaczek_and_khinchine_say(self):
        """M/G/1: mean wait = load * S * (1 + CV^2) / 2 / (1 - load), which the bimodal calls have of 1."""
        calls = steady(1, "bimodal", 0.5, 100_000)
        square = (1 + 1) * (1 + SIZE_NOISE**2)  # 1 + CV^2, with the noise on top

        assert mean_wait_s(calls, Fifo(1)) == pytest.approx(0.5 * MEAN_S * square / 2 / 0.5, rel=0.05)

    @pytest.mark.parametrize("service", SERVICES)
    def test_shares_as_theory_says_whatever_the_distribution(self, service):
        """M/G/1-PS: mean stay = S / (1 - load)."""
        calls = steady(1, service, 0.5, 80_000)
        took_s = fmean(took for took in stays_s(calls, ProcessorSharing(1, 0.0)) if took < math.inf)

        assert took_s == pytest.approx(MEAN_S / 0.5, rel=0.05)

    @pytest.mark.parametrize("station", [Fifo, lambda workers: ProcessorSharing(workers, 0.15)])
    def test_turns_away_as_erlang_says_whatever_the_distribution(self, station):
        """M/G/c/c: Erlang's loss formula."""
        calls = steady(4, "lognormal", 2.0, 60_000)
        took = stays_s(calls, station(4), limit=4)

        assert sum(stay == math.inf for stay in took) / len(took) == pytest.approx(erlang_b(4, 8.0), rel=0.02)

    def test_thrash_costs_what_it_says(self):
        """Eight calls of one second at four workers do 4 / 1.15 seconds of work per second; half at half the speed."""
        station = ProcessorSharing(4, 0.15)
        for call in range(8):
            station.start(0.0, call, 1.0)
        full_s = station.next_s
        station.change_speed(0.0, 0.5)

        assert full_s == pytest.approx(8 / 4 * 1.15)
        assert station.next_s == pytest.approx(2 * full_s)

    def test_a_change_of_speed_stretches_what_is_left(self):
        """Of a call half done at full speed, the second half takes twice as long at half the speed."""
        for station in (Fifo(1), ProcessorSharing(1, 0.15)):
            station.start(0.0, 0, 1.0)
            station.change_speed(0.5, 0.5)

            assert station.next_s == pytest.approx(1.5)


class TestOthers:
    """The limiters to compare with follow their published rules."""

    def test_aimd(self):
        """One more for a quick call at half the limit or more, a tenth less for a slow one."""
        limit = Aimd(timeout_s=1.0)
        limit.sample(0.0, 0.1, 10)
        limit.sample(0.0, 0.1, 3)
        grown = limit.value
        for _ in range(9):
            limit.sample(0.0, 0.1, 100)
        limit.sample(0.0, 2.0, 1)

        assert (grown, limit.value) == (21, 27)

    def test_vegas(self):
        """Grows while times are the shortest seen, shrinks where they are many times that."""
        limit = Vegas()
        for _ in range(20):
            limit.sample(0.0, 0.1, 1000)
        grown = limit.value
        for _ in range(20):
            limit.sample(0.0, 1.0, 1000)

        assert grown > 100
        assert limit.value < grown

    def test_gradient2(self):
        """Grows by a share of its queue while times are as ever, shrinks where they rise."""
        limit = Gradient2(lowest=1)
        for _ in range(50):
            limit.sample(0.0, 0.1, 100)
        grown = limit.value
        for _ in range(10):
            limit.sample(0.0, 0.4, 100)

        assert grown == pytest.approx(20 + 50 * 0.8)
        assert limit.value < 0.7 * grown

    def test_hindsight_changes_its_limit_with_the_phase(self):
        """From the edge of a phase on its own limit holds."""
        door = Scheduled([2, 5], [0.0, 10.0, 20.0])
        early = [door.arrive(1.0, call) for call in range(4)]
        late = [door.arrive(10.0, call) for call in range(4, 10)]

        assert early == [True, True, False, False]
        assert late == [True, True, True, False, False, False]


@pytest.fixture(scope="module")
def scores():
    """What everybody reaches at two servers, one seed and phases of 12 seconds."""
    names = [*contenders.OURS, "Vegas", "Gradient2", "AIMD", contenders.NONE]
    chosen = {name: (contenders.OURS | contenders.OTHERS)[name] for name in names}
    cells = {
        station: Cell(station=station, workers=4, service="lognormal", phases=SHORT) for station in (FIFO, SHARING)
    }
    return {station: cell.run([0], chosen)[0] for station, cell in cells.items()}


class TestBound:
    """What no limiter can exceed."""

    def test_knows_the_share_that_can_be_served(self):
        """At twice the capacity half of the calls, or those two thirds that are the smallest; no more work either way."""
        phases = (Phase(title="", load=2.0, duration_s=300.0),)
        calls = workload(4, SERVICES["bimodal"], 0, phases)
        count, capacity_s = len(calls.work_s), 4 * 300.0

        assert bound(calls, sized=False) == (pytest.approx(0.5 * count, rel=0.05), pytest.approx(capacity_s))
        assert bound(calls, sized=True) == bound(calls, sized=False)
        assert small_first(calls) == (pytest.approx((0.8 + 0.1 / 3.0) * count, rel=0.05), pytest.approx(capacity_s))

    def test_calls_that_are_too_long_count_for_nothing(self):
        """Where one call in five takes longer than the deadline, only who sees sizes saves the time spent on it."""
        calls = workload(4, SERVICES["bimodal"], 0, (Phase(title="", load=2.0, duration_s=300.0),))
        small_s = [work_s for work_s in calls.work_s if work_s < 2 * MEAN_S]
        blind, sized = (bound(calls, sized=sized, deadline_s=2 * MEAN_S) for sized in (False, True))

        assert blind == (pytest.approx(0.5 * len(small_s), rel=0.05), pytest.approx(0.5 * sum(small_s), rel=0.05))
        assert sized == (len(small_s), pytest.approx(sum(small_s)))

    def test_nobody_exceeds_it(self, scores):
        """Neither in work nor, without sizes, in calls, but for what is carried from one phase into the next."""
        for each in scores.values():
            for name in set(each) - {BOUND, BOUND_SIZED, BOUND_SMALL}:
                assert each[name].work <= 1.01 * each[BOUND_SMALL].work
                assert each[name].goodput <= 1.01 * each[BOUND_SMALL].goodput
            assert each[contenders.GIVEN].goodput <= 1.01 * each[BOUND].goodput


class TestHog:
    """Another process that takes its turn on the processor after each of the calls that run."""

    def test_gets_less_where_more_calls_run(self):
        """Beside one call it takes half of the time, beside three a quarter."""
        for calls, rate in ((1, 1 / 2), (3, 3 / 4)):
            station = Contended()
            station.change_speed(0.0, 0.5)
            for call in range(calls):
                station.start(0.0, call, 1.0)

            assert station.next_s == pytest.approx(calls / rate, rel=0.05)

    def test_is_met_by_more_calls_at_once(self):
        """From k = 1, which is right without it, more is done in time than with k = 1, and than without a limit."""
        given, learned, _, _, unlimited = (hogged for _, hogged, _ in in_time(range(3)).values())

        assert learned > unlimited
        assert learned > 1.05 * given


class TestGate:
    """From half of what can be done to five times that, to 0.7 of it, at half the speed, and back."""

    def test_first_come_first_served_it_does_what_hindsight_does(self, scores):
        """With k given, no size seen and nothing else known."""
        assert scores[FIFO][contenders.GIVEN].goodput >= 0.97

    def test_sharing_it_does_more(self, scores):
        """A limit on the calls in flight cannot keep a queue apart from what runs."""
        assert scores[SHARING][contenders.GIVEN].goodput >= 1.02
        assert scores[SHARING][contenders.GIVEN_SIZED].goodput >= 1.15

    @pytest.mark.parametrize("name", [contenders.FROM_2, contenders.FROM_4C])
    def test_k_is_found(self, scores, name):
        """From half and from four times the right number."""
        assert scores[SHARING][name].goodput >= 1.12
        assert scores[SHARING][name].work >= 1.06

    @pytest.mark.parametrize("station", [FIFO, SHARING])
    def test_nothing_known_is_enough_for_most(self, scores, station):
        """Neither k nor a guess nor a size: it takes longer to find k, and costs a tenth."""
        assert scores[station][contenders.BLIND].goodput >= 0.85

    @pytest.mark.parametrize("station", [FIFO, SHARING])
    def test_what_is_served_is_in_time(self, scores, station):
        """The slowest hundredth exceeds the deadline by a tenth at most, and calm phases turn hardly anyone away."""
        score = scores[station][contenders.GIVEN]

        assert score.p99_s <= 1.1 * DEADLINE_S
        assert max(score.rejected[0], score.rejected[3], score.rejected[5]) <= 0.03
        assert max(score.back_s) <= 2.0

    @pytest.mark.parametrize("name", ["Vegas", "Gradient2", "AIMD", contenders.NONE])
    def test_others_do_less(self, scores, name):
        """Limits on the calls in flight that look only at how long calls took, and no limit at all."""
        for station in (FIFO, SHARING):
            assert scores[station][name].goodput < scores[station][contenders.GIVEN].goodput

    def test_no_limit_serves_next_to_nobody_in_time(self, scores):
        """Once overloaded, it stays so."""
        assert scores[FIFO][contenders.NONE].goodput < 0.2

    def test_large_calls_are_not_starved(self, scores):
        """Of the greatest tenth a few more are turned away than of the others, not most."""
        *quarters, tenth = scores[SHARING][contenders.GIVEN_SIZED].by_size

        assert tenth < 1.35 * min(quarters)

    @pytest.mark.parametrize("name", [contenders.GIVEN, contenders.GIVEN_SIZED])
    def test_longer_inputs_are_no_overload(self, name):
        """Three times as long and three times as seldom, at 0.7 of what can be done: all are served."""
        shares = Cell(station=FIFO, workers=4, service="bimodal").longer([0], {name: contenders.OURS[name]})

        assert shares[name] <= 0.005

    def test_sizes_that_say_nothing_do_no_harm(self):
        """Where the size has nothing to do with the work, k stays near where it was and calls are served."""
        calls = workload(4, SERVICES["exponential"], 3, SHORT)
        shuffled = dataclasses.replace(calls, sizes=calls.sizes[::-1])
        good = []
        for gate, sized in ((Gate(DEADLINE_S, 4), False), (Gate(DEADLINE_S, guess=4), True)):
            outcome = simulate(shuffled, ProcessorSharing(4, 0.15), Gated(gate, shuffled, sized=sized))
            took = (end_s - arrival_s for arrival_s, end_s in zip(calls.arrivals_s, outcome.end_s, strict=True))
            good.append(sum(stay_s <= DEADLINE_S for stay_s in took))

        assert good[1] > 0.8 * good[0]
