"""Calls whose result is an iterator: they go on until its last item.

The host gets the very iterator that the engine made; its class's `__next__` is patched, and looks
here whether the one it is called on belongs to a call.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    from otel_inference.call import OpenCall
    from otel_inference.protocols import CallSink


class _Stream(NamedTuple):
    iterator: weakref.ref[Any]
    sink: CallSink
    call: OpenCall


_streams: dict[int, _Stream] = {}
"""Identity of an iterator -> its call. No strong reference to the iterator is kept."""


def go_on(sink: CallSink, call: OpenCall, iterator: Any) -> None:
    """Let `call` go on until `iterator` is exhausted, fails or is dropped.

    Args:
        sink: Where the call was begun.
        call: A call that is current here; it is not afterwards, but in each step of the iterator.
        iterator: What the engine returned; its class has to be patched with `stepping`.
    """
    sink.leave(call)
    key = id(iterator)

    def dropped(_: weakref.ref[Any]) -> None:
        if _streams.pop(key, None) is not None:
            sink.abandon(call)

    _streams[key] = _Stream(weakref.ref(iterator, dropped), sink, call)


def stepping(original: Callable[[Any], Any], iterator: Any) -> Any:
    """`original(iterator)`, one step, as part of the iterator's call if it has one."""
    stream = _streams.get(id(iterator))
    if stream is None or stream.iterator() is not iterator:
        return original(iterator)
    stream.sink.enter(stream.call)
    try:
        item = original(iterator)
    except BaseException as error:
        _streams.pop(id(iterator), None)
        stream.sink.end(stream.call, None if isinstance(error, StopIteration) else error)
        raise
    stream.sink.leave(stream.call)
    return item
