"""What one `generate` of transformers is asked for, takes and gives.

Tokens are counted from shapes. Padding is left out where the tensor that shows it is already on
the CPU; nothing is copied off an accelerator to count. Times come from the model's own forward
calls (see `call.Meter`): no streamer, stopping criterion or processor is added to the generation.
"""

from __future__ import annotations

import math
import sys
from contextvars import ContextVar
from dataclasses import dataclass
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, Final

from otel_inference import guard, semconv
from otel_inference.call import Meter
from otel_inference.engines._compilation import compilations, note_compilation
from otel_inference.engines._device_time import start_timer
from otel_inference.engines._values import MATRIX, read, shape_of, size_of, token_count

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from otel_inference.call import OpenCall


running: Final[ContextVar[bool]] = ContextVar("otel_inference_generating", default=False)
"""Whether a generation runs in this context: one that it calls (an assistant's) is part of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """One call of `generate`, before it runs."""

    rows: int | None
    input_tokens: int | None
    input_elements: int | None
    prompt_length: int
    """Tokens at the start of each returned row that were not generated."""
    prefill_steps: int
    device: Any
    """The `torch.device` of the input, if known."""
    request: Mapping[str, Any]
    eos_token_ids: tuple[int, ...]
    pad_token_id: int | None


def describe(model: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Generation:
    """Read what `model.generate(*args, **kwargs)` is about to do, and touch nothing."""
    config = _argument(args, kwargs, 1, "generation_config")
    if config is None:
        config = getattr(model, "generation_config", None)
    ids = _argument(args, kwargs, 0, "inputs")
    if ids is None:
        ids = kwargs.get("input_ids")
    embeds = kwargs.get("inputs_embeds") if ids is None else None
    main = ids if ids is not None else embeds if embeds is not None else kwargs.get(_main_input(model))
    shape = shape_of(main) or ()
    device = read(main, "device")
    tokens = token_count(ids, kwargs.get("attention_mask"))
    if tokens is None and embeds is not None:
        tokens = math.prod(shape[:2])
    return Generation(
        rows=shape[0] if len(shape) > 1 else None,
        input_tokens=tokens,
        input_elements=size_of(main),
        prompt_length=_prompt_length(model, ids, embeds, kwargs),
        prefill_steps=_prefill_steps(
            shape, kwargs.get("prefill_chunk_size", getattr(config, "prefill_chunk_size", None))
        ),
        device=device,
        request=_request(args, kwargs, config),
        eos_token_ids=_token_ids(kwargs.get("eos_token_id", getattr(config, "eos_token_id", None))),
        pad_token_id=next(iter(_token_ids(kwargs.get("pad_token_id", getattr(config, "pad_token_id", None)))), None),
    )


def watched(
    call: OpenCall,
    generation: Generation | None,
    original: Callable[..., Any],
    model: Any,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    """Run `generate` and add what it took and gave to `call`, which may hold several."""
    if generation is None:
        return original(model, *args, **kwargs)
    call.usage_operation = call.usage_operation or semconv.TEXT_COMPLETION
    call.request = call.request or generation.request
    call.add_tokens(generation.input_tokens, None)
    call.compilations = compilations()
    if call.timer is None:
        call.timer = start_timer(generation.device)
    meter = Meter(generation.prefill_steps)
    # Of generations that run at once within one call, the tokens of all are counted, and the first is timed.
    timed = call.watched is None
    if timed:
        call.watch(model, meter)
    running.set(True)
    try:
        result = original(model, *args, **kwargs)
    finally:
        running.set(False)
        if timed:
            call.unwatch()
    try:
        _note(call, generation, meter, result)
    except Exception:  # noqa: BLE001 - our reading of a result is never the host's problem
        guard.failed("transformers.generate")
    return result


def _note(call: OpenCall, generation: Generation, meter: Meter, result: Any) -> None:
    ended_ns = perf_counter_ns()
    note_compilation(call)
    sequences = read(result, "sequences")
    if sequences is None:
        sequences = result
    shape = shape_of(sequences)
    if shape is None or len(shape) != MATRIX:
        return
    new = max(shape[1] - generation.prompt_length, 0)
    call.add_tokens(None, _generated_tokens(sequences, new, generation))
    if new and meter.steps:
        # A generation of one token has no later step: its first token is there when it ends.
        first_token_ns = meter.first_token_ns if meter.first_token_ns is not None else ended_ns
        call.add_decode(first_token_ns, ended_ns, new)
        call.add_stage(semconv.PREFILL, meter.started_ns, first_token_ns)
        if ended_ns > first_token_ns:
            call.add_stage(semconv.DECODE, first_token_ns, ended_ns)


def _generated_tokens(sequences: Any, new: int, generation: Generation) -> int:
    """Tokens after the prompt, over all rows; what pads a row after its end is not one."""
    rows: int = sequences.shape[0]
    if rows == 1 or new == 0 or sequences.device.type != "cpu":
        return rows * new
    torch = sys.modules["torch"]
    tail = sequences[:, -new:]
    is_end = torch.isin(tail, torch.tensor(generation.eos_token_ids, dtype=sequences.dtype))
    counted = is_end.cumsum(dim=1) - is_end.long() == 0
    if generation.pad_token_id is not None and generation.pad_token_id not in generation.eos_token_ids:
        # Rows may also end by a criterion of the host's, and then only their padding shows it.
        counted &= (tail != generation.pad_token_id).flip(1).cumsum(dim=1).flip(1) > 0
    return int(counted.sum())


def _argument(args: tuple[Any, ...], kwargs: dict[str, Any], position: int, name: str) -> Any:
    return args[position] if len(args) > position else kwargs.get(name)


def _main_input(model: Any) -> str:
    name = getattr(model, "main_input_name", None)
    return name if isinstance(name, str) else "input_ids"


def _prompt_length(model: Any, ids: Any, embeds: Any, kwargs: dict[str, Any]) -> int:
    if getattr(model.config, "is_encoder_decoder", False):
        decoder = shape_of(kwargs.get("decoder_input_ids"))
        return decoder[1] if decoder is not None and len(decoder) == MATRIX else 1
    shape = shape_of(ids)
    if shape is not None and len(shape) == MATRIX:
        return shape[1]
    return 0 if embeds is not None else 1  # with no prompt at all, generation starts from one token


def _prefill_steps(shape: tuple[int, ...], chunk_size: Any) -> int:
    if isinstance(chunk_size, int) and chunk_size > 0 and len(shape) > 1:
        return max(1, math.ceil(shape[1] / chunk_size))
    return 1


def _request(args: tuple[Any, ...], kwargs: dict[str, Any], config: Any) -> dict[str, Any]:
    """`gen_ai.request.*`: what the caller asked for, else what the generation config says."""

    def asked(name: str) -> Any:
        return kwargs.get(name, getattr(config, name, None))

    request: dict[str, Any] = {semconv.GEN_AI_MAX_TOKENS: asked("max_new_tokens")}
    if asked("do_sample") is True:
        request[semconv.GEN_AI_TEMPERATURE] = asked("temperature")
        request[semconv.GEN_AI_TOP_P] = asked("top_p")
        request[semconv.GEN_AI_TOP_K] = asked("top_k")
    if asked("num_return_sequences") != 1:
        request[semconv.GEN_AI_CHOICE_COUNT] = asked("num_return_sequences")
    if _argument(args, kwargs, 7, "streamer") is not None:
        request[semconv.GEN_AI_STREAM] = True
    return {name: value for name, value in request.items() if isinstance(value, (bool, int, float))}


def _token_ids(value: Any) -> tuple[int, ...]:
    if isinstance(value, int):
        return (value,)
    return tuple(value) if isinstance(value, list) and all(isinstance(item, int) for item in value) else ()
