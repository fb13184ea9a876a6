"""What of a call is written to its span."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from otel_inference import semconv

if TYPE_CHECKING:
    from otel_inference.call import OpenCall, Usage


def begin_attributes(call: OpenCall) -> dict[str, Any]:
    """What is known of a call when it begins, beyond its engine, operation and model; samplers see it."""
    attributes: dict[str, Any] = {}
    if call.operation != semconv.LOAD:
        attributes[semconv.COLD] = call.cold
    if call.device is not None:
        attributes[semconv.DEVICE] = call.device
    if call.batch_size is not None:
        attributes[semconv.BATCH_SIZE] = call.batch_size
    if call.input_size is not None:
        attributes[semconv.INPUT_SIZE] = call.input_size
    if call.usage_operation is not None:
        attributes[semconv.GEN_AI_OPERATION] = call.usage_operation
        attributes[semconv.GEN_AI_PROVIDER] = call.engine
        attributes[semconv.GEN_AI_MODEL] = call.model
        attributes.update(call.request)
    return attributes


def end_attributes(call: OpenCall) -> dict[str, Any]:
    """What only the end of a call shows."""
    attributes: dict[str, Any] = {}
    if call.error_type is not None:
        attributes[semconv.ERROR_TYPE] = call.error_type
    device_s = call.device_duration_s()
    if device_s is not None:
        attributes[semconv.DEVICE_DURATION] = device_s
    if call.queue_ns is not None:
        attributes[semconv.QUEUE_DURATION] = call.queue_ns / 1e9
    usage = call.usage()
    if usage is not None:
        attributes.update(_usage_attributes(usage, call))
    if call.stage_ns is not None:
        for stage, duration_ns in call.stage_ns.items():
            attributes[semconv.stage_duration(stage)] = duration_ns / 1e9
    if call.content is not None:
        attributes.update(call.content)
    return attributes


def _usage_attributes(usage: Usage, call: OpenCall) -> dict[str, Any]:
    """What a generation took and gave."""
    attributes = {
        semconv.GEN_AI_OPERATION: usage.operation,
        semconv.GEN_AI_PROVIDER: call.engine,
        semconv.GEN_AI_MODEL: call.model,
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
