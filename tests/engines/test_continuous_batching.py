"""transformers: requests of continuous batching, on a tiny model with random weights."""

from __future__ import annotations

import gc
import time
import weakref
from threading import Event, Thread

import pytest
import torch
from opentelemetry.instrumentation.utils import suppress_instrumentation

from otel_inference import guard, observe, runtime
from otel_inference.config import Config
from otel_inference.engines import _continuous
from otel_inference.testing import recorded

PROMPTS = [[5, 6, 7], [8, 9]]

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")


@pytest.fixture
def llama():
    """A Llama of two layers with random weights, which never ends by itself."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    size = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "max_position_embeddings": 256}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=64, num_attention_heads=2, num_key_value_heads=2, **size))
    model.generation_config.eos_token_id = -1
    return model.eval()


def options(*, num_blocks=32, max_new_tokens=5, batching=None, **generation):
    """Arguments of every door to continuous batching."""
    from transformers import ContinuousBatchingConfig, GenerationConfig

    return {
        "generation_config": GenerationConfig(max_new_tokens=max_new_tokens, eos_token_id=-1, **generation),
        "continuous_batching_config": ContinuousBatchingConfig(
            page_size=4, num_blocks=num_blocks, max_batch_tokens=32, **(batching or {})
        ),
    }


@pytest.fixture
def manager(llama):
    """A manager that is not started; stopped in the end, if it was."""
    manager = llama.init_continuous_batching(**options())
    yield manager
    if manager._generation_thread is not None:
        manager.stop(hard_stop=True)


class Gate:
    """Holds the model of a running manager before each step; `fails` is raised there."""

    def __init__(self, model):
        self.held, self.opened, self.fails = Event(), Event(), None
        model.register_forward_pre_hook(self._pass)

    def _pass(self, *_):
        self.held.set()
        assert self.opened.wait(30)
        if self.fails is not None:
            raise self.fails


@pytest.fixture
def gate(llama):
    """The gate of the model, shut."""
    gate = Gate(llama)
    yield gate
    gate.opened.set()


def calls(telemetry):
    """Spans of the requests that ended."""
    assert {span.name for span in telemetry.spans()} <= {"generate LlamaForCausalLM", "around"}
    return [span for span in telemetry.spans() if span.name.startswith("generate")]


def wait_for(condition):
    """Whether `condition` comes true before long."""
    deadline = time.monotonic() + 20
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return condition()


def wait_for_calls(telemetry, count):
    """The spans of requests, once there are `count` of them."""
    assert wait_for(lambda: len(calls(telemetry)) >= count)
    return calls(telemetry)


def stop(manager, gate, **how):
    """Stop a manager that is held at the gate, and open the gate once it has been told."""
    stopping = Thread(target=manager.stop, kwargs=how)
    stopping.start()
    assert wait_for(lambda: manager.background_thread_status.local_status)
    gate.opened.set()
    stopping.join()


def tokens(span):
    """Input and output tokens of a call."""
    return span.attributes["gen_ai.usage.input_tokens"], span.attributes["gen_ai.usage.output_tokens"]


def test_counts_each_request_of_a_batch(telemetry, llama):
    """`generate_batch` is one call for each prompt, with its tokens and times, and nothing else."""
    results = llama.generate_batch(PROMPTS, **options())

    spans = calls(telemetry)
    assert sorted(tokens(span) for span in spans) == [(2, 5), (3, 5)]
    assert sorted(len(result.prompt_ids) for result in results.values()) == [2, 3]
    for span in spans:
        seconds = {name: span.attributes[f"inference.{name}"] for name in ("queue.duration", "time_to_first_token")}
        each = span.attributes["inference.time_per_output_token"]
        first, duration = seconds["time_to_first_token"], (span.end_time - span.start_time) / 1e9
        assert 0 < seconds["queue.duration"] < first < first + 4 * each <= duration
        assert span.attributes["inference.device"] == "cpu"
        assert span.attributes["gen_ai.request.max_tokens"] == 5
    assert telemetry.count("inference.queue.duration", inference__model="LlamaForCausalLM") == 2
    assert telemetry.count("gen_ai.server.time_to_first_token") == 2
    assert telemetry.count("inference.call.duration") == 2
    assert telemetry.points("inference.active_calls")[0].value == 0


def test_changes_no_result(llama):
    """With and without us the same tokens come out, under the same ids, in the same order."""
    bare = llama.generate_batch(PROMPTS, **options())
    with recorded():
        ours = llama.generate_batch(PROMPTS, **options())

    found = [[(name, result.generated_tokens) for name, result in results.items()] for results in (bare, ours)]
    assert found[0] == found[1]


def test_takes_the_times_that_the_library_stamps(telemetry, llama):
    """Queue, first token and the rest agree with the library's own stamps of the same request, to half a step."""
    step_s = 0.1
    llama.register_forward_pre_hook(lambda *_: time.sleep(step_s))
    (result,) = llama.generate_batch(PROMPTS[:1], record_timestamps=True, **options()).values()

    attributes = calls(telemetry)[0].attributes
    queued, first = (attributes[f"inference.{name}"] for name in ("queue.duration", "time_to_first_token"))
    expected = result.timestamps[0] - result.lifespan[0]
    each = (result.timestamps[-1] - result.timestamps[0]) / 4
    assert 0 < queued <= result.lifespan[0] - result.created_time
    assert expected <= first - queued < expected + step_s / 2
    assert attributes["inference.time_per_output_token"] == pytest.approx(each, abs=step_s / 4)


def test_tells_waiting_from_working(telemetry, manager, gate):
    """The time before a busy manager takes a request up is queue time, and is in its time to first token."""
    manager.start()
    manager.add_request(PROMPTS[0], max_new_tokens=50)
    assert gate.held.wait(20)
    manager.add_request(PROMPTS[1], max_new_tokens=2)
    time.sleep(0.2)
    gate.opened.set()

    attributes = wait_for_calls(telemetry, 1)[0].attributes
    assert attributes["gen_ai.usage.input_tokens"] == 2
    assert 0.2 <= attributes["inference.queue.duration"] < attributes["inference.time_to_first_token"]


@pytest.mark.parametrize("streaming", [True, False])
def test_counts_one_token(telemetry, llama, streaming):
    """A request of one token has its first token at its end, streamed or not, and no time per further one."""
    with llama.continuous_batching_context_manager(**options()) as manager:
        manager.add_request(PROMPTS[0], max_new_tokens=1, streaming=streaming)
        assert len(manager.get_result(timeout=20).generated_tokens) == 1

    (span,) = calls(telemetry)
    first = span.attributes["inference.time_to_first_token"]
    assert tokens(span) == (3, 1)
    assert first == pytest.approx((span.end_time - span.start_time) / 1e9, abs=1e-3)
    assert "inference.time_per_output_token" not in span.attributes
    assert span.attributes.get("gen_ai.request.stream", False) is streaming


def test_streams(telemetry, llama):
    """A streamed request is one call: its first token is measured before the host sees it, and ends with the last."""
    with llama.continuous_batching_context_manager(**options()) as manager:
        started = time.perf_counter()
        name = manager.add_request(PROMPTS[0], streaming=True)
        outputs = [
            (len(output.generated_tokens), time.perf_counter() - started, len(calls(telemetry)))
            for output in manager.request_id_iter(name)
        ]

    (span,) = calls(telemetry)
    assert [count for count, _, _ in outputs] == [1, 2, 3, 4, 5]
    assert span.attributes["inference.time_to_first_token"] <= outputs[0][1]
    assert outputs[-1][2] == 1
    assert span.attributes["gen_ai.request.stream"] is True


def test_counts_several_sequences_as_one_request(telemetry, llama):
    """A request for three sequences is one call with the tokens of all of them."""
    results = llama.generate_batch(PROMPTS[:1], **options(do_sample=True, num_return_sequences=3, temperature=0.5))

    (span,) = calls(telemetry)
    assert len(results) == 3
    assert tokens(span) == (3, 15)
    assert span.attributes["gen_ai.request.choice.count"] == 3
    assert span.attributes["gen_ai.request.temperature"] == 0.5


def test_follows_requests_that_are_sent_back(telemetry, llama, monkeypatch):
    """A request that had to give its cache up and start again is one call, with all its tokens and its first stamps."""
    from transformers.generation.continuous_batching.requests import RequestState

    sent_back = []
    again = RequestState.create_equivalent_initial_request
    monkeypatch.setattr(
        RequestState,
        "create_equivalent_initial_request",
        lambda state: (sent_back.append((len(state.initial_tokens), time.time_ns())), again(state))[1],
    )
    prompts = [[5, 6, 7] * 4, [8, 9] * 5, [4, 3] * 5]
    batching = {"allow_block_sharing": False}
    llama.generate_batch(prompts, **options(num_blocks=24, max_new_tokens=30, batching=batching))

    ((length, at_ns),) = sent_back
    assert sorted(tokens(span) for span in calls(telemetry)) == [(10, 30), (10, 30), (12, 30)]
    (span,) = [span for span in calls(telemetry) if (length, 30) == tokens(span) and span.end_time > at_ns][-1:]
    queued, first = (span.attributes[f"inference.{name}"] for name in ("queue.duration", "time_to_first_token"))
    assert 0 < queued < first < (at_ns - span.start_time) / 1e9


def test_ends_a_request_that_is_refused(telemetry, manager):
    """A request that the manager refuses fails alone, with the manager's own error."""
    manager.start()
    manager.add_request(PROMPTS[0], nonsense=1)
    manager.add_request(PROMPTS[1])

    spans = {span.attributes["inference.input.size"]: span for span in wait_for_calls(telemetry, 2)}
    assert spans[3].attributes["error.type"] == "ValueError"
    assert spans[3].attributes["gen_ai.usage.output_tokens"] == 0
    assert spans[2].status.is_ok
    assert "error.type" not in spans[2].attributes


def test_ends_cancelled_requests(telemetry, manager, gate):
    """A cancelled request ends as cancelled with the tokens it got, whether it was served or waited."""
    manager.start()
    served = manager.add_request(PROMPTS[0], max_new_tokens=10_000)
    assert gate.held.wait(20)
    waiting = manager.add_request(PROMPTS[1])
    manager.cancel_request(waiting)
    manager.cancel_request("unknown")
    gate.opened.set()
    wait_for_calls(telemetry, 1)
    manager.cancel_request(served)

    short, long = wait_for_calls(telemetry, 2)
    assert {span.attributes["error.type"] for span in (short, long)} == {"asyncio.exceptions.CancelledError"}
    assert (tokens(short), tokens(long)[0]) == ((2, 0), 3)
    assert tokens(long)[1] > 0
    assert "inference.time_to_first_token" not in short.attributes
    assert long.attributes["inference.queue.duration"] < long.attributes["inference.time_to_first_token"]


def test_ends_what_a_hard_stop_leaves(telemetry, manager, gate):
    """A hard stop fails the requests that are served, and those that wait, once each."""
    manager.start()
    manager.add_request(PROMPTS[0], max_new_tokens=10_000)
    assert gate.held.wait(20)
    manager.add_requests([PROMPTS[1]] * 3)
    stop(manager, gate, hard_stop=True)

    spans = calls(telemetry)
    assert [span.attributes["error.type"] for span in spans] == ["RuntimeError"] * 4
    assert sorted(span.attributes["gen_ai.usage.input_tokens"] for span in spans) == [2, 2, 2, 3]
    assert not _continuous._requests_for(manager).by_name


def test_serves_what_waits_before_a_soft_stop(telemetry, manager, gate):
    """A stop that flushes ends every request well; one added afterwards is not taken, and not counted."""
    manager.start()
    manager.add_requests(PROMPTS)
    assert gate.held.wait(20)
    stop(manager, gate)
    assert manager.add_request(PROMPTS[0]) is None

    spans = calls(telemetry)
    assert [span.status.is_ok for span in spans] == [True, True]


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(3)], ids=["exception", "exit"])
def test_ends_everything_when_the_loop_dies(telemetry, manager, gate, error):
    """Whatever ends the generation thread ends the requests that it leaves, as failed with that."""
    gate.fails = error
    manager.start()
    manager.add_requests(PROMPTS)
    assert gate.held.wait(20)
    manager.add_request(PROMPTS[0])
    gate.opened.set()

    spans = wait_for_calls(telemetry, 3)
    assert [span.attributes["error.type"] for span in spans] == [type(error).__name__] * 3
    assert all(not span.status.is_ok for span in spans)
    assert telemetry.points("inference.active_calls")[0].value == 0


def test_ends_a_request_that_finds_no_room(telemetry, manager):
    """A request that does not fit into the queue has failed, and raises what it raises without us."""
    import queue

    error = queue.Full("no")

    def put(*_, **__):
        raise error

    manager.input_queue.put = put
    with pytest.raises(queue.Full) as caught:
        manager.add_request(PROMPTS[0])

    (span,) = calls(telemetry)
    assert caught.value is error
    assert span.attributes["error.type"] == "queue.Full"
    assert not _continuous._requests_for(manager).by_name


def test_keeps_managers_apart(telemetry, llama, gate):
    """Requests of the same id in two managers are two calls, each with its own tokens."""
    managers = [llama.init_continuous_batching(**options()) for _ in range(2)]
    for manager, prompt, count in zip(managers, PROMPTS, (4, 7), strict=True):
        manager.add_request(prompt, request_id="same", max_new_tokens=count)
    gate.opened.set()
    for manager in managers:
        manager.start()
        wait_for_calls(telemetry, 1 + managers.index(manager))
        manager.stop()

    assert [tokens(span) for span in calls(telemetry)] == [(3, 4), (2, 7)]


def test_parents_are_those_of_the_thread_that_added(telemetry, manager):
    """Each request's span is a child of what was current where it was added, and is current nowhere."""
    tracer = telemetry.tracer_provider.get_tracer("host")

    def add(prompt):
        with tracer.start_as_current_span("around"):
            manager.add_request(prompt)

    threads = [Thread(target=add, args=(prompt,)) for prompt in PROMPTS]
    for thread in threads:
        thread.start()
        thread.join()
    manager.start()

    ours = wait_for_calls(telemetry, 2)
    around = {span.context.span_id for span in telemetry.spans() if span.name == "around"}
    assert {span.parent.span_id for span in ours} == around
    assert len(around) == 2


def test_is_silent_within_a_call_and_under_suppression(telemetry, llama):
    """Inside an observed call, or with instrumentation suppressed, no request is counted, nor a forward step."""
    with observe("outer"):
        llama.generate_batch(PROMPTS, **options())
    with suppress_instrumentation():
        llama.generate_batch(PROMPTS, **options())

    assert [span.name for span in telemetry.spans()] == ["call outer"]


def test_warms_up_silently(telemetry, llama):
    """Warming a manager up is no call, nor is a step of it."""
    manager = llama.init_continuous_batching(**options(batching={"q_padding_interval_size": 8}))
    manager.warmup()
    llama(torch.tensor([PROMPTS[0]]))

    assert [span.name for span in telemetry.spans()] == ["forward LlamaForCausalLM"]


def test_forgets_a_manager_that_is_dropped(telemetry, llama):
    """Requests of a manager that nobody starts nor keeps end with it, and nothing of them is left."""
    before = dict(_continuous._managers)
    manager = llama.init_continuous_batching(**options())
    manager.add_requests(PROMPTS)
    reference = weakref.ref(manager)
    del manager
    gc.collect()
    runtime.force_flush()

    assert reference() is None
    assert _continuous._managers == before
    assert sorted(span.attributes["gen_ai.usage.input_tokens"] for span in calls(telemetry)) == [2, 3]


def test_keeps_nothing_when_results_are_never_fetched(telemetry, manager):
    """Of a request that ended nothing is kept, neither its call nor what the manager knew of it."""
    states = []
    from transformers.generation.continuous_batching import scheduler

    add = scheduler.Scheduler.add_waiting_request
    scheduler.Scheduler.add_waiting_request = lambda self, state: (states.append(weakref.ref(state)), add(self, state))
    try:
        manager.start()
        manager.add_requests(PROMPTS * 5)
        wait_for_calls(telemetry, 10)
        manager.stop()
    finally:
        scheduler.Scheduler.add_waiting_request = add
    gc.collect()

    requests = _continuous._requests_for(manager)
    assert manager.output_router.output_queue.qsize() == 10
    assert (requests.by_name, requests.awaiting) == ({}, {})
    assert [reference() for reference in states] == [None] * 10


def test_takes_the_newer_of_two_requests_of_one_id(telemetry, manager):
    """An id that is given twice ends the older call, as the manager forgets the older request."""
    manager.add_request(PROMPTS[0], request_id="same")
    manager.add_request(PROMPTS[1], request_id="same")
    runtime.force_flush()

    assert [span.attributes["gen_ai.usage.input_tokens"] for span in calls(telemetry)] == [3]


def test_leaves_no_trace():
    """Uninstrumenting leaves every class of continuous batching as it was."""
    from transformers.generation.continuous_batching import continuous_api, requests, scheduler

    kinds = [
        continuous_api.ContinuousBatchingManager,
        continuous_api.ContinuousBatchProcessor,
        continuous_api.OutputRouter,
        requests.RequestState,
        scheduler.Scheduler,
    ]
    before = [dict(vars(kind)) for kind in kinds]
    with recorded():
        during = [dict(vars(kind)) for kind in kinds]

    assert [dict(vars(kind)) for kind in kinds] == before
    assert all(ours != original for ours, original in zip(during, before, strict=True))


def test_survives_being_switched_off_and_on(llama, gate):
    """Requests in flight when we are switched off go on; one added after we are back is counted."""
    manager = llama.init_continuous_batching(**options())
    with recorded():
        manager.start()
        manager.add_request(PROMPTS[0])
        assert gate.held.wait(20)
    gate.opened.set()
    assert len(manager.get_result(timeout=20).generated_tokens) == 5
    with recorded() as telemetry:
        manager.add_request(PROMPTS[1])
        wait_for_calls(telemetry, 1)
        manager.stop()

    assert [tokens(span) for span in calls(telemetry)] == [(2, 5)]
    assert not _continuous._requests_for(manager).by_name


@pytest.mark.parametrize("broken", ["_Adding.begin", "Requests.note_step", "Requests.note_outputs", "Requests.end"])
def test_keeps_its_own_failures_inside(llama, monkeypatch, broken):
    """Whatever breaks in our bookkeeping, the host gets its tokens, and the failure is counted."""
    kind, method = broken.split(".")

    def fail(*_):
        message = "broken"
        raise ZeroDivisionError(message)

    monkeypatch.setattr(getattr(_continuous, kind), method, fail)
    with recorded(config=Config(strict=False)), llama.continuous_batching_context_manager(**options()) as manager:
        name = manager.add_request(PROMPTS[0])
        assert len(manager.get_result(timeout=20).generated_tokens) == 5
        manager.add_request(PROMPTS[1], nonsense=1)
        assert manager.get_result(name, timeout=20) is None  # it is the failed one's

    assert guard.error_counts()["transformers.continuous_batching"] > 0
    guard._errors.clear()


def test_counts_no_request_of_a_version_that_cannot_end_it(llama, monkeypatch):
    """Where the library lacks what a call begun here needs to end, none is begun, and all else works."""
    from transformers.generation.continuous_batching import continuous_api

    monkeypatch.setattr(continuous_api, "OutputRouter", object)
    with recorded() as telemetry:
        monkeypatch.undo()
        assert len(llama.generate_batch(PROMPTS, **options())) == 2

    assert telemetry.spans() == []
