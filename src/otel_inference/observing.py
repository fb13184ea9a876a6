"""`observe()`: any other callable or block as a call of a model."""

from __future__ import annotations

import functools
import inspect
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar, cast

from otel_inference import guard, semconv
from otel_inference.errors import ConfigError
from otel_inference.nesting import running_call
from otel_inference.protocols import outlet_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator
    from types import TracebackType

    from otel_inference.call import OpenCall
    from otel_inference.protocols import CallSink

ENGINE: Final = "custom"
"""`inference.engine` of what the user observes."""
OUTLET: Final = outlet_of(ENGINE)

_Function = TypeVar("_Function", bound="Callable[..., Any]")


class Observed:
    """One observed call while it runs: what `with observe(...) as call` gives.

    Every method does nothing where the call is not counted: inside another call, or while nothing
    is instrumented.
    """

    __slots__ = ("_call", "_error", "_sink")

    def __init__(self, sink: CallSink | None, call: OpenCall | None) -> None:
        self._sink = sink
        self._call = call
        self._error: BaseException | None = None

    def set(
        self,
        *,
        batch_size: int | None = None,
        input_size: int | None = None,
        device: str | None = None,
        input_tokens: int | None = None,
        output_tokens: int | None = None,
    ) -> None:
        """Say what is known of the call by now.

        Args:
            batch_size: Items in the call.
            input_size: Tokens of a text input, else elements.
            device: Where it runs, such as `cpu` or `cuda:0`.
            input_tokens: Tokens read, in all; makes the call one of generative AI.
            output_tokens: Tokens written, in all; makes the call one of generative AI.
        """
        call = self._call
        if call is None:
            return
        for name, value in (("batch_size", batch_size), ("input_size", input_size), ("device", device)):
            if value is not None:
                setattr(call, name, value)
        if input_tokens is not None or output_tokens is not None:
            call.usage_operation = call.usage_operation or semconv.TEXT_COMPLETION
            call.input_tokens = input_tokens if input_tokens is not None else call.input_tokens
            call.output_tokens = output_tokens if output_tokens is not None else call.output_tokens

    def fail(self, error: BaseException) -> None:
        """Count the call as failed with `error`, although it raises nothing."""
        self._error = error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: type[BaseException] | None, error: BaseException | None, __: TracebackType | None) -> None:
        self._end(error)

    def _admit(self) -> None:
        if self._sink is not None and self._call is not None and self._call.limited:
            self._sink.admit(self._call)

    async def _admit_async(self) -> None:
        if self._sink is not None and self._call is not None and self._call.limited:
            await self._sink.admit_async(self._call)

    def _enter(self) -> None:
        if self._sink is not None and self._call is not None:
            self._sink.enter(self._call)

    def _leave(self) -> None:
        if self._sink is not None and self._call is not None:
            self._sink.leave(self._call)

    def _end(self, error: BaseException | None = None) -> None:
        error, self._error = error if error is not None else self._error, None
        if self._sink is None or self._call is None:
            return
        if isinstance(error, GeneratorExit):
            # Closed early it has not failed: its consumer had enough. And it may be the garbage collector
            # that closes it, anywhere, also with locks held that the end of a call would need.
            self._sink.abandon(self._call)
            self._sink.leave(self._call)
        else:
            self._sink.end(self._call, error)


_entered: Final[ContextVar[tuple[Observed, ...]]] = ContextVar("otel_inference_observed", default=())
"""The blocks entered in this context, so that one `observe` object may serve many tasks at once."""


class observe:  # noqa: N801 - reads as a decorator and a context manager, which it is
    """Measure a callable or a block as a call of `model`, like the engines' own calls.

    As a decorator it takes functions, coroutine functions, generators and asynchronous generators;
    of the last two a call begins with the first item asked for and ends with the last, with
    `close()` or with an exception. What engines are called inside is part of the call.

    Args:
        model: Name of the model.
        operation: What is done with it.
        batch_size: Items in a call: a number, or a function of the observed function's arguments.
        input_size: Tokens or elements of a call: likewise.

    Raises:
        ConfigError: If `model` or `operation` is not a non-empty string.

    Example:
        >>> @observe("ranker", "predict", batch_size=lambda rows: len(rows))
        ... def predict(rows):
        ...     return [sum(row) for row in rows]
        >>> predict([[1, 2], [3, 4]])
        [3, 7]
    """

    def __init__(
        self,
        model: str,
        operation: str = "call",
        *,
        batch_size: int | Callable[..., int] | None = None,
        input_size: int | Callable[..., int] | None = None,
    ) -> None:
        for name, value in (("model", model), ("operation", operation)):
            if not isinstance(value, str) or not value:
                msg = f"observe() got {name}={value!r}; expected a non-empty string such as 'ranker'"
                raise ConfigError(msg)
        self._model = model
        self._operation = operation
        self._batch_size = batch_size
        self._input_size = input_size
        self._open: list[Observed] = []

    def __enter__(self) -> Observed:
        observed = self._begin((), {})
        try:
            observed._admit()
        except BaseException as error:
            observed._end(error)
            raise
        return self._entered(observed)

    def _entered(self, observed: Observed) -> Observed:
        self._open.append(observed)
        _entered.set((*_entered.get(), observed))
        return observed

    def __exit__(self, _: type[BaseException] | None, error: BaseException | None, __: TracebackType | None) -> None:
        entered = _entered.get()
        # Usually the block that this context entered last. One that is left in another context than it was
        # entered in (a generator that a server runs in several threads) is the last of this object's own.
        observed = next((one for one in reversed(entered) if one in self._open), self._open[-1])
        self._open.remove(observed)
        _entered.set(tuple(one for one in entered if one is not observed))
        observed._end(error)

    async def __aenter__(self) -> Observed:
        observed = self._begin((), {})
        try:
            await observed._admit_async()
        except BaseException as error:
            observed._end(error)
            raise
        return self._entered(observed)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, traceback)

    def __call__(self, function: _Function) -> _Function:
        """`function`, measured."""
        if isinstance(function, (staticmethod, classmethod)):
            return cast("_Function", type(function)(self(function.__func__)))
        if inspect.isasyncgenfunction(function):
            return cast("_Function", self._asynchronous_generator(function))
        if inspect.isgeneratorfunction(function):
            return cast("_Function", self._generator(function))
        if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None)):  # noqa: B004
            return cast("_Function", self._coroutine(function))
        return cast("_Function", self._plain(function))

    def _begin(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Observed:
        sink = OUTLET.sink
        if sink is None or running_call() is not None:
            return Observed(None, None)
        call = sink.begin(
            ENGINE,
            self._operation,
            self._model,
            batch_size=_measure(self._batch_size, args, kwargs),
            input_size=_measure(self._input_size, args, kwargs),
        )
        return Observed(sink, call)

    def _plain(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def measured(*args: Any, **kwargs: Any) -> Any:
            with self._begin(args, kwargs) as observed:
                observed._admit()
                return function(*args, **kwargs)

        return measured

    def _coroutine(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        async def measured(*args: Any, **kwargs: Any) -> Any:
            with self._begin(args, kwargs) as observed:
                await observed._admit_async()
                return await function(*args, **kwargs)

        return measured

    def _generator(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def measured(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
            with self._begin(args, kwargs) as observed:
                observed._admit()
                observed._leave()
                return (yield from _stepped(function(*args, **kwargs), observed))

        return measured

    def _asynchronous_generator(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        async def measured(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
            with self._begin(args, kwargs) as observed:
                await observed._admit_async()
                observed._leave()
                items = function(*args, **kwargs)
                step, value = items.asend, None
                while True:
                    observed._enter()
                    try:
                        item = await step(value)
                    except StopAsyncIteration:
                        return
                    finally:
                        observed._leave()
                    try:
                        value = yield item
                        step = items.asend
                    except GeneratorExit:
                        await items.aclose()
                        raise
                    except BaseException as error:  # noqa: BLE001 - the generator decides what becomes of it
                        step, value = items.athrow, error

        return measured


def _stepped(items: Generator[Any, Any, Any], observed: Observed) -> Generator[Any, Any, Any]:
    """`yield from items`, with the observed call current only while `items` runs.

    Between two items the consumer runs, in the same context: what it does is not part of the call.
    """
    step: Callable[[Any], Any] = items.send
    value: Any = None
    while True:
        observed._enter()
        try:
            item = step(value)
        except StopIteration as stop:
            return stop.value
        finally:
            observed._leave()
        try:
            value = yield item
            step = items.send
        except GeneratorExit:
            items.close()
            raise
        except BaseException as error:  # noqa: BLE001 - the generator decides what becomes of it
            step, value = items.throw, error


def _measure(size: int | Callable[..., int] | None, args: tuple[Any, ...], kwargs: dict[str, Any]) -> int | None:
    if size is None or isinstance(size, int):
        return size
    try:
        return int(size(*args, **kwargs))
    except Exception:  # noqa: BLE001 - a wrong size function costs the size, not the call
        guard.failed("observe")
        return None
