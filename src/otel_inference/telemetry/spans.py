"""What of a call is written to its span."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from otel_inference import semconv

if TYPE_CHECKING:
    from otel_inference.call import OpenCall, Usage


def start_attributes(call: OpenCall, base: dict[str, Any]) -> dict[str, Any]:
    """Attributes known when a call begins; samplers see these.

    Args:
        call: The call.
        base: Attributes that all calls of its engine, operation and model share.
    """
    attributes = {**base, **size_attributes(call)}
    if call.operation != semconv.LOAD:
        attributes[semconv.COLD] = call.cold
    if call.usage_operation is not None:
        attributes[semconv.GEN_AI_OPERATION] = call.usage_operation
        attributes[semconv.GEN_AI_PROVIDER] = call.engine
        attributes[semconv.GEN_AI_MODEL] = call.model
        attributes.update(call.request)
    return attributes


def size_attributes(call: OpenCall) -> dict[str, Any]:
    """Where the call runs and how big it is, as far as known."""
    attributes: dict[str, Any] = {}
    if call.device is not None:
        attributes[semconv.DEVICE] = call.device
    if call.batch_size is not None:
        attributes[semconv.BATCH_SIZE] = call.batch_size
    if call.input_size is not None:
        attributes[semconv.INPUT_SIZE] = call.input_size
    return attributes


def usage_attributes(usage: Usage, engine: str, model: str) -> dict[str, Any]:
    """What a generation took and gave."""
    attributes = {
        semconv.GEN_AI_OPERATION: usage.operation,
        semconv.GEN_AI_PROVIDER: engine,
        semconv.GEN_AI_MODEL: model,
        **usage.request,
        semconv.GEN_AI_INPUT_TOKENS: usage.input_tokens,
        semconv.GEN_AI_OUTPUT_TOKENS: usage.output_tokens,
        semconv.TIME_TO_FIRST_TOKEN: usage.time_to_first_token_s,
        semconv.TIME_PER_OUTPUT_TOKEN: usage.time_per_output_token_s,
    }
    return {name: value for name, value in attributes.items() if value is not None}


def error_type(error: BaseException) -> str:
    """Canonical class name of an exception: bare for built-in ones.

    >>> error_type(KeyError("x"))
    'KeyError'
    """
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
