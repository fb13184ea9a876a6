"""The package as a whole: its public names, what importing it does, and who may write names."""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import otel_inference
from otel_inference import semconv

SOURCE = Path(inspect.getfile(otel_inference)).parent
FILES = sorted(SOURCE.rglob("*.py"))

PURITY = """
import sys, threading
before = set(sys.modules)
import otel_inference
heavy = {"torch", "transformers", "onnxruntime", "opentelemetry.exporter", "opentelemetry.sdk", "psutil"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
otel_inference.instrument()
assert not {"torch", "transformers", "onnxruntime", "opentelemetry.exporter", "opentelemetry.sdk.trace"} & set(sys.modules)
assert threading.active_count() == 1
"""


def test_exports_what_it_says():
    """Every name in `__all__` is there, and nothing else that is public."""
    assert sorted(otel_inference._HOME) == sorted(otel_inference.__all__)
    for name in set(otel_inference.__all__) - {"health"}:
        assert getattr(otel_inference, name).__module__.startswith("otel_inference.")
    assert set(otel_inference.__all__) <= set(dir(otel_inference))
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = otel_inference.nonsense


@pytest.mark.parametrize("first", ["otel_inference.health.sketch", "otel_inference.runtime", "otel_inference"])
def test_health_is_a_function_and_a_package(first):
    """`otel_inference.health()` can be called whatever was imported before, and its modules imported."""
    program = (
        f"import {first}, otel_inference\nfrom otel_inference import health\n"
        "assert otel_inference.health() == health() == {}\nassert health('ranker') is None\n"
        "import otel_inference.health.window as window\nassert otel_inference.health() == {} and window.SlidingWindow\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_imports_nothing_heavy():
    """Importing and instrumenting imports no engine and no exporter, and starts no thread."""
    subprocess.run([sys.executable, "-c", PURITY], check=True, timeout=60)


def test_loads_its_entry_points():
    """Each entry point of the distribution loads, and the environment variables are strings."""
    distribution = importlib.metadata.distribution("otel-inference")
    loaded = {point.name: point.load() for point in distribution.entry_points}

    assert set(loaded) >= {"inference_torch", "inference_transformers", "inference_onnxruntime", "otel_inference"}
    variables = loaded["otel_inference"]
    written = {value for name, value in vars(semconv).items() if name.startswith("ENV_") and name != "ENV_PREFIX"}
    assert {getattr(variables, name) for name in variables.__all__} == written
    assert all(getattr(variables, name) == name for name in variables.__all__)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_keeps_names_in_one_place(path):
    """Only `semconv.py` spells names of telemetry, and nobody inside imports the package's root."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "otel_inference":
            submodules = {file.stem for file in SOURCE.iterdir()}
            assert {alias.name for alias in node.names} <= submodules
        if isinstance(node, ast.Import):
            assert "otel_inference" not in {alias.name for alias in node.names}
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and path.name != "semconv.py":
            assert not node.value.startswith(("inference.", "gen_ai.")), node.value


def test_documents_its_version():
    """The changelog has an entry for the version that is being worked on."""
    changelog = SOURCE.parent.parent / "CHANGELOG.md"

    assert "Unreleased" in changelog.read_text()


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_alone(path):
    """Every module can be imported on its own name."""
    name = ".".join(("otel_inference", *path.relative_to(SOURCE).with_suffix("").parts)).removesuffix(".__init__")
    importlib.import_module(name)
