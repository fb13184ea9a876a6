"""How many calls may run at once, as the gate finds it from the calls that it lets in."""

from __future__ import annotations

import pytest
from benchmarks.limiting.gated import Gated
from benchmarks.limiting.simulation import simulate
from benchmarks.limiting.station import ProcessorSharing
from benchmarks.limiting.workload import MEAN_S, SERVICES, Phase, workload

from otel_inference.maintenance.gate import Gate


def saturate(gate, size, *, ends=4000):
    """Have as many calls run as may, on a machine that does the most with four; k at the end."""
    running, now = [], 0.0
    for call in range(ends):
        while len(running) < gate.run_limit(now):
            assert gate.admit(now, len(running), 0, size)
            running.append(now)
        parallel = len(running)
        speed = 100.0 * min(parallel, 4) / (1 + 0.15 * max(0.0, parallel / 4 - 1))
        now += 1 / speed
        started = running.pop(0)
        service_s = (1 + 0.3 * ((call * 0.6180339887) % 1.0 - 0.5)) * parallel / speed
        gate.finished(now, started, service_s, size)
    return gate.run_limit(now)


class TestUnknownPlaces:
    """Where k is not given."""

    def test_is_found_with_sizes_from_any_guess(self):
        """Up and down."""
        assert saturate(Gate(100.0, guess=1), 50) == 4
        assert saturate(Gate(100.0, guess=16), 50) == 4

    def test_a_guess_is_kept_without_sizes(self):
        """What calls of unknown size say is too little to doubt it."""
        assert saturate(Gate(100.0, guess=7), None) == 7

    def test_without_a_guess_every_call_counts(self):
        """One place is no guess: with nothing known it would stay too few for ever."""
        assert saturate(Gate(100.0), None) == 4

    def test_a_given_number_stays(self):
        """Whatever the calls say."""
        assert saturate(Gate(100.0, 7), 50) == 7


class TestShortDeadline:
    """A given deadline so short that hardly any call can wait."""

    @pytest.mark.parametrize("seed", range(3))
    def test_does_not_hold_k_where_it_is(self, seed):
        """Places that are empty between two calls are no proof that there are enough, while calls are turned away."""
        calls = workload(4, SERVICES["lognormal"], seed, (Phase(title="", load=0.5, duration_s=40.0),))
        gate = Gate(1.4 * MEAN_S, guess=2)
        simulate(calls, ProcessorSharing(4, 0.15), Gated(gate, calls, sized=True))

        assert gate.run_limit(40.0) > 2

    @pytest.mark.parametrize("seed", range(3))
    def test_does_not_keep_it_at_one_where_nothing_is_known(self, seed):
        """Without a guess and without sizes, too, it leaves the one place that it begins with."""
        calls = workload(4, SERVICES["exponential"], seed, (Phase(title="", load=0.5, duration_s=60.0),))
        gate = Gate(1.4 * MEAN_S)
        simulate(calls, ProcessorSharing(4, 0.15), Gated(gate, calls, sized=False))

        assert gate.run_limit(60.0) > 1


class TestFirstSizes:
    """Calls of one size at first, others later."""

    def test_do_not_spoil_the_search_for_k(self):
        """The first calls say nothing of how time grows with size; what is learned from the next ones counts at once."""
        calls = workload(16, SERVICES["bimodal"], 0, (Phase(title="", load=0.5, duration_s=4.0),))
        calls.work_s[:20] = [0.025] * 20
        calls.sizes[:20] = [100.0] * 20
        gate = Gate(10 * MEAN_S, guess=2)
        simulate(calls, ProcessorSharing(16, 0.15), Gated(gate, calls, sized=True))

        assert gate.run_limit(4.0) > 4
