"""A provider with our sampler and tail keep, exporter in memory, and a clock that stands until it is moved."""

from __future__ import annotations

import random

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context
from tests.integration.conftest import environment, receiver, run  # noqa: F401 - fixtures of the launcher's tests

from otel_inference import guard, semconv
from otel_inference.sampling.attention import Attention
from otel_inference.sampling.head import HealthSampler
from otel_inference.sampling.tail import TailKeep

BEGIN_NS = 1_700_000_000_000_000_000


class Ids(RandomIdGenerator):
    """Random ids that are the same for the same seed."""

    def __init__(self, seed):
        self._random = random.Random(seed)

    def generate_span_id(self):
        """See the SDK."""
        return self._random.getrandbits(64) or 1

    def generate_trace_id(self):
        """See the SDK."""
        return self._random.getrandbits(128) or 1


class Service:
    """Serves requests, each a span of a server around one of a model's call, at times that are made up."""

    def __init__(self, base, *, seed=0, tail=True, **limits):
        self.now_s = 1000.0
        self.attention = Attention()
        self.sampler = HealthSampler(base, attention=self.attention, clock=lambda: self.now_s, **limits)
        self.provider = TracerProvider(sampler=self.sampler, id_generator=Ids(seed), shutdown_on_exit=False)
        self.exporter = InMemorySpanExporter()
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        if tail:
            self.tail = TailKeep(
                self.provider,
                p99_s=lambda _: 0.1,
                max_per_second=self.sampler.begin_tail_keep(),
                clock=lambda: self.now_s,
            )
            self.provider.add_span_processor(self.tail)
        self.tracer = self.provider.get_tracer("service")

    def call(self, *, model="ranker", took_s=0.01, fail=False, context=None, **attributes):
        """One call of a model; with no context it is the whole trace."""
        named = {semconv.MODEL: model, semconv.OPERATION: "run", **attributes}
        span = self.tracer.start_span(f"run {model}", context, attributes=named, start_time=BEGIN_NS)
        if fail:
            span.set_status(Status(StatusCode.ERROR))
        span.end(BEGIN_NS + round(took_s * 1e9))
        return span

    def request(self, **call):
        """One request: a server's span around a preprocessing span and a call, and what follows it."""
        server = self.tracer.start_span("POST /rank", kind=SpanKind.SERVER)
        context = set_span_in_context(server)
        self.tracer.start_span("prepare", context).end()
        self.call(context=context, **call)
        self.tracer.start_span("render", context).end()
        server.end()
        return server.get_span_context().trace_id

    def exported(self, name=None):
        """Spans exported so far, of this name or all."""
        return [span for span in self.exporter.get_finished_spans() if name in {None, span.name}]

    def count(self, spans):
        """For how many the spans stand: by their own word, else by their thresholds."""
        return sum(map(_adjusted_count, spans))


def _adjusted_count(span):
    counted = span.attributes.get(semconv.ADJUSTED_COUNT)
    if counted is not None:
        return counted
    members = dict(part.split(":") for part in span.context.trace_state["ot"].split(";"))
    return 2**56 / (2**56 - int(members["th"].ljust(14, "0"), 16))


@pytest.fixture
def service():
    """Makes services; our own failures are raised."""
    guard.set_strict(strict=True)
    yield Service
    guard.set_strict(strict=False)
