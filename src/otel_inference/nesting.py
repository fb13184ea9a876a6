"""Which call is running here: the outermost one wins, per thread and per asyncio task.

A plain context variable rather than a value in OpenTelemetry's context, because every submodule
of a torch model asks, and asking has to cost tens of nanoseconds.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

from otel_inference.call import ENDED, OpenCall
from otel_inference.semconv import LOAD

if TYPE_CHECKING:
    from collections.abc import Callable

current: Final[ContextVar[OpenCall | None]] = ContextVar("otel_inference_call", default=None)
"""The call that runs in this context, or one that has ended (`watched is ENDED`), or `None`."""

SILENT: Final = OpenCall("", "", "")
"""Current where nothing is to be counted: a training step, suppressed instrumentation."""


def running_call() -> OpenCall | None:
    """The call running in this context, `SILENT` included; `None` when there is none."""
    call = current.get()
    return None if call is None or call.watched is ENDED else call


def silently(function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    """Call `function` so that no engine counts what it does."""
    before = current.get()
    current.set(SILENT)
    try:
        return function(*args, **kwargs)
    finally:
        current.set(before)


def load_counts() -> bool:
    """Whether loading a model here is a load of its own, and not a part of one or of a silence.

    Unlike calls, a load within a call counts: a server that loads its model at the first request
    has loaded it.
    """
    call = running_call()
    return call is None or (call is not SILENT and call.operation != LOAD)
