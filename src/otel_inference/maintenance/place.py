"""A place that a limiter gave to one call."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from otel_inference.maintenance.limiter import AdaptiveLimiter


class Place:
    """A `protocols.Permit`. The limiter fills it in: a constructor takes as long as deciding does.

    Attributes:
        waited_s: Seconds that the call waited for it.
    """

    __slots__ = ("_generation", "_limiter", "_ok", "_since_s", "_size", "waited_s")

    waited_s: float
    _limiter: AdaptiveLimiter
    _size: int | None
    _since_s: float
    """When it was given, on the limiter's clock."""
    _generation: int
    """Which of the limiter's generations of places it belongs to; 0 if it takes up no room."""
    _ok: bool

    def release(self, *, ok: bool = True) -> None:
        """See `protocols.Permit.release`. This one may be called by a finalizer, too."""
        if self._generation:
            self._ok = ok
            self._limiter._take_back(self)


class OccupiedPlace(Place):
    """A place that takes up room, and comes back by itself if it is thrown away.

    The limiter makes a `Place` of it when it has come back: a finalizer swallows the signal that strikes it, so
    that what is thrown away in the normal course of things must have none.
    """

    __slots__ = ()

    def __del__(self) -> None:
        if getattr(self, "_generation", 0):  # a signal may have struck before it was filled in
            self.release(ok=False)


def free_pass() -> Place:
    """A place that takes up no room."""
    place = Place()
    place.waited_s = 0.0
    place._generation = 0
    return place
