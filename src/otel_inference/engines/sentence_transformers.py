"""sentence-transformers: embedding, scoring of pairs, and loading.

Tokens are counted where the library hands a tokenised batch to the model's device: there they are
as the model gets them, truncated and with the prompt, and their mask is still on the CPU, so that
padding is left out on every device and nothing is copied to count.
"""

from __future__ import annotations

import functools
import re
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from otel_inference import guard, semconv
from otel_inference.engines._measured import measured
from otel_inference.engines._values import shape_of, size_of, token_count
from otel_inference.naming import last_part, name_of
from otel_inference.nesting import load_counts, running_call
from otel_inference.patching import Target

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from otel_inference.call import OpenCall
    from otel_inference.protocols import CallSink, Outlet

_NAME: Final = "sentence_transformers"


class _Door(NamedTuple):
    """A class, the method of it that runs the model, and what that is called."""

    module: str
    class_name: str
    method: str
    operation: str


# Since 5.4 and before. Later versions know the old modules as other names of the new ones, so that
# waiting for both patches each class once.
_DOORS: Final = (
    _Door("sentence_transformers.sentence_transformer.model", "SentenceTransformer", "encode", semconv.ENCODE),
    _Door("sentence_transformers.sparse_encoder.model", "SparseEncoder", "encode", semconv.ENCODE),
    _Door("sentence_transformers.multi_vector_encoder.model", "MultiVectorEncoder", "encode", semconv.ENCODE),
    _Door("sentence_transformers.cross_encoder.model", "CrossEncoder", "predict", semconv.PREDICT),
    _Door("sentence_transformers.SentenceTransformer", "SentenceTransformer", "encode", semconv.ENCODE),
    _Door("sentence_transformers.sparse_encoder.SparseEncoder", "SparseEncoder", "encode", semconv.ENCODE),
    _Door("sentence_transformers.cross_encoder.CrossEncoder", "CrossEncoder", "predict", semconv.PREDICT),
)


class SentenceTransformersEngine:
    """Counts one `encode` or `predict` as one call, whatever the number of its batches."""

    name = _NAME
    distribution = "sentence-transformers"
    requires = "sentence-transformers >= 3"

    def targets(self, outlet: Outlet, /) -> Sequence[Target]:
        """`encode` and `predict`, which all other methods that run a model come to, and construction."""
        return tuple(target for door in _DOORS for target in _targets_of(door, outlet))


ENGINE = SentenceTransformersEngine()


def _targets_of(door: _Door, outlet: Outlet) -> tuple[Target, ...]:
    run = functools.partial(_wrap_run, outlet, door.operation)
    return (
        Target(module=door.module, path=f"{door.class_name}.{door.method}", wrap=run),
        Target(module=door.module, path=f"{door.class_name}.__init__", wrap=functools.partial(_wrap_init, outlet)),
        Target(module=door.module, path="batch_to_device", wrap=_wrap_batch_to_device, optional=True),
    )


def _wrap_run(outlet: Outlet, operation: str, original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def run(self: Any, *args: Any, **kwargs: Any) -> Any:
        sink = outlet.sink
        if sink is None or running_call() is not None:
            return original(self, *args, **kwargs)
        inputs = args[0] if args else kwargs.get("inputs", kwargs.get("sentences"))
        return measured(sink, _begin(sink, operation, self, inputs), original, (self, *args), kwargs)

    return run


def _begin(sink: CallSink, operation: str, model: Any, inputs: Any) -> OpenCall | None:
    try:
        return sink.begin(
            _NAME,
            operation,
            name_of(model, _derive_name),
            batch_size=_rows(operation, inputs),
            usage_operation=semconv.EMBEDDINGS if operation == semconv.ENCODE else None,
        )
    except Exception:  # noqa: BLE001 - the host's call goes on uncounted
        guard.failed(_NAME)
        return None


def _rows(operation: str, inputs: Any) -> int | None:
    """How many texts or pairs, as the library tells a batch from a single one; `None` for a single one."""
    if isinstance(inputs, (list, tuple)):
        first = inputs[0] if inputs else None
        is_conversation = isinstance(first, dict) and "role" in first
        is_pair = operation == semconv.PREDICT and first is not None and not isinstance(first, (list, tuple))
        return None if is_conversation or is_pair else len(inputs)
    shape = shape_of(inputs)
    if shape is None or getattr(getattr(inputs, "dtype", None), "kind", None) not in {"U", "O"}:
        return None
    return shape[0] if len(shape) > (operation == semconv.PREDICT) else None


def _wrap_batch_to_device(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def batch_to_device(batch: Any, target_device: Any) -> Any:
        call = running_call()
        if call is not None and call.engine == _NAME and call.operation != semconv.LOAD:
            try:
                _add_batch(call, batch, target_device)
            except Exception:  # noqa: BLE001 - a batch of a shape nobody foresaw is counted without size
                guard.failed(_NAME)
        return original(batch, target_device)

    return batch_to_device


def _add_batch(call: OpenCall, batch: Any, device: Any) -> None:
    """Add one batch as the model gets it: tokens for text, elements for anything else."""
    call.device = str(device)
    tokens = _tokens(batch)
    size = tokens if tokens is not None else size_of(next(iter(batch.values()), None))
    if size is not None:
        call.input_size = (call.input_size or 0) + size
    if call.usage_operation is not None:
        call.add_tokens(tokens, None)


def _tokens(batch: Any) -> int | None:
    ids = batch.get("input_ids")
    if "offsets" in batch:  # all texts in one row, as a static embedding takes them
        return size_of(ids)
    return token_count(ids, batch.get("attention_mask"))


def _wrap_init(outlet: Outlet, original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807
        sink = outlet.sink
        source = args[0] if args else kwargs.get("model_name_or_path", kwargs.get("model_name"))
        if sink is None or source is None or not load_counts():  # put together from modules is not loaded
            original(self, *args, **kwargs)
            return
        note = functools.partial(_note_loaded, self, source)
        measured(sink, _begin_load(sink, source), original, (self, *args), kwargs, note_result=note)

    return __init__


def _begin_load(sink: CallSink, source: Any) -> OpenCall | None:
    try:
        return sink.begin(_NAME, semconv.LOAD, last_part(str(source)))
    except Exception:  # noqa: BLE001 - the host's call goes on uncounted
        guard.failed(_NAME)
        return None


def _note_loaded(model: Any, source: Any, call: OpenCall, _: Any) -> None:
    call.model = name_of(model, lambda loaded: _own_name(loaded) or last_part(str(source)))
    device = getattr(model, "device", None)
    call.device = None if device is None else str(device)


def _derive_name(model: Any) -> str:
    return _own_name(model) or type(model).__name__


def _own_name(model: Any) -> str | None:
    """What the transformers model inside was loaded from, if there is one."""
    config = getattr(model, "config", None)
    if config is None:  # before 5.4 only a cross-encoder had it
        first = next(iter(model.children()), None)
        config = getattr(getattr(first, "auto_model", None), "config", None)
    path = getattr(config, "_name_or_path", None)
    if not isinstance(path, str) or not path:
        return None
    # A model saved in parts has its transformer in a folder such as `0_Transformer`.
    in_parts = re.fullmatch(r"\d+_\w+", PurePath(path).name) is not None
    return last_part(str(PurePath(path).parent) if in_parts else path)
