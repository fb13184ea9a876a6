"""What the host gives, keeps, copies, pickles, subclasses and looks up is as without us."""

from __future__ import annotations

import contextlib
import copy
import functools
import gc
import importlib.util
import inspect
import multiprocessing
import os
import pickle
import pydoc
import subprocess
import sys
import threading
import warnings
import weakref
from concurrent.futures import ProcessPoolExecutor
from unittest import mock

import numpy as np
import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider

from otel_inference import Config, engines, force_flush, observe, runtime
from otel_inference.protocols import outlet_of
from otel_inference.testing import recorded

STRICT = Config(strict=True)
ROWS = np.ones((2, 3), np.float32)


class TouchedError(Exception):
    """Somebody looked into a value that is none of their business."""


def _touched(*_):
    raise TouchedError


class Hostile:
    """Refuses to be iterated, measured, tested, compared, hashed, converted or written down."""

    __iter__ = __len__ = __bool__ = __eq__ = __hash__ = __getitem__ = __contains__ = __index__ = _touched
    __str__ = __repr__ = __format__ = __float__ = __int__ = __copy__ = __reduce_ex__ = _touched


class Unreadable:
    """A value whose attributes all refuse, `shape` among them, as an unbound proxy's do."""

    def __getattr__(self, name):
        raise TouchedError(name)


class Recording:
    """Writes down which attributes it is asked for."""

    def __init__(self):
        object.__setattr__(self, "asked", set())

    def __getattribute__(self, name):
        if name != "asked":
            object.__getattribute__(self, "asked").add(name)
        return object.__getattribute__(self, name)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """A folder with a tiny BERT encoder and its tokenizer."""
    from transformers import BertConfig, BertModel, BertTokenizer

    folder = tmp_path_factory.mktemp("models") / "encoder"
    folder.mkdir()
    (folder / "words.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\nb\nc")
    config = BertConfig(vocab_size=8, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
    BertModel(config).save_pretrained(folder)
    BertTokenizer(str(folder / "words.txt")).save_pretrained(folder)
    return folder


@pytest.fixture
def embed(encoder):
    """A feature-extraction pipeline, made before anything is instrumented."""
    from transformers import pipeline

    return pipeline("feature-extraction", model=str(encoder))


@pytest.fixture
def echo(gpt2):
    """A pipeline that takes anything and gives it back."""
    from transformers.pipelines.base import Pipeline

    class Echo(Pipeline):
        def _sanitize_parameters(self, **_):
            return {}, {}, {}

        def preprocess(self, inputs):
            return {"inputs": inputs}

        def _forward(self, model_inputs):
            return model_inputs

        def postprocess(self, model_outputs):
            return model_outputs["inputs"]

    return Echo(model=gpt2)


@pytest.fixture
def identity():
    """A torch module that takes anything and gives the first of it back."""
    import torch

    class Identity(torch.nn.Module):
        def forward(self, *args, **kwargs):
            return [*args, *kwargs.values()][0]

    return Identity().eval()


def calls(telemetry):
    """Ended calls so far, without loads."""
    return [span for span in telemetry.spans() if not span.name.startswith("load ")]


def outcome(function, *args, **kwargs):
    """What a call gives: its result, else its exception's type and text."""
    try:
        return function(*args, **kwargs)
    except Exception as error:  # noqa: BLE001 - that is what is compared
        return type(error), str(error)


def same(function):
    """What `function()` gives without us, and the call that we make of it."""
    bare = outcome(function)
    with recorded(config=STRICT) as telemetry:
        ours = outcome(function)
    assert ours == bare if isinstance(bare, tuple) else ours is bare
    return calls(telemetry)


# What the host gives.


@pytest.mark.parametrize("kind", [Hostile, Unreadable, object])
@pytest.mark.parametrize("name", [None, "input_ids", "x"])
def test_does_not_touch_what_a_module_takes(identity, kind, name):
    """A module gets whatever it is given, untouched, and its call is counted without a size."""
    value = kind()
    (span,) = same(lambda: identity(value) if name is None else identity(**{name: value}))

    assert "inference.input.size" not in span.attributes
    assert "error.type" not in span.attributes


@pytest.mark.parametrize("kind", [Hostile, Unreadable])
def test_does_not_touch_a_mask(identity, kind):
    """Beside token ids an attention mask may be anything."""
    import torch

    ids = torch.ones(2, 3, dtype=torch.long)
    (span,) = same(functools.partial(identity, input_ids=ids, attention_mask=kind()))

    assert span.attributes["inference.input.size"] == 6


@pytest.mark.parametrize("kind", [Hostile, Unreadable])
def test_does_not_touch_what_a_pipeline_takes(echo, kind):
    """A pipeline gets whatever it is given, untouched, and its call is counted."""
    value = kind()

    assert len(same(lambda: echo(value))) == 1


@pytest.mark.parametrize("kind", [Hostile, Unreadable, object, dict, int])
def test_refuses_a_generation_as_the_model_does(gpt2, kind):
    """`generate` of what is no prompt fails with the model's own exception, once."""
    value = kind()
    (span,) = same(lambda: gpt2.generate(value, max_new_tokens=2))

    assert "error.type" in span.attributes


FEEDS = {
    "hostile value": lambda: {"rows": Hostile()},
    "unreadable value": lambda: {"rows": Unreadable()},
    "no array": lambda: {"rows": object()},
    "wrong type": lambda: {"rows": ROWS.astype(np.int64)},
    "wrong shape": lambda: {"rows": np.ones((2, 2, 2), np.float32)},
    "missing": dict,
    "unknown": lambda: {"rows": ROWS, "more": ROWS},
    "hostile feed": Hostile,
    "unreadable feed": Unreadable,
    "none": lambda: None,
}


@pytest.mark.parametrize("feed", FEEDS.values(), ids=FEEDS)
def test_refuses_a_feed_as_onnxruntime_does(session, feed):
    """What onnxruntime refuses it refuses with its own exception and text, once."""
    value = feed()
    (span,) = same(lambda: session.run(None, value))

    assert "error.type" in span.attributes


def test_asks_a_value_for_its_shape_only(telemetry, identity):
    """Of a value that is no list, nothing is read but its shape, type and place."""
    value = Recording()
    identity(value)

    assert value.asked <= {"shape", "device", "dtype", "__class__"}


def test_does_not_evaluate_what_it_observes(telemetry):
    """An observed function's arguments, result and items are never looked at."""
    value = Hostile()

    @observe("anything")
    def echo(given):
        return given

    @observe("anything")
    def items(given):
        yield given

    assert echo(value) is value
    assert next(items(value)) is value


def test_gives_a_module_its_iterator_whole(telemetry, identity):
    """Generators and iterators reach a module with every item in them."""
    taken = []
    generator = (taken.append(item) or item for item in range(3))

    assert identity(generator) is generator
    assert taken == []
    assert list(identity(iter([1, 2]))) == [1, 2]


class Texts:
    """A data set that writes down what is asked of it."""

    def __init__(self, key=None):
        self.key = key
        self.log = []

    def __len__(self):
        self.log.append("len")
        return 5

    def __getitem__(self, index):
        self.log.append(index)
        if index >= 5:
            raise IndexError(index)
        text = "abcab"[index]
        return text if self.key is None else {self.key: text}


def keyed():
    """A data set of dictionaries, and the `KeyDataset` of its texts."""
    from transformers.pipelines.pt_utils import KeyDataset

    texts = Texts("text")
    return texts.log, KeyDataset(texts, "text")


def mapped():
    """A torch `Dataset` of texts."""
    import torch

    class Mapped(Texts, torch.utils.data.Dataset):
        pass

    texts = Mapped()
    return texts.log, texts


def streamed():
    """A torch `IterableDataset` of texts."""
    import torch

    class Streamed(torch.utils.data.IterableDataset):
        log = []  # noqa: RUF012 - one of each kind

        def __iter__(self):
            return (self.log.append(text) or text for text in "abcab")

    Streamed.log = []
    return Streamed.log, Streamed()


def generated():
    """A generator of texts."""
    log = []
    return log, (log.append(text) or text for text in "abcab")


@pytest.mark.filterwarnings("ignore:Length of IterableDataset")
@pytest.mark.parametrize("batch_size", [1, 2])
@pytest.mark.parametrize("make", [keyed, mapped, streamed, generated])
def test_takes_from_a_source_when_the_pipeline_does(embed, make, batch_size):
    """A source is asked for the same things at the same moments as without us; one call ends with the last item."""

    def trace():
        log, source = make()
        results = embed(source, batch_size=batch_size)
        seen = [list(log)]
        for result in results:
            seen.append((result, list(log)))
            assert [span for span in ended() if span.name.startswith("pipeline")] == []
        return seen

    ended = list
    bare = trace()
    with recorded(config=STRICT) as telemetry:
        ended = functools.partial(calls, telemetry)
        ours = trace()
    assert ours == bare
    assert len(bare) == 1 + 5
    (span,) = calls(telemetry)
    assert span.attributes["gen_ai.usage.input_tokens"] == 5 * 3


# What the host keeps.


def test_keeps_neither_inputs_nor_owners(telemetry, session, encoder):
    """Inputs, modules, sessions and pipelines go when the host lets them go."""
    import onnxruntime
    import torch
    from transformers import pipeline

    array, tensor = ROWS.copy(), torch.ones(2, 4)
    module, embed = torch.nn.Linear(4, 1).eval(), pipeline("feature-extraction", model=str(encoder))
    own = onnxruntime.InferenceSession(session._model_path)
    references = [weakref.ref(thing) for thing in (array, tensor, module, embed, embed.model, own)]
    own.run(None, {"rows": array})
    module(tensor)
    embed("a")
    with contextlib.suppress(Exception):
        module(tensor[:, :3])
    del array, tensor, module, embed, own
    gc.collect()

    assert [reference() for reference in references] == [None] * 6


def test_writes_nothing_onto_what_is_called(telemetry, session, linear, embed):
    """Modules, sessions and pipelines have the same attributes after a call as before."""
    import torch

    def attributes():
        return [{name: id(value) for name, value in vars(thing).items()} for thing in (session, linear, embed.model)]

    embed("a")
    before = attributes()
    session.run(None, {"rows": ROWS})
    linear(torch.ones(2, 4))
    embed("b")

    assert attributes() == before
    assert "call_count" not in before[2]


def test_leaves_weak_methods_and_bound_methods_as_they_are(telemetry, session, linear, embed):
    """Bound methods compare, hash, bind and die with their owners as without us."""
    for owner, name in ((session, "run"), (linear, "__call__"), (embed, "__call__")):
        method = getattr(owner, name)
        assert inspect.ismethod(method)
        assert method.__self__ is owner
        assert method == getattr(owner, name)
        assert hash(method) == hash(getattr(owner, name))
        assert weakref.WeakMethod(method)() == method


def objects_after(work, rounds):
    """Objects that the garbage collector sees after `rounds` of `work`, once all of it has been written."""
    for _ in range(rounds):
        work()
    force_flush()
    if runtime._running is None:  # what has been stopped ends by itself, a moment later
        for thread in threading.enumerate():
            if thread.name.startswith("otel-inference"):
                thread.join(timeout=10)
    for _ in range(3):  # what a weak dictionary held of collected keys can only go in the next round
        gc.collect()
    return len(gc.get_objects())


def providers():
    """The SDK, which aggregates measurements and lets ended spans go."""
    return {
        "tracer_provider": TracerProvider(shutdown_on_exit=False),
        "meter_provider": MeterProvider([InMemoryMetricReader()], shutdown_on_exit=False),
    }


@contextlib.contextmanager
def discarded(**given):
    """Instrument for a block, with providers of its own unless they are given."""
    runtime.instrument(**(given or providers()), config=STRICT)
    try:
        yield
    finally:
        runtime.uninstrument()


def torch_work(request):
    """A forward of a tiny module."""
    import torch

    module, rows = request.getfixturevalue("linear"), torch.ones(2, 4)
    return lambda: module(rows)


def failing_work(request):
    """A forward that fails."""
    import torch

    module, rows = request.getfixturevalue("linear"), torch.ones(2, 5)

    def work():
        with contextlib.suppress(RuntimeError):
            module(rows)

    return work


def onnxruntime_work(request):
    """A run of a tiny session."""
    session = request.getfixturevalue("session")
    return lambda: session.run(None, {"rows": ROWS})


def new_module_work(request):
    """A forward of a module made for it."""
    import torch

    rows = torch.ones(2, 4)
    return lambda: torch.nn.Linear(4, 2).eval()(rows)


def observed_work(request):
    """An observed block."""

    def work():
        with observe("block"):
            pass

    return work


def stream_work(request):
    """An observed generator that is dropped before its end."""

    @observe("stream")
    def stream():
        yield from range(3)

    return lambda: next(stream())


WORK = [torch_work, failing_work, onnxruntime_work, new_module_work, observed_work, stream_work]


@pytest.mark.parametrize("make", WORK, ids=lambda make: make.__name__)
def test_grows_by_nothing_over_thousands_of_calls(request, make):
    """Four thousand calls leave no more objects behind than a thousand."""
    work = make(request)
    with discarded():
        before = objects_after(work, 1000)
        after = objects_after(work, 4000)

    assert after - before < 100


def test_grows_by_nothing_over_dropped_iterators(embed):
    """Pipelines' iterators that are dropped early leave nothing behind."""

    def work():
        next(iter(embed(text for text in "abc")))

    with discarded():
        before = objects_after(work, 20)
        after = objects_after(work, 300)

    assert after - before < 200  # less than one each; evaluations go on meanwhile, and hold a few


def switching(session, linear, make, on_and_off):
    """Objects, and everything else that may grow, after 20 rounds and after 200 more."""
    import torch
    import transformers
    from onnxruntime.capi.onnxruntime_inference_collection import InferenceSession, Session
    from wrapt import importer

    owners = (torch.nn.Module, torch.jit.ScriptFunction, transformers.Pipeline, transformers.GenerationMixin)
    owners += (transformers.PreTrainedModel, Session, InferenceSession)

    def work():
        with on_and_off(**make()):
            session.run(None, {"rows": ROWS})
            linear(torch.ones(2, 4))

    def state():
        hooks = sum(map(len, importer._post_import_hooks.values()))
        return [dict(vars(owner)) for owner in owners], hooks, threading.active_count(), len(runtime._patches._layers)

    return [(objects_after(work, rounds), state()) for rounds in (20, 200)]


@pytest.mark.parametrize("new", [False, True], ids=["same providers", "new providers"])
def test_grows_by_nothing_when_switched_on_and_off(session, linear, new):
    """Two hundred times on and off leave no object, thread, hook or layer behind, and the classes as they were."""
    kept = providers()
    make = providers if new else lambda: kept
    (bare_before, _), (bare_after, _) = switching(session, linear, make, lambda **_: contextlib.nullcontext())
    (before, state), (after, later) = switching(session, linear, make, discarded)

    assert later == state
    assert state[-1] == 0
    # The SDK keeps a few objects of every provider that it ever made, and a tracer of coverage some for each
    # line that a thread comes to for the first time: what is looked for is ten objects a round.
    assert after - before < bare_after - bare_before + 10 * 200


# What the host copies, pickles and sends away.


def test_pickles_a_bound_call_of_a_pipeline(telemetry, embed):
    """`pipe.__call__` goes through `pickle` and still embeds; the copy's call is one call."""
    again = pickle.loads(pickle.dumps(embed.__call__))

    assert again("a b") == embed("a b")
    assert [span.name for span in calls(telemetry)] == ["pipeline encoder"] * 2


def test_copies_models_and_pipelines(telemetry, linear, embed, gpt2):
    """`deepcopy` gives models and pipelines that work like the originals, and whose calls count."""
    import torch

    ids = torch.tensor([[5, 6]])
    options = {"max_new_tokens": 3, "attention_mask": torch.ones_like(ids)}

    assert copy.deepcopy(embed)("a") == embed("a")
    assert torch.equal(copy.deepcopy(linear)(torch.ones(1, 4)), linear(torch.ones(1, 4)))
    assert torch.equal(copy.deepcopy(gpt2).generate(ids, **options), gpt2.generate(ids, **options))
    assert len(calls(telemetry)) == 6


@pytest.mark.parametrize("transform", [copy.deepcopy, pickle.dumps])
def test_does_not_copy_a_session(session, transform):
    """A session refuses to be copied or pickled as it does without us."""
    bare = outcome(transform, session)
    with recorded(config=STRICT):
        session.run(None, {"rows": ROWS})
        assert outcome(transform, session) == bare
    assert bare[0] is TypeError


def test_sends_a_bound_call_to_another_process(telemetry, linear):
    """A spawned process, where nothing is instrumented, gets a bound call by name and runs it."""
    import torch

    rows, linear = torch.ones(2, 4), linear.requires_grad_(requires_grad=False)
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        assert torch.equal(pool.submit(linear.__call__, rows).result(timeout=120), linear(rows))


# What the host subclasses and replaces.


def test_serves_subclasses_made_before_during_and_after(onnx_path):
    """Overrides that call `super()` work whenever their class was made, and are one call while instrumented."""
    import onnxruntime

    def make():
        class Mine(onnxruntime.InferenceSession):
            plain = onnxruntime.InferenceSession.run

            def run(self, names, feed, options=None):
                return [2 * value for value in super().run(names, feed, options)]

        return Mine(onnx_path)

    before = make()
    with recorded(config=STRICT) as telemetry:
        during = make()
        for session in (before, during):
            assert session.run(None, {"rows": ROWS})[0].max() == 4
        during.plain(None, {"rows": ROWS})
        assert [span.name for span in calls(telemetry)] == ["run ranker"] * 3
    for session in (before, during, make()):
        assert session.run(None, {"rows": ROWS})[0].max() == 4
        assert session.plain(None, {"rows": ROWS})[0].max() == 2
    assert len(calls(telemetry)) == 3


def test_serves_overrides_of_transformers(telemetry, gpt2, encoder):
    """Subclasses that override `generate` or a pipeline's `__call__` are called as written, one call each."""
    import torch
    from transformers import FeatureExtractionPipeline, pipeline

    class Shouting(FeatureExtractionPipeline):
        def __call__(self, inputs, **options):
            return ["loud", super().__call__(inputs.lower(), **options)]

    class Careful(type(gpt2)):
        def generate(self, *args, **options):
            return super().generate(*args, max_new_tokens=2, min_new_tokens=2, **options).tolist()

    ids = torch.tensor([[5, 6]])
    shouting = pipeline("feature-extraction", model=str(encoder), pipeline_class=Shouting)
    careful = Careful(gpt2.config).eval()
    assert shouting("A")[0] == "loud"
    assert len(careful.generate(ids, attention_mask=torch.ones_like(ids))[0]) == 4
    assert [span.name for span in calls(telemetry)] == ["pipeline encoder", "generate Careful"]


def test_can_be_mocked(telemetry, session, gpt2):
    """What the host's tests mock with a specification is mocked, and is itself again afterwards."""
    from onnxruntime.capi.onnxruntime_inference_collection import Session

    with mock.patch.object(Session, "run", autospec=True, return_value=["mocked"]) as run:
        assert session.run(None, {"rows": ROWS}) == ["mocked"]
        run.assert_called_once_with(session, None, {"rows": ROWS})
        with pytest.raises(TypeError):
            session.run()
    with mock.patch.object(type(gpt2), "generate", autospec=True, return_value="mocked"):
        assert gpt2.generate() == "mocked"
    assert calls(telemetry) == []
    assert session.run(None, {"rows": ROWS})[0].max() == 2
    assert len(calls(telemetry)) == 1


def test_counts_once_after_being_put_back_by_a_mock(session):
    """Uninstrumented while a mock stands in our place, and instrumented again, a call is still one call."""
    from onnxruntime.capi.onnxruntime_inference_collection import Session

    for _ in range(3):
        with recorded(config=STRICT):
            patched = mock.patch.object(Session, "run", return_value=[])
            patched.start()
        patched.stop()
        with recorded(config=STRICT) as telemetry:
            session.run(None, {"rows": ROWS})
        assert len(calls(telemetry)) == 1


# What the host looks up.


@pytest.fixture(scope="module")
def replaced():
    """Owner and attribute of every function that is replaced, in the engines installed here."""
    found = {}
    for name in engines.names():
        if importlib.util.find_spec(name) is None:
            continue
        for target in engines.load(name).targets(outlet_of(name)):
            *parents, attribute = target.path.split(".")
            # Some targets are the names of other versions of a library, absent here or deprecated.
            with contextlib.suppress(ImportError, AttributeError, DeprecationWarning), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                warnings.simplefilter("error", DeprecationWarning)
                owner = functools.reduce(getattr, parents, importlib.import_module(target.module))
                getattr(owner, attribute)
                found[f"{target.module}.{target.path}"] = (owner, attribute)
    return found


def is_own_name(owner, attribute):
    """Whether a function is called what it is found under; `Module.__call__` for one is not."""
    function = getattr(owner, attribute)
    return inspect.unwrap(function).__name__ == attribute


LOOKS = {
    "signature": lambda owner, name: outcome(inspect.signature, getattr(owner, name)),
    "doc": lambda owner, name: getattr(owner, name).__doc__,
    "help": lambda owner, name: pydoc.getdoc(getattr(owner, name)) if is_own_name(owner, name) else None,
    "annotations": lambda owner, name: getattr(getattr(owner, name), "__annotations__", {}),
    "source": lambda owner, name: outcome(inspect.getsource, getattr(owner, name)),
    "kind": lambda owner, name: type(inspect.getattr_static(owner, name)) in {classmethod, staticmethod},
    "coroutine": lambda owner, name: inspect.iscoroutinefunction(getattr(owner, name)),
    # Llama.generate returns the very generator of the library, which a generator function of ours could not.
    "generator": lambda owner, name: name != "generate" and inspect.isgeneratorfunction(getattr(owner, name)),
}


@pytest.mark.parametrize("look", LOOKS.values(), ids=LOOKS)
def test_looks_like_what_it_replaces(replaced, look):
    """Signature, documentation, annotations and source of every replaced function are the original's."""
    bare = {name: look(*where) for name, where in replaced.items()}
    with recorded(config=STRICT):
        ours = {name: look(*where) for name, where in replaced.items()}

    assert {name: (seen, ours[name]) for name, seen in bare.items() if ours[name] != seen} == {}
    assert len(bare) > 10


def named(module, path, _):
    """What a function's own names lead to."""
    return functools.reduce(getattr, path.split("."), sys.modules[module])


def test_is_found_under_its_names(replaced):
    """`pickle` finds every replaced function again, and its names are the original's if those lead to it."""
    functions = {name: getattr(*where) for name, where in replaced.items()}
    names = {name: (found.__module__, found.__qualname__, found.__name__) for name, found in functions.items()}
    pickled = {name for name, found in functions.items() if outcome(pickle.dumps, found).__class__ is bytes}
    wrong = {}
    with recorded(config=STRICT):
        for name, where in replaced.items():
            function = getattr(*where)
            again = outcome(lambda: pickle.loads(pickle.dumps(function)))  # noqa: B023 - called at once
            ours = function.__module__, function.__qualname__, function.__name__
            if function == functions[name] or (name in pickled and again != function):
                wrong[name] = again
            elif outcome(named, *names[name]) == function and ours != names[name]:
                wrong[name] = ours

    assert wrong == {}
    assert len(pickled) > 10


def test_does_not_list_transformers(encoder, monkeypatch):
    """Neither instrumenting nor a call asks the lazy `transformers` module for its 6,000 names."""
    import transformers

    listed = []
    lazy = type(transformers)
    listing = lazy.__dir__
    monkeypatch.setattr(lazy, "__dir__", lambda module: listed.append(module) or listing(module))
    with recorded(config=STRICT) as telemetry:
        transformers.pipeline("feature-extraction", model=str(encoder))("a")

    assert listed == []
    assert len(calls(telemetry)) == 1


PROGRAM = """
import os, sys
if os.environ["OURS"]:
    import otel_inference
    otel_inference.instrument()
import numpy, onnxruntime, torch
onnxruntime.InferenceSession(sys.argv[2]).run(None, {"rows": numpy.ones((2, 3), numpy.float32)})
torch.nn.Linear(2, 1).eval()(torch.ones(3, 2))
from transformers import pipeline
pipeline("feature-extraction", model=sys.argv[1])("a")
print(*sorted(name for name in sys.modules if name.split(".")[0] in {"torch", "transformers", "onnxruntime"}))
"""


def test_imports_nothing_that_the_host_does_not(encoder, onnx_path):
    """The same modules of the engines are imported by a program with us as without us."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "COV_"))}
    command = [sys.executable, "-c", PROGRAM, str(encoder), str(onnx_path)]
    bare, ours = (
        subprocess.run(command, env={**environment, "OURS": value}, capture_output=True, text=True, check=True)
        for value in ("", "1")
    )

    imported = [set(result.stdout.split()) for result in (bare, ours)]
    assert imported[1] - imported[0] == set()
    assert len(imported[0]) > 500
