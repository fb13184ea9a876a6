"""Until when the answer to the current request is of any use.

A request may say so itself, and then it counts instead of the limiter's own deadline:

- in code, `with deadline(0.2): ...`: the calls in the block, in the tasks it starts and in threads that take
  its context along (`asyncio.to_thread`, the thread pools of ASGI frameworks; not `loop.run_in_executor`);
- in a header that a middleware was told to read;
- in OpenTelemetry baggage, `inference.deadline`: the time of day in seconds since 1970 (UTC), fractions
  allowed. It is a time and not "seconds left", because baggage goes on from hop to hop and nobody
  subtracts on the way; the clocks of the hosts have to agree.

What code says may be shorter or longer than the limiter's deadline. What comes from outside can only
shorten it: otherwise a caller could buy itself a place in the queue for as long as it likes.
"""

from __future__ import annotations

import math
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from time import monotonic, time
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.baggage import _BAGGAGE_KEY
from opentelemetry.context import get_current

from otel_inference import semconv
from otel_inference.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

BAGGAGE_KEY: Final = semconv.DEADLINE
"""Baggage entry with the time of day, in seconds since 1970, until which an answer is of use."""

_FARTHEST_S: Final = 86_400.0
"""What is farther away than a day, in the past or to come, is no time in seconds, but a mistake."""


class Asked:
    """What the current request says of its deadline; times of `time.monotonic`.

    Made by `_asked` and never changed: a constructor of its own would take as long as all the rest.
    """

    __slots__ = ("at_most_until_s", "own_until_s")

    own_until_s: float | None
    """Instead of the limiter's deadline."""
    at_most_until_s: float
    """No later than this."""

    def left_s(self, usual_s: float) -> float:
        """Seconds left to the request; negative when its deadline has passed.

        Args:
            usual_s: The limiter's own deadline, for a request that has come just now.
        """
        now_s = monotonic()
        own_s = usual_s if self.own_until_s is None else self.own_until_s - now_s
        at_most_s = self.at_most_until_s - now_s
        return own_s if own_s < at_most_s else at_most_s  # noqa: FURB136 - `min` takes three times as long


def _asked(own_until_s: float | None, at_most_until_s: float) -> Asked:
    made = Asked()
    made.own_until_s = own_until_s
    made.at_most_until_s = at_most_until_s
    return made


_NOTHING: Final = _asked(None, math.inf)

_said: Final[ContextVar[Asked | None]] = ContextVar("otel_inference_deadline", default=None)
"""What code and middleware have said. Put together when it is said: it is read at each call of a model."""


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Have the calls of this block answered within `seconds`, or turned away by their limiter.

    Instead of the limiter's own deadline; a block within a block can only shorten it. Without a limiter
    it does nothing: a running call is never broken off.

    Args:
        seconds: From now; zero or less where it has passed already.

    Raises:
        ConfigError: If `seconds` is not a finite number.
    """
    if not math.isfinite(seconds):
        msg = f"the deadline is {seconds!r}; expected a finite number of seconds from now"
        raise ConfigError(msg)
    until_s = monotonic() + seconds
    said = _said.get() or _NOTHING
    sooner = said.own_until_s is None or until_s < said.own_until_s
    with _saying(_asked(until_s, said.at_most_until_s) if sooner else said):
        yield


@contextmanager
def outer_deadline(seconds: float | None) -> Iterator[None]:
    """The same as somebody outside asked for it: never longer than the limiter's own; `None` asks for nothing."""
    if seconds is None:
        yield
        return
    said = _said.get() or _NOTHING
    with _saying(_asked(said.own_until_s, min(said.at_most_until_s, monotonic() + seconds))):
        yield


@contextmanager
def _saying(asked: Asked) -> Iterator[None]:
    token = _said.set(asked)
    try:
        yield
    finally:
        # Frameworks end a generator elsewhere than they began it; then there is nothing to put back here.
        with suppress(ValueError):
            _said.reset(token)


def asked() -> Asked | None:
    """The deadline of the current request; `None`, as for most, where it says nothing."""
    said = _said.get()
    entries: Any = get_current().get(_BAGGAGE_KEY)
    told = entries.get(BAGGAGE_KEY) if entries else None
    if told is None:
        return said
    told_s = _told_s(told)
    if said is None:
        return None if told_s == math.inf else _asked(None, told_s)
    return said if said.at_most_until_s <= told_s else _asked(said.own_until_s, told_s)


def _told_s(told: object) -> float:
    """What baggage says, on our clock. It is text from afar: what makes no sense asks for nothing."""
    seconds = _seconds(told)
    from_now_s = math.inf if seconds is None else seconds - time()
    return monotonic() + from_now_s if -_FARTHEST_S <= from_now_s <= _FARTHEST_S else math.inf


def seconds_of(header: str) -> float | None:
    """Seconds that a header asks for; `None` where it is no number from 0 to a day.

    >>> seconds_of("0.25"), seconds_of("-1"), seconds_of("soon"), seconds_of("inf")
    (0.25, None, None, None)
    """
    seconds = _seconds(header)
    return seconds if seconds is not None and 0 <= seconds <= _FARTHEST_S else None


def _seconds(told: object) -> float | None:
    """The number that was written, without the properties that baggage may carry after a semicolon."""
    text = told if type(told) is str else str(told)
    try:
        return float(text.partition(";")[0] if ";" in text else text)
    except ValueError:
        return None
