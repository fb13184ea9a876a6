"""llama-cpp-python: completion, chat, embedding and loading.

Tokens are counted and timed at `Llama.generate`, which takes the tokens of the prompt and yields the
new ones one by one, streamed or not: the chunks of a stream are pieces of text, not tokens. A token
that ends the generation is not counted, nor is it in the library's own `usage`. Time per token is
the model's, without what happens to a token before the next is asked for.

A stream of the library is a plain generator, whose class cannot be patched. The host gets a
generator around it that behaves like it: each step, `send`, `throw`, `close`, its name, and its end
when it is dropped. Everything else is the very object that the library returned.
"""

from __future__ import annotations

import functools
import inspect
import os
import sys
import weakref
from pathlib import PurePath
from time import perf_counter_ns
from types import GeneratorType
from typing import TYPE_CHECKING, Any, Final, cast

from otel_inference import guard, semconv
from otel_inference.engines._measured import measured
from otel_inference.naming import name_of
from otel_inference.nesting import SILENT, load_counts, running_call, silently
from otel_inference.patching import Target

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from otel_inference.call import OpenCall
    from otel_inference.protocols import CallSink, Outlet

_NAME: Final = "llama_cpp"
_MODULE: Final = "llama_cpp.llama"


class LlamaCppEngine:
    """Counts a completion, a chat, an embedding or a load as one call; a stream to its last chunk."""

    name = _NAME
    distribution = "llama-cpp-python"
    requires = "llama-cpp-python >= 0.3.7"

    def targets(self, outlet: Outlet, /) -> Sequence[Target]:
        """The methods of `Llama` that run a model, and those inside that see its tokens."""

        def target(path: str, wrap: Callable[..., Any], *facts: Any) -> Target:
            return Target(module=_MODULE, path=f"Llama.{path}", wrap=functools.partial(wrap, outlet, *facts))

        return (
            target("__init__", _wrap_init),
            target("create_completion", _wrap_completion, semconv.COMPLETION, semconv.TEXT_COMPLETION),
            target("create_chat_completion", _wrap_completion, semconv.CHAT, semconv.CHAT),
            target("create_embedding", _wrap_embedding),
            target("embed", _wrap_embedding),
            target("generate", _wrap_generate),
            Target(
                module="llama_cpp._internals", path="LlamaBatch.add_sequence", wrap=_wrap_add_sequence, optional=True
            ),
        )


ENGINE = LlamaCppEngine()


class _Parameters:
    """Finds arguments of a function by name, wherever the caller put them."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._known = {
            name: (position, None if parameter.default is parameter.empty else parameter.default)
            for position, (name, parameter) in enumerate(inspect.signature(function).parameters.items())
        }

    def value(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The argument `name`, else its default."""
        position, default = self._known.get(name, (sys.maxsize, None))
        return args[position] if position < len(args) else kwargs.get(name, default)


def _wrap_completion(
    outlet: Outlet, operation: str, usage_operation: str, original: Callable[..., Any]
) -> Callable[..., Any]:
    parameters = _Parameters(original)

    @functools.wraps(original)
    def complete(*args: Any, **kwargs: Any) -> Any:
        sink = outlet.sink
        if sink is None or running_call() is not None:
            return original(*args, **kwargs)
        call = _begin(sink, operation, usage_operation, parameters, args, kwargs)
        if call is None:
            return silently(original, *args, **kwargs)
        try:
            if call.limited:
                sink.admit(call)
            result = original(*args, **kwargs)
        except BaseException as error:
            sink.end(call, error)
            raise
        if isinstance(result, GeneratorType):
            sink.leave(call)
            return _relayed(sink, call, result)
        _note_usage(call, result)
        sink.end(call)
        return result

    return complete


def _begin(
    sink: CallSink,
    operation: str,
    usage_operation: str,
    parameters: _Parameters,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> OpenCall | None:
    try:
        return sink.begin(
            _NAME,
            operation,
            name_of(args[0], _derive_name),
            device=_device(),
            usage_operation=usage_operation,
            request=_request(parameters, args, kwargs),
        )
    except Exception:  # noqa: BLE001 - the host's call goes on uncounted
        guard.failed(_NAME)
        return None


_REQUEST: Final = {
    "max_tokens": semconv.GEN_AI_MAX_TOKENS,
    "temperature": semconv.GEN_AI_TEMPERATURE,
    "top_p": semconv.GEN_AI_TOP_P,
    "top_k": semconv.GEN_AI_TOP_K,
}


def _request(parameters: _Parameters, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """`gen_ai.request.*`: what the caller asked for, else the library's defaults."""
    request: dict[str, Any] = {}
    for name, attribute in _REQUEST.items():
        value = parameters.value(name, args, kwargs)
        if isinstance(value, (int, float)) and not (name == "max_tokens" and value <= 0):  # then there is no limit
            request[attribute] = value
    if parameters.value("stream", args, kwargs) is True:
        request[semconv.GEN_AI_STREAM] = True
    return request


def _device() -> str | None:
    """`cpu` where the library was built without any accelerator; with one, a model may be on both."""
    return None if sys.modules[_NAME].llama_supports_gpu_offload() else "cpu"


def _derive_name(llama: Any) -> str:
    return _stem(getattr(llama, "model_path", None)) or type(llama).__name__


def _stem(path: Any) -> str:
    return PurePath(os.fsdecode(path)).stem if isinstance(path, (str, os.PathLike)) else ""


def _note_usage(call: OpenCall, result: Any) -> None:
    """Take the tokens that the response names where none were seen, as with a chat handler of the host's."""
    try:
        usage = result.get("usage") if isinstance(result, dict) and call.input_tokens is None else None
        if isinstance(usage, dict):
            call.add_tokens(usage.get("prompt_tokens"), usage.get("completion_tokens"))
            call.input_size = call.input_tokens
    except Exception:  # noqa: BLE001 - our reading of a result is never the host's problem
        guard.failed(_NAME)


def _relayed(sink: CallSink, call: OpenCall, chunks: GeneratorType[Any, Any, Any]) -> GeneratorType[Any, Any, Any]:
    """A generator like `chunks`, with which `call` goes on until it is exhausted, fails, is closed or dropped."""
    relay = cast("GeneratorType[Any, Any, Any]", _relay(sink, call, chunks))
    relay.__name__, relay.__qualname__ = chunks.__name__, chunks.__qualname__
    # One that never starts never ends either, as far as its own code can see.
    weakref.finalize(relay, sink.abandon, call).atexit = False
    return relay


def _relay(sink: CallSink, call: OpenCall, chunks: Generator[Any, Any, Any]) -> Generator[Any, Any, Any]:
    step, sent = chunks.send, None
    while True:
        box = _step(sink, call, step, sent)
        if not box:
            return
        try:
            sent = yield box.pop()  # out of the box: a frame that waits here holds no chunk
            step = chunks.send
        except GeneratorExit:
            # Perhaps in a finalizer, where nothing may lock.
            sink.abandon(call)
            chunks.close()
            raise
        except BaseException as error:  # noqa: BLE001 - the library's generator decides what becomes of it
            step, sent = chunks.throw, error


def _step(sink: CallSink, call: OpenCall, step: Callable[[Any], Any], sent: Any) -> list[Any]:
    """One step of a stream as part of its call: its chunk, or nothing at its end."""
    sink.enter(call)
    try:
        chunk = step(sent)
    except StopIteration:
        sink.end(call)
        return []
    except BaseException as error:
        sink.end(call, error)
        raise
    sink.leave(call)
    return [chunk]


def _wrap_generate(outlet: Outlet, original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def generate(self: Any, tokens: Any, *args: Any, **kwargs: Any) -> Any:
        call = running_call()
        if outlet.sink is None or call is None or call is SILENT:
            return original(self, tokens, *args, **kwargs)
        call.usage_operation = call.usage_operation or semconv.TEXT_COMPLETION
        _add_input(call, tokens)
        call.add_tokens(None, 0)
        return _counted(call, self, original(self, tokens, *args, **kwargs))

    return generate


def _add_input(call: OpenCall, tokens: Any) -> None:
    if isinstance(tokens, list):
        call.add_tokens(len(tokens), None)
        if call.engine == _NAME:
            call.input_size = call.input_tokens


def _counted(call: OpenCall, llama: Any, tokens: Generator[int, Any, None]) -> Generator[int, Any, None]:
    """`tokens`, each counted and timed."""
    progress = _Progress(call, llama)
    sent = None
    try:
        while True:
            resumed_ns = perf_counter_ns()
            try:
                token = tokens.send(sent)
            except StopIteration:
                return
            progress.note(token, resumed_ns)
            sent = yield token
    finally:
        tokens.close()
        progress.end()


class _Progress:
    """One generation within a call."""

    __slots__ = ("_call", "_first_ns", "_last_ns", "_llama", "_started_ns")

    def __init__(self, call: OpenCall, llama: Any) -> None:
        self._call = call
        self._llama = llama
        self._started_ns = perf_counter_ns()
        self._first_ns = self._last_ns = 0

    def note(self, token: int, resumed_ns: int) -> None:
        """Note a token that was asked for at `resumed_ns` and is there now."""
        now_ns = perf_counter_ns()
        try:
            if _ends_generation(self._llama, token):
                return
        except Exception:  # noqa: BLE001 - the generation goes on; its last token is counted
            guard.failed(_NAME)
        call = self._call
        call.add_tokens(None, 1)
        self._last_ns = now_ns
        if self._first_ns:
            call.decode_ns += now_ns - resumed_ns
            call.decoded_tokens += 1
            return
        self._first_ns = now_ns
        call.add_stage(semconv.PREFILL, self._started_ns, now_ns)
        if call.first_token_ns is None:
            call.first_token_ns = now_ns

    def end(self) -> None:
        """Note the stage after the first token; between the tokens of a stream there is the host's time."""
        if self._last_ns > self._first_ns and semconv.GEN_AI_STREAM not in self._call.request:
            self._call.add_stage(semconv.DECODE, self._first_ns, self._last_ns)


def _ends_generation(llama: Any, token: int) -> bool:
    return bool(sys.modules[_NAME].llama_vocab_is_eog(llama._model.vocab, token))


def _wrap_embedding(outlet: Outlet, original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def embed(self: Any, *args: Any, **kwargs: Any) -> Any:
        sink = outlet.sink
        if sink is None or running_call() is not None:
            return original(self, *args, **kwargs)
        call = _begin_embedding(sink, self, args[0] if args else kwargs.get("input"))
        return measured(sink, call, original, (self, *args), kwargs, note_result=_note_usage)

    return embed


def _begin_embedding(sink: CallSink, llama: Any, texts: Any) -> OpenCall | None:
    try:
        return sink.begin(
            _NAME,
            semconv.EMBED,
            name_of(llama, _derive_name),
            device=_device(),
            batch_size=len(texts) if isinstance(texts, list) else None,
            usage_operation=semconv.EMBEDDINGS,
        )
    except Exception:  # noqa: BLE001 - the host's call goes on uncounted
        guard.failed(_NAME)
        return None


def _wrap_add_sequence(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def add_sequence(self: Any, batch: Any, *args: Any, **kwargs: Any) -> Any:
        call = running_call()
        if call is not None and call.engine == _NAME and call.operation == semconv.EMBED:
            _add_input(call, batch)
        return original(self, batch, *args, **kwargs)

    return add_sequence


def _wrap_init(outlet: Outlet, original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807
        sink = outlet.sink
        if sink is None or not load_counts():
            original(self, *args, **kwargs)
            return
        call = _begin_load(sink, self, args[0] if args else kwargs.get("model_path"))
        measured(sink, call, original, (self, *args), kwargs, note_result=functools.partial(_note_loaded, self))

    return __init__


def _begin_load(sink: CallSink, llama: Any, path: Any) -> OpenCall | None:
    try:
        return sink.begin(_NAME, semconv.LOAD, _stem(path) or type(llama).__name__, device=_device())
    except Exception:  # noqa: BLE001 - the host's call goes on uncounted
        guard.failed(_NAME)
        return None


def _note_loaded(llama: Any, call: OpenCall, _: Any) -> None:
    call.model = name_of(llama, _derive_name)
