"""Running a function of the host as one call of ours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from otel_inference import guard
from otel_inference.engines._streams import go_on
from otel_inference.nesting import silently

if TYPE_CHECKING:
    from collections.abc import Callable

    from otel_inference.call import OpenCall
    from otel_inference.protocols import CallSink


def measured(
    sink: CallSink,
    call: OpenCall | None,
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    *,
    note_result: Callable[[OpenCall, Any], None] | None = None,
    goes_on: Callable[[Any], bool] | None = None,
) -> Any:
    """Run `function` within `call` and end it once, however it ends.

    Args:
        sink: Where the call was begun.
        call: The call, or `None` when this one is not counted, nor anything inside it.
        function: The host's function.
        args: Its positional arguments.
        kwargs: Its keyword arguments.
        note_result: Reads what the call should know of the result, and must not keep it.
        goes_on: Whether the result is an iterator with which the call goes on (see `_streams`).
    """
    if call is None:
        return silently(function, *args, **kwargs)
    try:
        if call.limited:
            sink.admit(call)
        result = function(*args, **kwargs)
    except BaseException as error:
        sink.end(call, error)
        raise
    try:
        if note_result is not None:
            note_result(call, result)
        if goes_on is not None and goes_on(result):
            go_on(sink, call, result)
            return result
    except Exception:  # noqa: BLE001 - our reading of a result is never the host's problem
        guard.failed("result")
    sink.end(call)
    return result
