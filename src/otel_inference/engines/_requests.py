"""The requests that a manager of continuous batching has taken in and not answered yet, and the calls that they are.

A call ends with the last sequence of its request. Nothing here holds the manager or an object of its.
"""

from __future__ import annotations

from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from otel_inference import semconv

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from otel_inference.call import OpenCall
    from otel_inference.protocols import CallSink

_CHILD: Final = "__child#"
"""Between the id of a request and the number of a further sequence of it."""


class Request:
    """One request, from when it was added until the last of its sequences has ended."""

    __slots__ = ("call", "error", "first_token_ns", "longest", "name", "open_sequences", "sink")

    def __init__(self, sink: CallSink, call: OpenCall, name: str, sequences: int) -> None:
        self.sink = sink
        self.call = call
        self.name = name
        self.open_sequences = sequences
        self.longest = 0
        self.first_token_ns: int | None = None
        self.error: BaseException | None = None

    def note_start(self, started_s: float) -> None:
        """Note when the request left the queue; only the first time counts, as it may be sent back there."""
        if self.call.queue_ns is None:
            self.call.queue_ns = max(0, round(started_s * 1e9) - self.call.started_ns)

    def end_sequences(self, ended: Ended, ended_ns: int) -> None:
        """Note that sequences of this request have ended."""
        self.open_sequences -= ended.sequences
        self.longest = max(self.longest, ended.tokens)
        self.error = self.error or ended.error
        self.call.add_tokens(None, ended.tokens)
        if ended.tokens and self.first_token_ns is None:
            self.first_token_ns = ended_ns  # all its tokens came in one step

    def close(self, ended_ns: int) -> None:
        """End the call."""
        call = self.call
        first_ns = self.first_token_ns
        if first_ns is not None:
            call.add_decode(first_ns, ended_ns, self.longest)
            call.add_stage(semconv.PREFILL, call.started_ns + (call.queue_ns or 0), first_ns)
            if ended_ns > first_ns:
                call.add_stage(semconv.DECODE, first_ns, ended_ns)
        self.sink.end(call, self.error)


class Ended(NamedTuple):
    """How sequences of a request ended."""

    name: str
    tokens: int
    started_s: float
    """When they left the queue, on the clock of `perf_counter`; negative if they never did."""
    sequences: int = 1
    error: BaseException | None = None


class Requests:
    """The requests of one manager that have not ended, by their ids."""

    __slots__ = ("awaiting", "by_name")

    def __init__(self) -> None:
        self.by_name: dict[str, Request] = {}
        self.awaiting: dict[str, Request] = {}
        """Those without a first token."""

    def add(self, request: Request) -> None:
        """Take a new request in; an id that is given twice is the newer one's, as in the manager."""
        before = self.by_name.get(request.name)
        self.by_name[request.name] = self.awaiting[request.name] = request
        if before is not None:
            before.sink.abandon(before.call)

    def remove(self, request: Request) -> bool:
        """Forget a request; `False` if it is not here any more."""
        self.awaiting.pop(request.name, None)
        return self.by_name.pop(request.name, None) is not None

    def note_step(self, active: Mapping[str, Any]) -> None:
        """Look at the requests being served for first tokens."""
        now_ns = perf_counter_ns()
        for name in [name for name in active if name in self.awaiting]:
            state = active[name]
            request = self.awaiting[name]
            request.note_start(state.lifespan[0])
            if state.generated_tokens:
                request.first_token_ns = now_ns
                self.awaiting.pop(name, None)

    def note_outputs(self, outputs: Iterable[Any], decoding: Any) -> None:
        """Look at outputs before the host gets them; most are of streamed requests that go on, `decoding`."""
        now_ns = perf_counter_ns()
        for output in [output for output in outputs if output.status is not decoding]:
            if output.is_finished():
                self.end(Ended(output.request_id, len(output.generated_tokens), output.lifespan[0]), now_ns)
        if self.awaiting:
            for output in [output for output in outputs if output.request_id in self.awaiting]:
                request = self.awaiting.pop(output.request_id)
                request.note_start(output.lifespan[0])
                request.first_token_ns = now_ns

    def end(self, ended: Ended, ended_ns: int) -> None:
        """End sequences of a request, and its call with the last of them."""
        request = self.by_name.get(ended.name)
        if request is not None:
            request.note_start(ended.started_s if ended.started_s >= 0 else ended_ns / 1e9)
        else:
            request = self.by_name.get(ended.name.rpartition(_CHILD)[0])
            if request is None:
                return
        request.end_sequences(ended, ended_ns)
        if request.open_sequences <= 0 and self.remove(request):
            request.close(ended_ns)

    def end_early(self, state: Any, error: BaseException) -> None:
        """End a request that failed or was cancelled, with what there is of it, as the host would be told."""
        # A request sent back to the queue takes what it has generated along in its prompt.
        carried = len(state.initial_tokens) - state._true_initial_tokens if state._true_initial_tokens else 0
        tokens = carried + len(state.generated_tokens)
        ended = Ended(state.request_id, tokens, state.lifespan[0], 1 + state.num_children, error)
        self.end(ended, perf_counter_ns())

    def end_rest(self, sink: CallSink | None, error: BaseException, queued: frozenset[str]) -> None:
        """End what nobody will serve any more, apart from what is `queued` for the next start."""
        for request in list(self.by_name.values()):
            if request.name in queued or not self.remove(request):
                continue
            if request.sink is sink:
                request.error = request.error or error
                request.close(perf_counter_ns())
            else:  # not watched to its end: how it ended is not known
                request.sink.abandon(request.call)
