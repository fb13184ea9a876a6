"""How many calls should run at once, found on simulated machines that always have enough to do."""

from __future__ import annotations

import math

import pytest

from otel_inference.maintenance.climb import Climb


class Saturated:
    """As many calls as may run at once, on a machine whose total speed depends on how many do."""

    def __init__(self, climb, speed, deadline_s=math.inf):
        self.climb, self.speed, self.deadline_s = climb, speed, deadline_s
        self.running, self.now, self.count = [], 0.0, 0
        self.slowdown = 1.0

    def run(self, ends):
        """Let so many calls end, each replaced at once."""
        for _ in range(ends):
            while len(self.running) < self.climb.limit:
                self.running.append(self.now)
                self.climb.began(self.now, len(self.running))
            parallel = len(self.running)
            self.now += self.slowdown / self.speed(parallel)
            self.count += 1
            noise = 1 + 0.3 * ((self.count * 0.6180339887) % 1.0 - 0.5)
            started = self.running.pop(0)
            service_s = noise * self.slowdown * parallel / self.speed(parallel)
            in_time = float(service_s <= self.deadline_s)
            self.climb.ended(self.now, len(self.running), started, service_s, 1.0, in_time)


def peak_at(best):
    """Speed that grows to `best` running calls and falls slowly beyond."""
    return lambda running: 100.0 * min(running, best) / (1 + 0.15 * max(0.0, running / best - 1))


class TestClimb:
    """How k is found."""

    @pytest.mark.parametrize(("start", "best"), [(1, 4), (2, 4), (16, 4), (64, 16), (2, 16), (4, 1), (3, 7)])
    def test_finds_the_number_that_does_the_most(self, start, best):
        """From below and from above, to within a step of a fifth."""
        climb = Climb(start)
        Saturated(climb, peak_at(best)).run(4000)

        assert climb._kept.limit == pytest.approx(best, abs=max(0.2 * best, 0.1))

    def test_prefers_the_fewest_of_equals(self):
        """Where more running calls do no more work, it goes down to where fewer would do less."""
        climb = Climb(16)
        Saturated(climb, lambda running: 100.0 * min(running, 4)).run(4000)

        assert climb._kept.limit == 4

    def test_work_that_comes_too_late_counts_for_nothing(self):
        """Where twice as many calls do half as much again but each takes longer than the deadline, fewer run."""
        climb = Climb(4)
        Saturated(climb, lambda running: 10.0 * running**0.6, deadline_s=0.15).run(4000)
        free = Climb(4)
        Saturated(free, lambda running: 10.0 * running**0.6).run(4000)

        assert climb._kept.limit < 4 < free._kept.limit

    def test_rests_when_nothing_is_better(self):
        """After a while k does not move any more."""
        climb = Climb(4)
        server = Saturated(climb, peak_at(4))
        server.run(2000)
        seen = set()
        for _ in range(300):
            server.run(1)
            seen.add(climb.limit)

        assert seen == {4}

    def test_begins_anew_when_the_machine_is_another_one(self):
        """Slowness that changes by half ends the rest, and the new best is found."""
        climb = Climb(4)
        server = Saturated(climb, peak_at(4))
        server.run(2000)
        server.speed = lambda running: 0.5 * peak_at(8)(running)
        server.run(3000)

        assert climb._kept.limit == pytest.approx(8, abs=1)

    @pytest.mark.parametrize("at", range(0, 200, 7))
    def test_a_machine_that_slows_down_meanwhile_misleads_nobody(self, at):
        """A step to a quarter of the speed in the middle of a comparison is not taken for the merit of a limit."""
        climb = Climb(4)
        server = Saturated(climb, peak_at(4))
        server.run(at)
        server.slowdown = 4.0
        kept = set()
        for _ in range(400):
            server.run(1)
            kept.add(climb._kept.limit)

        assert kept <= {3, 4, 5}

    def test_learns_nothing_from_bursts(self):
        """Where places are empty half of the time, more of them would make no difference."""
        climb, seen = Climb(8), set()
        for burst in range(300):
            seen.add(climb.limit)
            calls = climb.limit
            for running in range(calls):
                climb.began(2.0 * burst + 0.001 * running, running + 1)
            for running in reversed(range(calls)):
                climb.ended(2.0 * burst + 1.0, running, 2.0 * burst + 0.001 * (calls - 1 - running), 1.0, 1.0, 1.0)

        assert seen == {8}

    def test_learns_nothing_where_places_stay_empty(self):
        """Without enough to do, k stays."""
        climb = Climb(8)
        for step in range(2000):
            climb.began(step * 1.0, 1)
            climb.ended(step + 0.5, 0, step * 1.0, 0.5, 1.0, 1.0)

        assert climb.limit == 8

    def test_calls_that_say_nothing_leave_k_alone(self):
        """Calls of unknown size, or failed ones, are no measure."""
        climb = Climb(4)
        for step in range(2000):
            climb.began(step * 0.1, 4)
            climb.ended(step * 0.1 + 0.1, 3, step * 0.1)

        assert climb.limit == 4
