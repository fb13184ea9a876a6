"""Calls that are on their way: the request is there, and has to be read and handed on before it asks for a place.

A server that reads, checks and dispatches requests only to turn them away has less time for those that it serves.
A middleware therefore announces the call (`announced`) before anything else is done for its request: it is turned away
there and then if it would be later, and counts as coming until it asks for its place. Without that count all requests
that arrive within the time that one takes to get through would find the same free place in the queue.
"""

from __future__ import annotations

from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final

from otel_inference import guard, protocols

if TYPE_CHECKING:
    from collections.abc import Iterator

    from otel_inference.maintenance.limiter import AdaptiveLimiter

OUTLET: Final = protocols.outlet_of("http")
"""Where announcements go; the runtime sets its sink."""

_FADE: Final = 0.05
_LONGEST_S: Final = 1.0
_LONGEST_SHARE: Final = 0.1
"""A call that has not come after this share of the deadline is not counted on: its request may never make one."""

_current: Final[ContextVar[protocols.Announcement | None]] = ContextVar("otel_inference_announcement", default=None)


class Announcement:
    """A call that was announced to a limiter."""

    __slots__ = ("_limiter",)

    def __init__(self, limiter: AdaptiveLimiter) -> None:
        self._limiter = limiter

    def withdraw(self) -> None:
        """Say that it will not come any more; does nothing if it has."""
        if self._limiter._coming:
            self._limiter._do(self._limiter._coming.drop, self)


class Coming(dict[object, float]):
    """The calls that were announced to one limiter and have not come yet, and since when. One thread at a time.

    A dictionary itself: whether it is empty is asked at each call of a model.

    >>> coming, first = Coming(), object()
    >>> coming.add(first, 0.0)
    >>> coming.expected(0.01, 0.5), coming.expected(0.1, 0.5)
    (1, 0)
    """

    __slots__ = ("lag_s",)

    def __init__(self) -> None:
        super().__init__()
        self.lag_s = 0.0
        """Fading mean of the time from the announcement to the call."""

    def add(self, announcement: object, now: float) -> None:
        """Count a call as coming."""
        self[announcement] = now

    def arrive(self, announcement: object, now: float) -> None:
        """Say that it has come; only the first time counts."""
        since_s = self.pop(announcement, None)
        if since_s is not None:
            self.lag_s += (now - since_s - self.lag_s) * _FADE

    def drop(self, announcement: object) -> None:
        """Say that it will not come."""
        self.pop(announcement, None)

    def expected(self, now: float, deadline_s: float) -> int:
        """How many are to be expected.

        Args:
            now: Seconds on the limiter's clock.
            deadline_s: The limiter's deadline.
        """
        longest_s = min(_LONGEST_S, _LONGEST_SHARE * deadline_s)
        while self:
            oldest = next(iter(self))
            if now - self[oldest] <= longest_s:
                break
            del self[oldest]
        return len(self)

    def done(self, places: int, service_s: float) -> int:
        """How many of those that run and wait will be done when one that is announced now has come.

        Args:
            places: How many run at once.
            service_s: Seconds that each takes; 0 while that is not known.
        """
        return int(places * self.lag_s / service_s) if service_s else 0


def current() -> protocols.Announcement | None:
    """The announcement of the current request, if there is one."""
    return _current.get()


@contextmanager
def announced(model: str | None) -> Iterator[None]:
    """Announce that what is done in this block will call `model`; `None` announces nothing.

    Raises:
        OverloadedError: Before the block is begun, if its limiter would turn the call away. It is counted as a call.
    """
    sink = None if model is None else OUTLET.sink
    announcement = None if sink is None or model is None else sink.announce(model)
    if announcement is None:
        yield
        return
    token = _current.set(announcement)
    try:
        yield
    finally:
        with suppress(ValueError):  # a framework may end a response elsewhere than it began it
            _current.reset(token)
        try:
            announcement.withdraw()
        except Exception:  # noqa: BLE001 - a limiter that does not work spoils no answer
            guard.failed("limiter")
