"""Which call may run now, which may wait for it, and which is turned away: the deciding part of the limiter."""

from __future__ import annotations

import math
from numbers import Integral, Real
from typing import Final

from otel_inference.errors import ConfigError
from otel_inference.maintenance.climb import Climb
from otel_inference.maintenance.service_time import ServiceTime

_FADE: Final = 0.02
"""Weight of one more arrival, or of one more call, in a fading mean."""
_ENOUGH: Final = 10
"""Calls to know before a deadline is made of them."""
_OVERLOADED: Final = 0.8
"""Share of the arrivals admitted below which there is overload."""
_STANDING: Final = 1.5
"""Deadlines after which a queue that was never empty means overload, and after which a pause ends it."""
_IDLE: Final = math.log(0.01)
"""Share of the time, as a logarithm, for which a place may be empty because the queue was kept short."""
_ROOM: Final = 0.375
_ROOM_CALLS: Final = 3.0
"""What a queue of calls of different sizes leaves in overload: this share of the deadline, or so many calls of the size asked for."""
_MOST_ROOM: Final = 0.65
"""The same share at most, where the queue is longer than keeps the places busy."""
_HALF: Final = 0.5
"""Share of the deadline beyond which nothing is left, however long calls take."""
_UNKNOWN_QUEUE: Final = 10
"""Calls that may wait for each place while service time or deadline are unknown."""
_LEAST_SHARE: Final = 0.01
_FOREVER: Final = math.inf
_LARGEST: Final = 1e100
"""A size that is larger is a mistake; its square would be more than a float can hold."""


class Gate:
    """Lets at most k calls run, and lets wait only who has a chance to be done within the deadline.

    A call that finds a free place and nobody waiting starts, even one that will take longer than the deadline:
    a forecast may be wrong, and only running calls correct it. Another one waits if its expected wait and its expected
    service time are within the deadline, and if the queue is no longer than is good: bursts may use what the deadline
    leaves beyond a mean service time. In overload (more than a fifth of the arrivals is turned away, or the queue has
    not been empty for 1.5 deadlines) more has to be left:

    - Of calls of unknown or similar size a high quantile of the service time. At any time their queue is only so long
      that a place is empty for 1 % of the time: with a share a of the arrivals admitted, m waiting calls leave it empty
      for about a ** m of the time (the queue M/M/1 with a limit).
    - Of calls whose sizes differ what nine in ten of that size need, and at least three eighths of the deadline or three
      calls of the mean size asked for, whichever is more, but at most half of it, or 0.65 where the queue is longer than
      keeps the places busy. So whatever needs no more than that may join the queue, small or large. A call that needs
      more is let in where the queue is shorter.

    Whoever waits is started in the order of arrival whatever its size, unless by then it would be done too late.

    Service times are learned from the calls (`ServiceTime`); nothing else is assumed of them. The rule and its
    constants are own work; `benchmarks/limiting` measures it beside others.

    One thread at a time; the caller holds a lock and counts who runs and who waits. It passes each call's size, if
    any, to all methods alike.

    Args:
        deadline_s: Seconds from arrival to end that a call may take. `None`: ten times the mean service time, or
            five times its 0.9 quantile if that is more, as seen while nobody waits; see `deadline_s`.
        workers: k. `None`: found by a hill climb (`Climb`).
        guess: Where the climb starts: what the machine suggests, such as cores divided by threads per call. It learns
            from calls of known size only, for the others tell it too little to doubt a guess. `None`: it starts at 1
            and learns from all calls, up to forty times as slowly where sizes are unknown.

    Raises:
        ConfigError: If the deadline, k or the guess is not positive.

    >>> gate = Gate(deadline_s=0.5, workers=1)
    >>> gate.admit(now=0.0, running=0, queued=0)
    True
    >>> for end in range(1, 11):
    ...     gate.finished(now=end * 0.2, started=end * 0.2 - 0.2, service_s=0.2)
    >>> [gate.admit(now=2.0, running=1, queued=queued) for queued in range(3)]
    [True, False, False]
    """

    __slots__ = (
        "_admitted", "_arrived_s", "_asked_s", "_base", "_blind", "_calm", "_calm_s", "_climb", "_deadline_s", "_empty_s", "_given", "_grows", "_limit", "_running",
        "_service", "_typical", "_waiting", "_waiting_size", "_waiting_sized",
    )  # fmt: skip

    def __init__(self, deadline_s: float | None, workers: int | None = None, *, guess: int | None = None) -> None:
        _refuse_no_time(deadline_s)
        self._limit = _least_one("workers", workers) or _least_one("guess", guess) or 1
        self._given = deadline_s is not None
        self._deadline_s = _FOREVER if deadline_s is None else deadline_s
        self._climb = Climb(self._limit) if workers is None else None
        self._blind = guess is None
        """Whether the climb learns from calls of unknown size."""
        self._service = ServiceTime()
        self._asked_s = 0.0
        """Mean service time of those that would have to wait: of those that run it is shorter if large ones may not."""
        self._calm = 0
        self._calm_s = 0.0
        """Mean service time while nobody waits."""
        self._admitted = 1.0
        """Fading share of the arrivals that were admitted."""
        self._arrived_s = self._empty_s = -_FOREVER
        self._running = 0
        self._waiting = self._waiting_sized = 0
        self._waiting_size = 0.0
        self._base, self._typical = 0.0, 1.0
        """Sizes that are as much work as what every call costs, and as a call of unknown size."""
        self._grows = False
        """Whether work was known to grow with size when the comparison that goes on began."""

    @property
    def deadline_s(self) -> float:
        """The deadline, given or learned; infinite while it is to be learned."""
        return self._deadline_s

    def run_limit(self, now: float) -> int:  # noqa: ARG002 - a rule that changes k with time needs it
        """How many calls may run.

        Args:
            now: Seconds on the caller's clock.
        """
        return self._limit

    def admit(
        self, now: float, running: int, queued: int, size: float | None = None, deadline_s: float | None = None
    ) -> bool:
        """Whether a call that arrives may stay.

        It is to start at once if fewer than `run_limit` run and nobody waits, and to wait otherwise.

        Args:
            now: Seconds on the caller's clock.
            running: Calls that run.
            queued: Calls that wait.
            size: Its size: tokens, pixels or whatever work grows with; `None` where unknown.
            deadline_s: Seconds that this call may take, if not those of all.
        """
        limit_s = self._deadline_s if deadline_s is None else deadline_s
        if limit_s <= 0.0:
            return False
        if now - self._arrived_s > _STANDING * limit_s:
            self._admitted = 1.0
        self._arrived_s = now
        self._waiting = queued
        if self._climb is not None:
            self._running = running
        if not queued:
            self._empty_s = now
            if self._waiting_sized:
                self._waiting_sized = 0
                self._waiting_size = 0.0
            if running < self._limit:
                self._admitted += (1.0 - self._admitted) * _FADE
                if self._climb is not None:
                    self._start(now, self._climb)
                return True
        return self._queue(now, queued, _proper(size), limit_s)

    def may_come(self, now: float, running: int, queued: int, deadline_s: float | None = None) -> bool:
        """Whether a call that is on its way has a chance; one that has none counts as an arrival that is turned away.

        One that has is not counted: `admit` decides when it is there and its size is known. Until then it is taken
        for a call of average size.

        Args:
            now: As for `admit`.
            running: As for `admit`.
            queued: Calls that will wait when it comes.
            deadline_s: As for `admit`.
        """
        limit_s = self._deadline_s if deadline_s is None else deadline_s
        size = self._service.mean_size or None
        needed_s = self._service.expect(size)
        if (running < self._limit and not queued) or self._may_wait(now, queued, size, limit_s, needed_s):
            return True
        self._arrived_s = now
        return self._queue(now, queued, size, limit_s)  # says the same, and counts it

    def may_start(
        self, now: float, waited_s: float, size: float | None = None, deadline_s: float | None = None
    ) -> bool:
        """Whether the call that waited longest may start; otherwise it is too late for it and it is turned away.

        Either way it waits no more. Only for calls that waited, when fewer than `run_limit` run.

        Args:
            now: Seconds on the caller's clock.
            waited_s: Seconds since it arrived.
            size: As for `admit`.
            deadline_s: As for `admit`.
        """
        size = _proper(size)
        self.left(now, size)
        limit_s = self._deadline_s if deadline_s is None else deadline_s
        if size is not None:
            needed_s = self._service.expect(size)
            if self._overloaded(now, limit_s):
                needed_s *= self._service.sure
        elif self._overloaded(now, limit_s):
            needed_s = self._reserve_s(limit_s)
        else:
            # Nobody has a better chance in its place: half of the mean is done in time often enough.
            needed_s = 0.5 * self._service.mean_s
        if waited_s + needed_s > limit_s:
            if self._climb is not None:
                self._climb.refused()
            return False
        if self._climb is not None:
            self._start(now, self._climb)
        return True

    def left(self, now: float, size: float | None = None) -> None:  # noqa: ARG002 - as the other methods
        """Say that a call that waited went away by itself: cancelled, or tired of waiting.

        Args:
            now: Seconds on the caller's clock.
            size: As for `admit`.
        """
        size = _proper(size)
        self._waiting = max(0, self._waiting - 1)
        if size is not None and self._waiting_sized:
            self._waiting_sized -= 1
            self._waiting_size = max(0.0, self._waiting_size - size)

    def finished(
        self,
        now: float,
        started: float,
        service_s: float,
        size: float | None = None,
        ok: bool = True,  # noqa: FBT001, FBT002 - as agreed with whoever enforces
    ) -> None:
        """Say that a running call ended.

        Args:
            now: Seconds on the caller's clock.
            started: When it started, on the same clock.
            service_s: Seconds that it was worked on.
            size: As for `admit`.
            ok: Whether its time says something of the service: it did not fail and was not cold.
        """
        counted_s = 0.0
        if ok and 0.0 < service_s < _FOREVER:
            if size is not None:
                size = _proper(size)
                if size is not None and self._waiting:
                    self._service.doubt(service_s, size)
            counted_s = self._service.learn(service_s, size)
            if counted_s and not self._given and not self._waiting:
                self._learn_deadline(counted_s)
        if self._climb is not None:
            self._end(now, self._climb, started, counted_s, size)

    def expected_s(self, size: float | None = None) -> float:
        """Seconds that a call is expected to be worked on; 0 while nothing is known.

        Args:
            size: As for `admit`.
        """
        return self._service.expect(_proper(size))

    def retry_after_s(self, now: float, running: int, queued: int) -> float:  # noqa: ARG002 - as the other methods
        """Seconds after which the calls that are there now are expected to leave a place; 1 while nothing is known.

        Args:
            now: Seconds on the caller's clock.
            running: Calls that run.
            queued: Calls that wait.
        """
        if running < self._limit and not queued:
            return 0.0
        return self._wait_s(queued) if self._service.mean_s else 1.0

    def _queue(self, now: float, queued: int, size: float | None, deadline_s: float) -> bool:
        """Have a call wait, or not."""
        needed_s = self._service.expect(size)
        self._asked_s += (needed_s - self._asked_s) * _FADE
        if needed_s > deadline_s:
            return False  # whatever the load
        if not self._may_wait(now, queued, size, deadline_s, needed_s):
            self._admitted = max(_LEAST_SHARE, self._admitted * (1.0 - _FADE))
            if self._climb is not None:
                self._climb.refused()
            return False
        self._admitted += (1.0 - self._admitted) * _FADE
        self._waiting += 1
        if size is not None:
            self._waiting_sized += 1
            self._waiting_size += size
        return True

    def _start(self, now: float, climb: Climb) -> None:
        running = self._running = self._running + 1
        if running == climb.limit or climb.since_s <= now:
            climb.began(now, running)

    def _may_wait(self, now: float, queued: int, size: float | None, deadline_s: float, needed_s: float) -> bool:
        mean_s = self._service.mean_s
        if not mean_s or deadline_s == _FOREVER:
            return queued < _UNKNOWN_QUEUE * self._limit
        wait_s = self._wait_s(queued)
        if wait_s + needed_s > deadline_s:
            return False
        if not queued:
            return True
        by_size = size is not None and self._service.varied
        needless = queued * math.log(self._admitted) < _IDLE
        if needless and not by_size:
            return False
        if not self._overloaded(now, deadline_s):
            needed_s = mean_s
        elif by_size:
            needed_s = max(self._service.sure * needed_s, self._room_s(deadline_s, needless=needless))
        else:
            needed_s = self._reserve_s(deadline_s)
        return wait_s + needed_s <= deadline_s

    def _wait_s(self, queued: int) -> float:
        """Expected wait of one more: the work of those before it and what is left of one that runs, over k."""
        work_s = self._service.mean_s * (max(0, queued - self._waiting_sized) + 1)
        if self._waiting_sized:
            fixed_s, per_size_s = self._service.fit()
            work_s += fixed_s * self._waiting_sized + per_size_s * self._waiting_size
        return work_s / self._limit

    def _overloaded(self, now: float, deadline_s: float) -> bool:
        return self._admitted < _OVERLOADED or now - self._empty_s > _STANDING * deadline_s

    def _reserve_s(self, deadline_s: float) -> float:
        """What a waiting call is left of the deadline in overload; where calls take long, not more than half of it."""
        return max(self._service.mean_s, min(self._service.high_s, _HALF * deadline_s))

    def _room_s(self, deadline_s: float, *, needless: bool) -> float:
        """The same where sizes are looked at: what may join the queue is whatever needs no more than that."""
        most = _MOST_ROOM if needless else _HALF
        return max(_ROOM * deadline_s, min(_ROOM_CALLS * self._asked_s, most * deadline_s))

    def _end(self, now: float, climb: Climb, started: float, counted_s: float, size: float | None) -> None:
        running = self._running = self._running - 1 if self._running else 0
        if running != climb.limit and climb.since_s > now:
            return  # as most of the time
        work = 0.0
        if counted_s and (self._blind or size is not None) and climb.counts(started):
            work = self._work(now, climb, size)
        climb.ended(now, running, started, counted_s, work, work if counted_s <= self._deadline_s else 0.0)
        self._limit = climb.limit

    def _learn_deadline(self, service_s: float) -> None:
        service = self._service
        self._calm += 1
        self._calm_s += (service_s - self._calm_s) * max(1 / self._calm, _FADE)
        if self._calm >= _ENOUGH:
            self._deadline_s = self._calm_s * max(10.0, 5.0 * service.high_s / service.mean_s)

    def _work(self, now: float, climb: Climb, size: float | None) -> float:
        """Work of a call: its size and what every call costs, in units of size; the same during a comparison."""
        fixed_s, per_size_s = self._service.fit()
        if climb.fresh:
            self._base = fixed_s / max(per_size_s, 1e-12 * fixed_s, 1e-300)
            self._typical = self._service.mean_size or 1.0
            self._grows = per_size_s > 0.0
        elif per_size_s > 0.0 and not self._grows:
            # The first calls were all of one size: without theirs in it, the measure would be a poor one.
            climb.again(now)
            return 0.0
        return (self._typical if size is None else size) + self._base


def _refuse_no_time(deadline_s: float | None) -> None:
    is_time = isinstance(deadline_s, Real) and not isinstance(deadline_s, bool) and deadline_s > 0.0
    if deadline_s is not None and not is_time:
        msg = f"deadline_s is {deadline_s!r}; expected seconds greater than 0, such as 0.5, or None to learn them"
        raise ConfigError(msg)


def _least_one(name: str, value: int | None) -> int | None:
    if value is not None and (not isinstance(value, Integral) or isinstance(value, bool) or value < 1):
        msg = f"{name} is {value!r}; expected a whole number of at least 1, or None to find it by trying"
        raise ConfigError(msg)
    return value


def _proper(size: float | None) -> float | None:
    """A size that work can be proportional to, or nothing."""
    return size if size is not None and 0.0 < size < _LARGEST else None
