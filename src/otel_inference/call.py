"""One call of a model: the record that everything else is computed from.

`OpenCall` is a call while it runs; `Call` is what is left of it when it has ended. The engines
fill the first, every consumer (metrics, health) reads the second and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_STAGES: Final = 64
"""Intervals of stages kept for child spans; the seconds of a stage count all of them."""

ENDED: Final = object()
"""What an ended call watches. A context may outlive the call it was copied from, so that
"a call is current" alone does not mean that a call is running."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What a generation or an embedding took and gave; totals over the rows of a batch."""

    operation: str
    """`gen_ai.operation.name`: `text_completion`, `chat` or `embeddings`."""
    request: Mapping[str, Any]
    """`gen_ai.request.*` attributes that the caller asked for or the model's defaults set."""
    input_tokens: int | None = None
    output_tokens: int | None = None
    time_to_first_token_s: float | None = None
    time_per_output_token_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One ended call: who, how long, how it ended, how big."""

    engine: str
    operation: str
    model: str
    started_unix_ns: int
    duration_ns: int
    error_type: str | None = None
    """Canonical class name of the exception that ended the call; `None` on success."""
    cold: bool = False
    batch_size: int | None = None
    input_size: int | None = None
    device: str | None = None
    usage: Usage | None = None
    device_duration_s: float | None = None
    queue_ns: int | None = None
    """How long the call waited before the engine began with it; `None` where nothing made it wait."""
    rejected: bool = False
    """Whether a limiter turned the call away; it then counts as failed."""

    @property
    def duration_s(self) -> float:
        """Duration in seconds."""
        return self.duration_ns / 1e9

    @property
    def failed(self) -> bool:
        """Whether the call ended in an exception."""
        return self.error_type is not None


class Meter:
    """Times the forward steps of one generation, at the watched module's own call.

    The first token exists when the step after the prefill begins: by then the token has been
    chosen, streamed and, on an accelerator, waited for by the engine itself, so that nothing
    has to be synchronised to know it.

    Args:
        prefill_steps: Forward steps before the first token (more than one with chunked prefill).
    """

    __slots__ = ("first_token_ns", "prefill_steps", "started_ns", "steps")

    def __init__(self, prefill_steps: int = 1) -> None:
        self.prefill_steps = prefill_steps
        self.started_ns = perf_counter_ns()
        self.first_token_ns: int | None = None
        self.steps = 0

    def step(self) -> None:
        """Note that a forward step begins."""
        if self.steps == self.prefill_steps:
            self.first_token_ns = perf_counter_ns()
        self.steps += 1


class DeviceTimer(Protocol):
    """Time that an accelerator spends on a call, known some time after the call has ended."""

    def stop(self) -> None:
        """Mark the end of the call in the accelerator's queue; waits for nothing."""
        ...

    def elapsed_s(self) -> float | None:
        """Seconds between the marks; `None` while they are not known, or never will be."""
        ...

    def waits(self) -> bool:
        """Whether the time will be known later: the accelerator is still at it."""
        ...


class Stage(NamedTuple):
    """One stretch of a call."""

    name: str
    started_ns: int
    ended_ns: int


class OpenCall:
    """A call while it runs. Holds no reference to the host's inputs, outputs or exceptions."""

    __slots__ = (
        "batch_size",
        "cold",
        "compilations",
        "content",
        "decode_ns",
        "decoded_tokens",
        "device",
        "engine",
        "error_type",
        "first_token_ns",
        "forward_ended_ns",
        "forwards",
        "input_size",
        "input_tokens",
        "limited",
        "meter",
        "model",
        "operation",
        "output_tokens",
        "permit",
        "queue_ns",
        "rejected",
        "request",
        "stage_ns",
        "stages",
        "started_ns",
        "started_unix_ns",
        "timer",
        "usage_operation",
        "watched",
    )

    def __init__(self, engine: str, operation: str, model: str) -> None:
        self.engine = engine
        self.operation = operation
        self.model = model
        self.cold = False
        self.batch_size: int | None = None
        self.input_size: int | None = None
        self.device: str | None = None
        self.error_type: str | None = None
        self.started_ns = 0
        self.started_unix_ns = 0
        self.watched: object | None = None
        """The module whose own calls are generation steps of this call; `ENDED` once it ended."""
        self.meter: Meter | None = None
        self.usage_operation: str | None = None
        self.request: Mapping[str, Any] = {}
        self.input_tokens: int | None = None
        self.output_tokens: int | None = None
        self.first_token_ns: int | None = None
        self.queue_ns: int | None = None
        self.limited = False
        """Whether a limiter has to be asked for a place before the engine begins (`CallSink.admit`)."""
        self.permit: Any = None
        """The place that a limiter gave it (`protocols.Permit`)."""
        self.rejected = False
        self.compilations = 0
        """How many graphs had been compiled when the call began."""
        self.timer: DeviceTimer | None = None
        self.content: dict[str, str] | None = None
        """Prompts and outputs as attributes; only if the user asked for them."""
        self.forwards = 0
        self.forward_ended_ns = 0
        self.stages: list[Stage] | None = None
        self.stage_ns: dict[str, int] | None = None
        self.decode_ns = 0
        self.decoded_tokens = 0

    def watch(self, module: object, meter: Meter) -> None:
        """Count `module`'s own calls as the steps of a generation until `unwatch`."""
        self.meter = meter
        self.watched = module

    def unwatch(self) -> None:
        """Stop watching."""
        if self.watched is not ENDED:
            self.watched = None
        self.meter = None

    def add_tokens(self, input_tokens: int | None, output_tokens: int | None) -> None:
        """Add one generation's tokens; a call may hold several (the batches of a pipeline)."""
        if input_tokens is not None:
            self.input_tokens = (self.input_tokens or 0) + input_tokens
        if output_tokens is not None:
            self.output_tokens = (self.output_tokens or 0) + output_tokens

    def add_stage(self, name: str, started_ns: int, ended_ns: int) -> None:
        """Add a stretch of the call to the stage `name`."""
        if self.stages is None or self.stage_ns is None:
            self.stages, self.stage_ns = [], {}
        self.stage_ns[name] = self.stage_ns.get(name, 0) + ended_ns - started_ns
        if len(self.stages) < MAX_STAGES:
            self.stages.append(Stage(name, started_ns, ended_ns))

    def drop_stage(self, name: str) -> None:
        """Forget a stage that turned out not to be told apart from others."""
        if self.stages is not None and self.stage_ns is not None:
            self.stages = [stage for stage in self.stages if stage.name != name]
            self.stage_ns.pop(name, None)

    def add_decode(self, first_token_ns: int, ended_ns: int, tokens_per_row: int) -> None:
        """Add one generation's stamps: its first token, its end and the tokens of a row.

        The call's first token is that of its first generation; the time per output token is
        taken over all of them.
        """
        if self.first_token_ns is None:
            self.first_token_ns = first_token_ns
        if tokens_per_row > 1:
            self.decode_ns += ended_ns - first_token_ns
            self.decoded_tokens += tokens_per_row - 1

    def closed(self, ended_ns: int) -> Call:
        """The record of this call, ended at `ended_ns` of the clock it was started on."""
        return Call(
            engine=self.engine,
            operation=self.operation,
            model=self.model,
            started_unix_ns=self.started_unix_ns,
            duration_ns=ended_ns - self.started_ns,
            error_type=self.error_type,
            cold=self.cold,
            batch_size=self.batch_size,
            input_size=self.input_size,
            device=self.device,
            device_duration_s=self.device_duration_s(),
            queue_ns=self.queue_ns,
            rejected=self.rejected,
            usage=self.usage(),
        )

    def device_duration_s(self) -> float | None:
        """Seconds that an accelerator worked on the call, if one is timed and is done."""
        return None if self.timer is None else self.timer.elapsed_s()

    def usage(self) -> Usage | None:
        """What the call took and gave as a generation or an embedding; `None` if it is neither."""
        if self.usage_operation is None:
            return None
        first = self.first_token_ns
        return Usage(
            operation=self.usage_operation,
            request=self.request,
            input_tokens=self.input_tokens,
            output_tokens=self.output_tokens,
            time_to_first_token_s=None if first is None else (first - self.started_ns) / 1e9,
            time_per_output_token_s=(self.decode_ns / self.decoded_tokens / 1e9 if self.decoded_tokens else None),
        )
