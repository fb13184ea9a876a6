"""What a server answers when a limiter turned a call away: 503, when to come back, and a few words of JSON.

Most frameworks answer 500 themselves when a handler raises, so that a middleware around them never sees
the exception. Therefore the limiter notes what it refuses in the context of the request (`noted`), and a
500 that follows a refusal is answered as what it is.
"""

from __future__ import annotations

import json
import math
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from otel_inference.errors import OverloadedError

if TYPE_CHECKING:
    from collections.abc import Iterator

STATUS: Final = HTTPStatus.SERVICE_UNAVAILABLE
_LONGEST_S: Final = 3600.0

_noted: Final[ContextVar[list[OverloadedError] | None]] = ContextVar("otel_inference_refused", default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A 503 response."""

    body: bytes
    headers: tuple[tuple[str, str], ...]
    """Names in lower case, as ASGI wants them."""


def refusal_of(error: OverloadedError) -> Refusal:
    """The response that says what `error` says."""
    retry_after_s = whole_seconds(error.retry_after_s)
    told = {"error": "overloaded", "detail": str(error), "retry_after_s": retry_after_s}
    body = json.dumps(told).encode()
    headers = (
        ("content-type", "application/json"),
        ("content-length", str(len(body))),
        ("retry-after", str(retry_after_s)),
    )
    return Refusal(body=body, headers=headers)


def whole_seconds(retry_after_s: float) -> int:
    """Seconds for `Retry-After`, which knows no fractions (RFC 9110, 10.2.3): rounded up, from 1 to 3600.

    >>> [whole_seconds(seconds) for seconds in (0.0, 1.2, float("inf"), float("nan"))]
    [1, 2, 3600, 1]
    """
    return math.ceil(min(max(1.0, retry_after_s), _LONGEST_S))


def overload_in(error: BaseException) -> OverloadedError | None:
    """The refusal that `error` is, or that a group of nothing but refusals holds: the one to wait longest for.

    Task groups wrap what their tasks raise; a group that holds anything else is a failure of another kind.
    """
    if isinstance(error, OverloadedError):
        return error
    if not isinstance(error, BaseExceptionGroup):
        return None
    found = [overload_in(each) for each in error.exceptions]
    refusals = [each for each in found if each is not None]
    return max(refusals, key=lambda each: each.retry_after_s) if len(refusals) == len(found) else None


@contextmanager
def noted(refused: list[OverloadedError]) -> Iterator[None]:
    """Take into `refused` the first call refused in this context, or in a task or thread that takes it along."""
    token = _noted.set(refused)
    try:
        yield
    finally:
        with suppress(ValueError):  # a framework may end a response elsewhere than it began it
            _noted.reset(token)


def note(model: str, retry_after_s: float) -> None:
    """Tell the middleware of this request, if there is one, that a call was refused.

    With an error that nobody raises: one that is raised would keep alive all that its traceback refers to.
    """
    refused = _noted.get()
    if refused is not None and not refused:
        refused.append(OverloadedError(model, retry_after_s))
