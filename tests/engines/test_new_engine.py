"""A new engine is one file and its registration."""

from __future__ import annotations

import sys

import pytest

from otel_inference import ConfigError, EngineUnavailableError, engines, instrument
from otel_inference.testing import recorded

LIBRARY = "class Model:\n    def predict(self, rows): return [2 * row for row in rows]\n"
ENGINE = """
import functools
from otel_inference.engines._measured import measured
from otel_inference.engines._values import batch_size_of
from otel_inference.nesting import running_call
from otel_inference.patching import Target


class ToyEngine:
    name = "toy_library"
    distribution = "toy-library"
    requires = "toy-library >= 1"

    def targets(self, outlet):
        return [Target(module="toy_library", path="Model.predict", wrap=functools.partial(wrap, outlet))]


ENGINE = ToyEngine()


def wrap(outlet, original):
    @functools.wraps(original)
    def predict(self, rows):
        if outlet.sink is None or running_call() is not None:
            return original(self, rows)
        call = outlet.sink.begin("toy_library", "predict", type(self).__name__, batch_size=batch_size_of(rows))
        return measured(outlet.sink, call, original, (self, rows), {})

    return predict
"""


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """A library and its engine, both one file on the path."""
    (tmp_path / "toy_library.py").write_text(LIBRARY)
    (tmp_path / "toy_engine.py").write_text(ENGINE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(engines, "_MODULES", dict(engines._MODULES))
    engines.register("toy_library", "toy_engine")
    yield
    for name in ("toy_library", "toy_engine"):
        sys.modules.pop(name, None)


def test_adds_an_engine_as_one_file(toy):
    """A registered engine is instrumented like the built-in ones, before its library is imported."""
    with recorded(["toy_library"]) as telemetry:
        import toy_library

        assert toy_library.Model().predict([1, 2]) == [2, 4]

    (span,) = telemetry.spans()
    assert span.name == "predict Model"
    assert span.attributes["inference.batch.size"] == 2
    assert "inference.engine.version" not in span.attributes
    assert toy_library.Model.predict.__qualname__ == "Model.predict"
    assert not hasattr(toy_library.Model.predict, "__wrapped__")


def test_refuses_an_unknown_engine():
    """An unknown name is refused, with the known ones."""
    with pytest.raises(ConfigError, match=r"unknown engine 'tensorflow'; known are .*torch"):
        instrument(["tensorflow"])
    with pytest.raises(ConfigError, match=r"expected a list"):
        instrument("torch")


def test_refuses_an_engine_that_is_not_installed(toy, monkeypatch):
    """An engine asked for by name has to be there; asked for by nobody it may be missing."""
    engines.register("absent_library", "toy_engine")
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(EngineUnavailableError, match="pip install toy-library"):
        instrument(["absent_library"])
