"""torch: what counts as a call, what is known of it, and what must work as without us."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from opentelemetry.instrumentation.utils import suppress_instrumentation

from otel_inference import Config, guard, name_model
from otel_inference.testing import recorded


class Net(torch.nn.Module):
    """Two levels of submodules."""

    def __init__(self):
        super().__init__()
        self.first = torch.nn.Linear(4, 4)
        self.rest = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.Linear(4, 2))

    def forward(self, x):
        """Run both."""
        return self.rest(self.first(x))


@pytest.fixture
def net():
    """A module with submodules, in eval mode."""
    torch.manual_seed(0)
    return Net().eval()


@pytest.fixture
def rows():
    """Three rows of four."""
    return torch.arange(12.0).reshape(3, 4)


@pytest.fixture
def expected(net, rows):
    """What the module makes of the rows, uncounted."""
    with suppress_instrumentation():
        return net(rows)


def names(telemetry):
    """Names of the spans so far."""
    return [span.name for span in telemetry.spans()]


def test_describes_a_forward(telemetry, net, rows):
    """One span for the outermost module only, with the attributes and types of the contract."""
    net(rows)

    (span,) = telemetry.spans()
    assert span.name == "forward Net"
    assert dict(span.attributes) == {
        "inference.engine": "torch",
        "inference.engine.version": torch.__version__,
        "inference.operation": "forward",
        "inference.model": "Net",
        "inference.device": "cpu",
        "inference.batch.size": 3,
        "inference.input.size": 12,
        "inference.cold": True,
    }
    assert span.status.is_unset


def test_is_cold_once(telemetry, net, rows):
    """Only the first call of a model is cold."""
    net(rows)
    net(rows)

    assert [span.attributes["inference.cold"] for span in telemetry.spans()] == [True, False]


def test_takes_no_batch_from_a_vector(telemetry, net):
    """An input of one dimension has a size and no batch."""
    net(torch.ones(4))

    (span,) = telemetry.spans()
    assert "inference.batch.size" not in span.attributes
    assert span.attributes["inference.input.size"] == 4


def test_leaves_padding_out(telemetry):
    """A text model's size is its tokens without the padding that a mask on the CPU shows."""

    class Encoder(torch.nn.Module):
        def forward(self, input_ids, attention_mask):
            return input_ids * attention_mask

    ids, mask = torch.ones(2, 4, dtype=torch.long), torch.tensor([[1, 1, 1, 1], [1, 0, 0, 0]])
    Encoder().eval()(attention_mask=mask, input_ids=ids)

    (span,) = telemetry.spans()
    assert (span.attributes["inference.batch.size"], span.attributes["inference.input.size"]) == (2, 5)


def test_takes_the_given_name(telemetry, net, rows):
    """`name_model` names a module, also one that has been called before."""
    net(rows)
    name_model(net, "ranker")
    net(rows)

    assert names(telemetry) == ["forward Net", "forward ranker"]


def test_leaves_training_alone(telemetry, net, rows):
    """A training step leaves no span, not even for frozen parts of it in eval mode."""
    net.train()
    net.first.eval()
    net(rows).sum().backward()

    assert names(telemetry) == []


def test_counts_an_eval_model_inside_a_wrapper_without_gradients(telemetry, rows):
    """A wrapper nobody put into eval mode does not hide the model inside it."""
    wrapper = Net()
    wrapper.first.eval()
    with torch.inference_mode():
        wrapper(rows)

    assert names(telemetry) == ["forward Linear"]


def test_counts_training_when_asked(net, rows):
    """With `training=True` a module in training mode is counted like any other."""
    with recorded(config=Config(training=True)) as telemetry:
        net.train()(rows)

    assert names(telemetry) == ["forward Net"]


COMPILED = {
    "module": lambda net: torch.compile(net, fullgraph=True, backend="eager"),
    "dynamic": lambda net: torch.compile(net, fullgraph=True, backend="aot_eager", dynamic=True),
    "in place": lambda net: (net.compile(fullgraph=True, backend="eager"), net)[1],
    "with hooks": lambda net: (
        net.first.register_forward_hook(lambda *_: None),
        torch.compile(net, fullgraph=True, backend="eager"),
    )[1],
}


@pytest.mark.parametrize("compiled", COMPILED.values(), ids=COMPILED)
def test_compiles_whole(telemetry, net, rows, expected, compiled):
    """`torch.compile(fullgraph=True)` finds no graph break, and a compiled module's call is one call."""
    torch._dynamo.reset()
    model = compiled(net)
    before = len(names(telemetry))
    result = model(rows)

    assert torch.equal(result, expected)
    assert names(telemetry)[before:] == ["forward Net"]


def test_breaks_no_graph(telemetry, net, rows):
    """Dynamo's own report shows one graph and no break."""
    torch._dynamo.reset()
    report = torch._dynamo.explain(net)(rows)

    assert (report.graph_count, report.graph_break_count) == (1, 0)


def test_compiles_when_inlined_into_a_function(telemetry, net, rows, expected):
    """A module inside a compiled function is traced into it, wrapper and all."""
    torch._dynamo.reset()
    function = torch.compile(lambda x: net(x) + 1, fullgraph=True, backend="eager")

    assert torch.equal(function(rows), expected + 1)


@pytest.mark.parametrize("strict", [True, False])
def test_exports(telemetry, net, rows, expected, strict):
    """`torch.export` works and makes no call; the exported program's module makes one."""
    program = torch.export.export(net, (rows,), strict=strict)
    assert names(telemetry) == []

    assert torch.equal(program.module()(rows), expected)
    assert len(names(telemetry)) == 1


TRANSFORMED = {
    "scripted": torch.jit.script,
    "symbolically traced": torch.fx.symbolic_trace,
    "copied": copy.deepcopy,
    "pickled": lambda net: pickle.loads(pickle.dumps(net)),
    "pickled by its call": lambda net: pickle.loads(pickle.dumps(net.__call__)),
    "DataParallel": lambda net: torch.nn.DataParallel(net).eval(),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("transform", TRANSFORMED.values(), ids=TRANSFORMED)
def test_transforms(telemetry, net, rows, expected, transform):
    """What is made of a module works as without us; its call is one call under the model's name."""
    transformed = transform(net)
    assert names(telemetry) == []

    assert torch.equal(transformed(rows), expected)
    assert names(telemetry) == ["forward Net"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_traces(telemetry, net, rows, expected):
    """`torch.jit.trace` records the module's graph, and tracing it is no call."""
    traced = torch.jit.trace(net, rows, check_trace=False)
    assert names(telemetry) == []

    assert torch.equal(traced(rows), expected)
    assert names(telemetry) == ["forward Net"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_counts_scripted_functions_and_frozen_modules(telemetry, net, rows):
    """A scripted function is called like a module; a frozen module, which has no mode, is inference."""

    @torch.jit.script
    def double(x: torch.Tensor) -> torch.Tensor:
        return 2 * x

    frozen = torch.jit.freeze(torch.jit.script(net))
    double(rows)
    frozen(rows)

    assert names(telemetry) == ["forward double", "forward Net"]


def test_marks_compilations_cold(telemetry, net, rows):
    """A call during which something is compiled, or compiled again for a new shape, is as cold as a first one."""
    torch._dynamo.reset()
    net(rows)
    compiled = torch.compile(net, backend="eager")
    for batch in (rows, rows, rows[:2], rows[:2]):
        compiled(batch)

    assert [span.attributes["inference.cold"] for span in telemetry.spans()] == [True, True, False, True, False]


def test_calls_a_module_that_answers_to_nothing(rows):
    """Whatever a module does when it is asked about itself, its call is the host's and goes through."""

    class Strange(Net):
        @property
        def training(self):
            raise RuntimeError

        @training.setter
        def training(self, _):
            pass

    with recorded() as telemetry:
        assert Strange()(rows).shape == (3, 2)
        errors = telemetry.points("inference.self.errors")

    assert names(telemetry) == []
    assert [(point.value, dict(point.attributes)) for point in errors] == [(1, {"where": "torch"})]
    guard._errors.clear()


def test_calls_functionally(telemetry, net, rows):
    """`functional_call` uses the given parameters and is one call."""
    zeros = {name: torch.zeros_like(value) for name, value in net.named_parameters()}

    assert torch.equal(torch.func.functional_call(net, zeros, rows), torch.zeros(3, 2))
    assert names(telemetry) == ["forward Net"]


def test_runs_hooks_and_overrides(telemetry, rows):
    """Hooks run once each, and a subclass's own `__call__` is honoured."""
    seen = []

    class Custom(Net):
        def __call__(self, x):
            seen.append("override")
            return super().__call__(x)

    module = Custom().eval()
    module.register_forward_pre_hook(lambda *_: seen.append("before"))
    module.register_forward_hook(lambda *_: seen.append("after"))
    module(rows)

    assert seen == ["override", "before", "after"]
    assert names(telemetry) == ["forward Custom"]


def test_survives_a_foreign_patch(rows):
    """Somebody else's replacement of `Module.__call__`, made before us, is called and comes back."""
    original = torch.nn.Module.__call__
    seen = []

    def foreign(self, *args, **kwargs):
        seen.append(type(self).__name__)
        return original(self, *args, **kwargs)

    torch.nn.Module.__call__ = foreign
    try:
        with recorded(["torch"], config=Config(strict=True)) as telemetry:
            Net().eval()(rows)
        assert torch.nn.Module.__call__ is foreign
    finally:
        torch.nn.Module.__call__ = original
    assert seen == ["Net", "Linear", "Sequential", "ReLU", "Linear"]
    assert names(telemetry) == ["forward Net"]
