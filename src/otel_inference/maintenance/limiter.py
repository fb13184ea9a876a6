"""Lets so many calls run at once, has some wait for their turn, and turns the rest away.

Whether a call may come in, and how many may run, is the gate's to decide (`maintenance.gate`). Here is what
makes it hold among threads and event loops: one lock, held no longer than a decision takes, and one queue
for all, first come, first served. Whoever frees a place hands it to the next in the queue, so that no one
has to be woken to look for it, and each wait ends by itself when the call could not be answered in time any more.

Whatever becomes of a call that waits or runs, its place comes back: a cancelled task, a `KeyboardInterrupt`,
a generator that is thrown away, a place that is never released, an event loop that is closed.

What a call calls inside must not ask for a place of its own: once all places are taken by calls that wait for
such inner places, none of them ends. The wrappers of this package ask for outermost calls only.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections import Counter, OrderedDict, deque
from math import isinf
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, TypeVar

from otel_inference import guard
from otel_inference.errors import OverloadedError
from otel_inference.health.stretch import size_class
from otel_inference.maintenance.announcement import Announcement, Coming, current
from otel_inference.maintenance.deadline import asked
from otel_inference.maintenance.gate import Gate
from otel_inference.maintenance.guess import suggested
from otel_inference.maintenance.pending import each
from otel_inference.maintenance.place import OccupiedPlace, Place, free_pass
from otel_inference.maintenance.refusal import note
from otel_inference.maintenance.waiter import TaskWaiter, ThreadWaiter

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from otel_inference.maintenance.deadline import Asked
    from otel_inference.maintenance.waiter import Waiter

_Answer = TypeVar("_Answer")
_Subject = TypeVar("_Subject")
_Kind = TypeVar("_Kind", ThreadWaiter, TaskWaiter)

_LONGEST_WAIT_S: Final = 3600.0
"""No wait is longer, whatever the deadline: timers of threads and event loops have an end."""
_BLIND_WAIT_S: Final = 30.0
"""Deadline of those who wait while none is known."""


class AdaptiveLimiter:
    """Keeps a model, or several on one machine, from being asked for more than can be done in time.

    Implements `protocols.Limiter`. Threads, event loops and models may share one.

    Args:
        deadline_s: Seconds within which an answer is of use; default: learned from the calls. A request may
            have a deadline of its own, see `maintenance.deadline`.
        workers: How many calls may run at once; default: found by trying. With torch it begins with usable cores over
            torch's threads per call, and moves from there if calls have a size; without, it begins with 1.
        gate: Decides; default: one made of the two arguments above, which it replaces.
        clock: Seconds, never going back.

    Raises:
        ConfigError: If `deadline_s` or `workers` is no number, or not positive.
    """

    def __init__(
        self,
        deadline_s: float | None = None,
        *,
        workers: int | None = None,
        gate: Gate | None = None,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._gate = Gate(deadline_s, workers, guess=suggested()) if gate is None else gate
        self._clock = clock
        self._rejected: Counter[int] = Counter()
        self._generation = 0
        self.reset_after_fork()
        _limiters.add(self)

    def acquire(self, model: str, size: int | None = None) -> Place:
        """See `protocols.Limiter.acquire`."""
        try:
            answer = self._ask(size, ThreadWaiter)
            if isinstance(answer, OccupiedPlace):
                return answer
            if isinstance(answer, ThreadWaiter):
                answer = self._wait(answer)
        except Exception:  # noqa: BLE001 - a limiter that fails limits nothing
            guard.failed("limiter")
            return free_pass()
        if isinstance(answer, Place):
            return answer
        note(model, answer)
        raise OverloadedError(model, answer)

    async def acquire_async(self, model: str, size: int | None = None) -> Place:
        """See `protocols.Limiter.acquire_async`. Outside asyncio it never waits."""
        try:
            answer = self._ask(size, TaskWaiter)
            if isinstance(answer, TaskWaiter):
                answer = await self._wait_async(answer)
        except Exception:  # noqa: BLE001 - a limiter that fails limits nothing
            guard.failed("limiter")
            return free_pass()
        if isinstance(answer, Place):
            return answer
        note(model, answer)
        raise OverloadedError(model, answer)

    def announce(self, model: str) -> Announcement:
        """See `protocols.Limiter.announce`."""
        if self._lock._is_owned():
            return Announcement(self)
        try:
            answer = self._alone(self._foresee, asked())
        except Exception:  # noqa: BLE001 - a limiter that fails limits nothing
            guard.failed("limiter")
            return Announcement(self)
        finally:
            self._follow_up()
        if isinstance(answer, Announcement):
            return answer
        raise OverloadedError(model, answer)

    @property
    def deadline_s(self) -> float:
        """Seconds within which a call is to be answered, unless its request says otherwise."""
        return self._gate.deadline_s

    @property
    def limit(self) -> int:
        """How many calls may run at once, as things are."""
        return self._outcome(self._gate.run_limit, self._clock())

    @property
    def in_use(self) -> int:
        """How many calls run."""
        return self._in_use

    @property
    def queued(self) -> int:
        """How many calls wait."""
        return len(self._queue)

    @property
    def rejected(self) -> int:
        """How many calls were turned away so far."""
        return sum(self.rejected_by_size.values())

    @property
    def rejected_by_size(self) -> Mapping[int, int]:
        """The same by class of size (`health.stretch.size_class`); -1 for calls of unknown size."""
        return self._outcome(dict, self._rejected)

    def refresh(self) -> None:
        """Let in who may come in now. For whoever changes the gate from outside; calls do it themselves."""
        self._do(self._promote, self._clock())

    def reset_after_fork(self) -> None:
        """Begin with nobody running and nobody waiting: the calls of the parent go on there, not here."""
        self._lock: Any = threading.RLock()
        """Whose it is says who is inside: a signal handler or a finalizer may have a thread come in again at any point."""
        self._generation += 1
        """Places that were given before a fork are none after it."""
        self._in_use = 0
        self._queue: OrderedDict[Waiter, None] = OrderedDict()
        self._coming = Coming()
        self._pending: deque[tuple[Callable[[Any], None], Any]] = deque()
        """What is to be done as soon as nobody is inside: those to wake whose wait is over, steps put off."""

    def _ask(self, size: int | None, kind: type[_Kind]) -> Place | _Kind | float:
        """A place, or who is to wait for one, or the seconds after which to try again."""
        request, lock = asked(), self._lock
        if lock._is_owned():
            return free_pass()  # waiting within ourselves would never end
        try:
            lock.acquire()  # not `with`, which takes twice the time; see `_alone`
            return self._decide(size, request, kind)
        finally:
            try:  # noqa: SIM105 - `suppress` takes longer than all the rest
                lock.release()
            except RuntimeError:
                pass
            if self._pending:
                self._follow_up()

    def _wait(self, waiter: ThreadWaiter) -> Place | float:
        try:
            waiter.wait()
            return self._outcome(self._collect, waiter)
        except BaseException:
            self._do(self._leave, waiter)
            raise

    async def _wait_async(self, waiter: TaskWaiter) -> Place | float:
        try:
            await waiter.wait()
            return self._outcome(self._collect, waiter)
        except BaseException:
            self._do(self._leave, waiter)
            raise

    def _take_back(self, place: Place) -> None:
        lock = self._lock
        if lock._is_owned():
            self._pending.append((self._catch_up, (self._finish, place)))
            return
        try:
            try:
                lock.acquire()  # as in `_alone`
                self._finish(place)
            finally:
                try:  # noqa: SIM105 - `suppress` takes longer than all the rest
                    lock.release()
                except RuntimeError:
                    pass
        except Exception:  # noqa: BLE001 - the host has its result already
            guard.failed("limiter")
        finally:
            if self._pending:
                self._follow_up()

    def _outcome(self, step: Callable[[_Subject], _Answer], subject: _Subject) -> _Answer:
        """What comes of a step, or of a look: there, too, a finalizer may have put something off."""
        try:
            return self._alone(step, subject)
        finally:
            if self._pending and not self._lock._is_owned():
                self._follow_up()

    def _do(self, step: Callable[[_Subject], object], subject: _Subject) -> None:
        """Take a step, now or as soon as this thread is no longer inside. Never raises an `Exception`."""
        if self._lock._is_owned():
            self._pending.append((self._catch_up, (step, subject)))
            return
        self._catch_up((step, subject))
        if self._pending:
            self._follow_up()

    def _alone(self, step: Callable[[_Subject], _Answer], subject: _Subject) -> _Answer:
        """Take a step while no other thread takes one; what follows from it is the caller's to do.

        A signal handler may raise after any call, also after that of `acquire`. Hence the outer `try` begins before
        it and learns from the lock whether it was taken. `with` is as safe and takes twice the time. The two steps
        that every call takes have copies of this, for one call of a function less.
        """
        lock = self._lock
        try:
            lock.acquire()
            return step(subject)
        finally:
            try:  # noqa: SIM105 - `suppress` takes longer than all the rest
                lock.release()
            except RuntimeError:
                pass

    def _follow_up(self) -> None:
        """Do what is pending; with no lock held, for event loops are not ours."""
        for act, subject in each(self._pending):
            act(subject)

    def _wake(self, waiter: Waiter) -> None:
        try:
            waiter.wake()
        except Exception:  # noqa: BLE001 - its event loop is closed or broken: it will never come for its place
            self._catch_up((self._leave, waiter))

    def _catch_up(self, put_off: tuple[Callable[[Any], object], Any]) -> None:
        step, subject = put_off
        try:
            self._alone(step, subject)
        except Exception:  # noqa: BLE001 - whoever put it off is not here
            guard.failed("limiter")

    # The steps: one at a time, brief, calling nothing of others.

    def _decide(self, size: int | None, request: Asked | None, kind: type[_Kind]) -> Place | _Kind | float:
        """Let a call in, or have it wait, or turn it away."""
        now, gate = self._clock(), self._gate
        if self._coming:
            self._coming.arrive(current(), now)
        if self._queue:
            self._promote(now)
        deadline_s = None
        if request is not None:
            deadline_s = request.left_s(gate.deadline_s)
            if deadline_s <= gate.expected_s(size):
                return self._refuse(now, size)
        running = self._in_use
        if running < gate.run_limit(now):  # then nobody waits any more
            if gate.admit(now, running, 0, size, deadline_s):
                return self._occupied(size, now)
        elif kind.possible() and gate.admit(now, running, len(self._queue), size, deadline_s):
            return self._enqueued(kind(size, now, deadline_s))
        return self._refuse(now, size)

    def _foresee(self, request: Asked | None) -> Announcement | float:
        """Count a call as coming, or turn it away."""
        now, gate = self._clock(), self._gate
        if self._queue:
            self._promote(now)
        deadline_s = None if request is None else request.left_s(gate.deadline_s)
        if deadline_s is not None and deadline_s <= gate.expected_s():
            return self._refuse(now, None)
        limit = gate.run_limit(now)
        inside = self._in_use + len(self._queue) + self._coming.expected(now, gate.deadline_s)
        running = min(limit, inside)
        queued = max(0, inside - running - self._coming.done(limit, gate.expected_s()))
        if not gate.may_come(now, running, queued, deadline_s):
            return self._refuse(now, None)
        self._coming.add(announcement := Announcement(self), now)
        return announcement

    def _enqueued(self, waiter: _Kind) -> _Kind:
        gate = self._gate
        deadline_s = gate.deadline_s if waiter.deadline_s is None else waiter.deadline_s
        latest_s = _BLIND_WAIT_S if isinf(deadline_s) else deadline_s - gate.expected_s(waiter.size)
        waiter.patience_s = min(max(0.0, latest_s), _LONGEST_WAIT_S)
        self._queue[waiter] = None
        return waiter

    def _occupied(self, size: int | None, now: float) -> Place:
        place = OccupiedPlace()
        place.waited_s = 0.0
        place._limiter = self
        place._size = size
        place._since_s = now
        # Nothing is called from here on, so that no signal comes between.
        self._in_use += 1
        place._generation = self._generation
        return place

    def _finish(self, place: Place) -> None:
        """Take a place back, once."""
        now = self._clock()
        if place._generation == self._generation:
            self._in_use -= 1
            place._generation = 0
            place.__class__ = Place
            try:
                self._gate.finished(now, place._since_s, now - place._since_s, place._size, place._ok)
            finally:
                if self._queue:
                    self._promote(now)

    def _promote(self, now: float) -> None:
        """Give the free places to those who have waited longest; let go whom it would not help any more."""
        gate, queue = self._gate, self._queue
        while queue and self._in_use < gate.run_limit(now):
            waiter = next(iter(queue))
            if gate.may_start(now, now - waiter.arrived_s, waiter.size, waiter.deadline_s):
                waiter.place = self._occupied(waiter.size, now)
            del queue[waiter]
            self._pending.append((self._wake, waiter))

    def _collect(self, waiter: Waiter) -> Place | float:
        """What the wait was good for."""
        now = self._clock()
        if self._queue:
            self._promote(now)
        if waiter.place is not None:
            waiter.place.waited_s = now - waiter.arrived_s
            return waiter.place
        self._dequeue(waiter, now)
        return self._refuse(now, waiter.size)

    def _leave(self, waiter: Waiter) -> None:
        """Give up waiting, also where a place was given in that very moment."""
        if waiter.place is not None:
            waiter.place._ok = False
            self._finish(waiter.place)
        else:
            self._dequeue(waiter, self._clock())

    def _dequeue(self, waiter: Waiter, now: float) -> None:
        if waiter in self._queue:
            del self._queue[waiter]
            self._gate.left(now, waiter.size)

    def _refuse(self, now: float, size: int | None) -> float:
        """Count a call that is turned away; the seconds after which another try has a chance."""
        self._rejected[size_class(size)] += 1
        return self._gate.retry_after_s(now, self._in_use, len(self._queue))


_limiters: Final[weakref.WeakSet[AdaptiveLimiter]] = weakref.WeakSet()


def reset_after_fork() -> None:
    """Reset every limiter there is, whether a model has been put behind it or not."""
    for limiter in list(_limiters):
        limiter.reset_after_fork()


os.register_at_fork(after_in_child=reset_after_fork)
