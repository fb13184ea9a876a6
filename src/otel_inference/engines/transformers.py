"""transformers: pipelines, generation and loading."""

from __future__ import annotations

import functools
import sys
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, Final

from otel_inference import guard, semconv
from otel_inference.engines import _content, _continuous, _generation
from otel_inference.engines._forward import forward_target
from otel_inference.engines._measured import measured
from otel_inference.engines._naming import module_name
from otel_inference.engines._streams import stepping
from otel_inference.engines._values import batch_size_of, size_of, token_count
from otel_inference.naming import given_name, last_part
from otel_inference.nesting import SILENT, load_counts, running_call
from otel_inference.patching import Target

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from otel_inference.call import OpenCall
    from otel_inference.protocols import CallSink, Outlet

_NAME: Final = "transformers"
_PIPELINES: Final = "transformers.pipelines.base"
_ITERATORS: Final = "transformers.pipelines.pt_utils"


class TransformersEngine:
    """Counts a pipeline, a generation or a load as one call, with what happens inside as facts."""

    name = _NAME
    distribution = "transformers"
    requires = "transformers >= 4.40"

    def targets(self, outlet: Outlet, /) -> Sequence[Target]:
        """Pipelines, `generate`, `from_pretrained`, and the forward steps inside `generate`."""
        return (
            Target(module=_PIPELINES, path="Pipeline.__call__", wrap=functools.partial(_wrap_pipeline, outlet)),
            Target(module=_PIPELINES, path="Pipeline.forward", wrap=_wrap_pipeline_forward),
            Target(module=_ITERATORS, path="PipelineIterator.__next__", wrap=_wrap_next),
            Target(
                module="transformers.generation.utils",
                path="GenerationMixin.generate",
                wrap=functools.partial(_wrap_generate, outlet),
            ),
            Target(
                module="transformers.modeling_utils",
                path="PreTrainedModel.from_pretrained",
                wrap=functools.partial(_wrap_from_pretrained, outlet),
            ),
            *_continuous.targets(outlet),
            forward_target(),
        )


ENGINE = TransformersEngine()


def _wrap_generate(outlet: Outlet, original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def generate(self: Any, *args: Any, **kwargs: Any) -> Any:
        sink = outlet.sink
        outer = running_call()
        if sink is None or (outer is not None and (outer is SILENT or _generation.running.get())):
            return original(self, *args, **kwargs)
        generation = _describe(self, args, kwargs)
        if outer is not None:
            return _generation.watched(outer, generation, original, self, args, kwargs)
        call = _begin_generate(sink, self, generation)
        if call is None:
            return measured(sink, None, original, (self, *args), kwargs)
        return measured(sink, call, _generation.watched, (call, generation, original, self, args, kwargs), {})

    return generate


def _describe(model: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _generation.Generation | None:
    try:
        return _generation.describe(model, args, kwargs)
    except Exception:  # noqa: BLE001 - an unforeseen kind of generation is counted without its tokens
        guard.failed("transformers.generate")
        return None


def _begin_generate(sink: CallSink, model: Any, generation: _generation.Generation | None) -> OpenCall | None:
    try:
        name = module_name(model)
        if generation is None:
            return sink.begin(_NAME, semconv.GENERATE, name, usage_operation=semconv.TEXT_COMPLETION)
        return sink.begin(
            _NAME,
            semconv.GENERATE,
            name,
            device=None if generation.device is None else str(generation.device),
            batch_size=generation.rows,
            input_size=generation.input_tokens if generation.input_tokens is not None else generation.input_elements,
            usage_operation=semconv.TEXT_COMPLETION,
            request=generation.request,
        )
    except Exception:  # noqa: BLE001 - the host's call goes on uncounted
        guard.failed("transformers.generate")
        return None


def _wrap_pipeline(outlet: Outlet, original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def __call__(self: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N807
        sink = outlet.sink
        if sink is None or running_call() is not None:
            return original(self, *args, **kwargs)
        inputs = args[0] if args else kwargs.get("inputs")
        call = _begin_pipeline(sink, self, inputs)
        note = _note_pipeline
        if call is not None and outlet.capture_content and self.task == "text-generation":
            with guard.guarded("content"):
                call.content = _content.of_inputs(inputs)
            note = _note_pipeline_with_content
        return measured(sink, call, original, (self, *args), kwargs, note_result=note, goes_on=_is_stream)

    return __call__


def _note_pipeline(call: OpenCall, result: Any) -> None:  # noqa: ARG001 - one of two alike
    """Add the stage after the forward, where there was one forward: several overlap with other stages."""
    if call.forwards == 1:
        call.add_stage(semconv.POSTPROCESS, call.forward_ended_ns, perf_counter_ns())


def _note_pipeline_with_content(call: OpenCall, result: Any) -> None:
    _note_pipeline(call, result)
    call.content = {**(call.content or {}), **_content.of_results(result)}


def _is_stream(result: Any) -> bool:
    """Whether a pipeline has returned an iterator, which it does for generators and datasets."""
    return isinstance(result, sys.modules[_ITERATORS].PipelineIterator)


def _wrap_next(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def __next__(self: Any) -> Any:  # noqa: N807
        return stepping(original, self)

    return __next__


def _begin_pipeline(sink: CallSink, pipeline: Any, inputs: Any) -> OpenCall | None:
    try:
        device = getattr(pipeline, "device", None)
        return sink.begin(
            _NAME,
            semconv.PIPELINE,
            given_name(pipeline) or module_name(pipeline.model),
            device=None if device is None else str(device),
            batch_size=None if _is_chat(inputs) else batch_size_of(inputs),
            usage_operation=_usage_operation(pipeline, inputs),
        )
    except Exception:  # noqa: BLE001 - the host's call goes on uncounted
        guard.failed("transformers.pipeline")
        return None


def _usage_operation(pipeline: Any, inputs: Any) -> str | None:
    """The `gen_ai` operation of a pipeline; other generating pipelines show it when they generate."""
    if pipeline.task == "feature-extraction":
        return semconv.EMBEDDINGS
    if pipeline.task != "text-generation":
        return None
    first = inputs[0] if isinstance(inputs, list) and inputs else None
    return semconv.CHAT if _is_chat(inputs) or _is_chat(first) else semconv.TEXT_COMPLETION


def _is_chat(inputs: Any) -> bool:
    """Whether `inputs` is one conversation: a list of messages, which is not a batch."""
    return isinstance(inputs, list) and bool(inputs) and isinstance(inputs[0], dict) and "role" in inputs[0]


def _wrap_pipeline_forward(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def forward(self: Any, model_inputs: Any, *args: Any, **kwargs: Any) -> Any:
        call = running_call()
        if call is None or call is SILENT or call.operation != semconv.PIPELINE:
            return original(self, model_inputs, *args, **kwargs)
        try:
            _add_input_size(call, self, model_inputs)
        except Exception:  # noqa: BLE001 - inputs of a shape nobody foresaw are counted without size
            guard.failed("transformers.pipeline")
        started_ns = perf_counter_ns()
        result = original(self, model_inputs, *args, **kwargs)
        _add_forward(call, started_ns)
        return result

    return forward


def _add_forward(call: OpenCall, started_ns: int) -> None:
    call.forward_ended_ns = perf_counter_ns()
    if call.forwards == 0:
        call.add_stage(semconv.PREPROCESS, call.started_ns + (call.queue_ns or 0), started_ns)
    if call.first_token_ns is None:  # a generation inside has stages of its own
        call.add_stage(semconv.STAGE_FORWARD, started_ns, call.forward_ended_ns)
    call.forwards += 1
    if call.forwards > 1:
        call.drop_stage(semconv.PREPROCESS)  # that of the others cannot be told from what is around it


def _add_input_size(call: OpenCall, pipeline: Any, model_inputs: Any) -> None:
    """Add one batch as the model gets it: tokens for text, elements for pictures and sound."""
    main = model_inputs.get(pipeline.model.main_input_name)
    tokens = token_count(main, model_inputs.get("attention_mask"))
    size = tokens if tokens is not None else size_of(main)
    if size is None:
        return
    call.input_size = (call.input_size or 0) + size
    if call.usage_operation == semconv.EMBEDDINGS:
        call.add_tokens(tokens, None)


def _wrap_from_pretrained(outlet: Outlet, original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def from_pretrained(cls: Any, *args: Any, **kwargs: Any) -> Any:
        sink = outlet.sink
        if sink is None or not load_counts():
            return original(cls, *args, **kwargs)
        source = args[0] if args else kwargs.get("pretrained_model_name_or_path")
        return measured(sink, _begin_load(sink, cls, source), original, (cls, *args), kwargs, note_result=_note_loaded)

    return from_pretrained


def _begin_load(sink: CallSink, model_class: type, source: Any) -> OpenCall | None:
    try:
        return sink.begin(_NAME, semconv.LOAD, last_part(str(source)) if source is not None else model_class.__name__)
    except Exception:  # noqa: BLE001 - the host's call goes on uncounted
        guard.failed("transformers.from_pretrained")
        return None


def _note_loaded(call: OpenCall, result: Any) -> None:
    model = result[0] if isinstance(result, tuple) else result
    call.model = module_name(model)
    call.device = str(model.device)
