"""Hosts that once broke us, or that we once broke."""

from __future__ import annotations

import contextvars
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from opentelemetry.sdk.trace import SpanProcessor
from opentelemetry.sdk.trace.sampling import Sampler

from otel_inference import Config, HealthSpanProcessor, guard, health, nesting, observe
from otel_inference.testing import recorded

ROWS = torch.ones(1, 4)


@pytest.fixture(autouse=True)
def _not_read(monkeypatch):
    """The machine is not read in these tests."""
    monkeypatch.setenv("OTEL_INFERENCE_RESOURCES", "false")


def names(telemetry):
    """Names of the spans so far."""
    return [span.name for span in telemetry.spans()]


def test_takes_numpy_arrays_into_modules(telemetry):
    """An array of numpy, whose device is a string, as a module's input is a call like any other."""

    class Features(torch.nn.Module):
        def forward(self, rows):
            return torch.from_numpy(rows)

    module = Features().eval()
    for _ in range(3):
        module(np.ones((2, 3), np.float32))

    assert names(telemetry) == ["forward Features"] * 3
    assert nesting.current.get() is None


def test_leaves_a_block_in_another_context(telemetry, caplog):
    """A block left in another context than it was entered in, as servers leave generators, ends its call."""

    def body():
        with observe("ranker"):
            yield 1
            yield 2

    with ThreadPoolExecutor(1) as pool:
        items = body()
        assert contextvars.copy_context().run(next, items) == 1
        assert pool.submit(contextvars.copy_context().run, next, items).result() == 2
        assert pool.submit(contextvars.copy_context().run, next, items, None).result() is None

    assert names(telemetry) == ["call ranker"]
    assert telemetry.points("inference.active_calls")[0].value == 0
    assert caplog.records == []


def test_leaves_blocks_uninstrumented_in_another_context():
    """Uninstrumented, such a block is nothing at all."""

    def body():
        with observe("ranker"):
            yield 1

    items = body()
    contextvars.copy_context().run(next, items)
    assert contextvars.copy_context().run(next, items, None) is None


def test_keeps_interleaved_blocks_apart(telemetry):
    """Two generators with a block each, used in turns in one context, are two calls that both end."""

    def body(model):
        with observe(model):
            yield 1

    first, second = body("first"), body("second")
    next(first), next(second)
    list(first), list(second)

    assert telemetry.points("inference.active_calls")[0].value == 0
    assert "call first" in names(telemetry)


GARBAGE = """
import gc
from otel_inference import Config, health, observe
from otel_inference.testing import recorded

@observe("writer")
def stream():
    yield 1
    yield 2

with recorded(config=Config(strict=True, resources=False)) as telemetry:
    gc.set_threshold(5, 1, 1)
    for _ in range(300):
        items = stream()
        next(items)
        cycle = [items]
        cycle.append(cycle)
        del items, cycle
    gc.set_threshold(700, 10, 10)
    gc.collect()
    assert health("writer").calls == 300, health("writer")
    assert {span.attributes.get("error.type") for span in telemetry.spans()} == {None}
"""
SIGNALS = """
import signal
from otel_inference import Config, force_flush, health, observe
from otel_inference.testing import recorded

seen = []

def report(_signum, _frame):
    seen.append(health())
    force_flush(timeout_s=1.0)
    signal.setitimer(signal.ITIMER_REAL, 0.02)  # only now: on a slow machine they would pile up

with recorded(config=Config(strict=True, resources=False)) as telemetry:
    signal.signal(signal.SIGALRM, report)
    signal.setitimer(signal.ITIMER_REAL, 0.02)
    for _ in range(3000):
        with observe("ranker"):
            pass
    signal.signal(signal.SIGALRM, signal.SIG_IGN)
    assert seen
    assert health("ranker").calls == 3000, health("ranker")
"""


@pytest.mark.parametrize("program", [GARBAGE, SIGNALS], ids=["generators in garbage", "health in a signal handler"])
def test_survives_being_called_anywhere(program):
    """The collector closes generators, and a signal handler asks for health, wherever that happens to be.

    In a process of its own: a tracer of coverage has a lock that neither may be run on top of.
    """
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_compiles_the_call_of_a_module(telemetry, linear):
    """`torch.compile(model.__call__, fullgraph=True)`, which transformers does itself, stays one graph."""

    class Net(torch.nn.Module):
        def forward(self, rows):
            return linear(rows) + 1

    torch._dynamo.reset()
    compiled = torch.compile(Net().eval().__call__, fullgraph=True, backend="eager")

    assert torch.equal(compiled(ROWS), linear(ROWS) + 1)


def test_compiles_decoding(telemetry, gpt2):
    """With a compiled decoding step the tokens are as without us, and the first one is timed."""
    from transformers import CompileConfig

    torch._dynamo.reset()
    ids = torch.full((1, 3), 5)
    options = {
        "attention_mask": torch.ones_like(ids),
        "max_new_tokens": 4,
        "min_new_tokens": 4,
        "cache_implementation": "static",
        "compile_config": CompileConfig(fullgraph=True, backend="eager", mode=None),
    }
    options["compile_config"]._compile_all_devices = True
    gpt2.generate(ids, **options)

    (span,) = telemetry.spans()
    assert span.attributes["gen_ai.usage.output_tokens"] == 4
    assert span.attributes["inference.time_to_first_token"] > 0


class AlarmError(Exception):
    """A host's own time limit."""


def test_lets_a_hosts_alarm_through(linear):
    """An exception that a signal handler raises while our code runs reaches the host, and nothing stays current."""

    class Interrupted(Sampler):
        def should_sample(self, *_, **__):
            signal.raise_signal(signal.SIGUSR1)

        def get_description(self):
            return "interrupted"

    def ring(_signum, _frame):
        raise AlarmError

    before = signal.signal(signal.SIGUSR1, ring)
    try:
        with recorded(sampler=Interrupted()) as telemetry:
            with pytest.raises(AlarmError):
                linear(ROWS)
            assert nesting.current.get() is None
            assert [point.value for point in telemetry.points("inference.active_calls")] == [0]
    finally:
        signal.signal(signal.SIGUSR1, before)


class CallsAModel(SpanProcessor):
    """A processor that scores each span with a model."""

    def __init__(self, model):
        self.model = model
        self.calls = 0

    def on_start(self, span, parent_context=None):
        """Score."""
        self.calls += 1
        self.model(ROWS)

    def on_end(self, span):
        """Score."""
        self.calls += 1
        self.model(ROWS)


def test_does_not_count_what_telemetry_itself_calls(telemetry, linear):
    """A span processor that calls a model is no host call: one call stays one."""
    processor = CallsAModel(torch.nn.Identity().eval())
    telemetry.tracer_provider.add_span_processor(processor)
    linear(ROWS)

    assert names(telemetry) == ["forward Linear"]
    assert processor.calls == 2


def test_counts_an_exception_that_cannot_be_shown():
    """An exception whose text fails is a failed call all the same."""

    class MuteError(Exception):
        def __str__(self):
            raise RuntimeError

    with recorded() as telemetry:
        with pytest.raises(MuteError), observe("ranker"):
            raise MuteError
        (span,) = telemetry.spans()
        assert not span.status.is_ok
        assert health("ranker").errors == 1
    guard._errors.clear()


def test_judges_a_span_once_between_other_processors():
    """A span is judged once, also when another one ends between two processors."""

    class EndsAnother(SpanProcessor):
        def on_end(self, span):
            if span.name == "chat":
                tracer.start_span("side", attributes={"gen_ai.request.model": "side"}).end()

    with recorded(config=Config(strict=True)) as telemetry:
        telemetry.tracer_provider.add_span_processor(EndsAnother())
        telemetry.tracer_provider.add_span_processor(HealthSpanProcessor())
        tracer = telemetry.tracer_provider.get_tracer("host")
        for _ in range(5):
            tracer.start_span("chat", attributes={"gen_ai.request.model": "gpt"}).end()

        assert {name: model.calls for name, model in health().items()} == {"gpt": 5, "side": 5}


def test_adds_up_generations_that_run_at_once(telemetry, gpt2):
    """Generations of several threads within one observed call all add their tokens."""
    ids = torch.full((1, 3), 5)

    def generate():
        gpt2.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=4, min_new_tokens=4)

    with observe("assistant"), ThreadPoolExecutor(4) as pool:
        for future in [pool.submit(contextvars.copy_context().run, generate) for _ in range(4)]:
            future.result()

    (span,) = telemetry.spans()
    assert (span.attributes["gen_ai.usage.input_tokens"], span.attributes["gen_ai.usage.output_tokens"]) == (12, 16)


def test_takes_masks_that_do_not_count(telemetry):
    """A mask that is added to scores is no count of tokens, and no reason to lose the call."""

    class Encoder(torch.nn.Module):
        def forward(self, input_ids, attention_mask):
            return input_ids

    mask = torch.tensor([[0.0, -torch.inf], [0.0, 0.0]])
    Encoder().eval()(input_ids=torch.ones(2, 2, dtype=torch.long), attention_mask=mask)

    (span,) = telemetry.spans()
    assert span.attributes["inference.input.size"] == 4


def test_observes_callables_of_every_kind(telemetry):
    """Static methods and objects with an asynchronous call are measured as what they are."""
    import asyncio

    class Service:
        @observe("static")
        @staticmethod
        def add(one):
            return one + 1

        async def __call__(self):
            await asyncio.sleep(0.02)

    assert Service().add(1) == 2
    asyncio.run(observe("later")(Service())())

    later = telemetry.spans()[-1]
    assert later.end_time - later.start_time >= 20_000_000
