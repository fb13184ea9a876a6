"""What a process pays before its first call: importing this package, starting under the launcher."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from time import monotonic
from typing import TYPE_CHECKING, TypeVar

from benchmarks.timing import median_of, ratio_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from benchmarks.timing import Estimate

_Way = TypeVar("_Way")

IMPORTS = {
    "import otel_inference": "import otel_inference",
    "from otel_inference import instrument": "from otel_inference import instrument",
}
LAUNCHER_BARE = "without the package"
LAUNCHER_DISABLED = "with the package, its instrumentors disabled"
LAUNCHER = "with the package"

_TIMED_IMPORT = """
import opentelemetry.trace, opentelemetry.metrics, time
started = time.process_time()
{statement}
print(time.process_time() - started)
"""


def import_ms(budget_s: float) -> dict[str, Estimate]:
    """CPU milliseconds of each import in a fresh process that has OpenTelemetry's API already."""

    def timed(statement: str) -> float:
        script = _TIMED_IMPORT.format(statement=statement)
        done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
        return float(done.stdout) * 1000

    return {name: median_of(values) for name, values in _interleaved(IMPORTS, timed, budget_s).items()}


def launcher(budget_s: float) -> tuple[float, dict[str, Estimate]]:
    """CPU milliseconds of `opentelemetry-instrument python -c pass`, and what the package makes of them.

    Without an exporter, whose import alone would hide what is compared.
    """
    script = Path(sys.executable).with_name("opentelemetry-instrument")
    command = [str(script), sys.executable, "-c", "pass"]
    quiet = {f"OTEL_{signal}_EXPORTER": "none" for signal in ("TRACES", "METRICS", "LOGS")}
    with tempfile.TemporaryDirectory() as folder:
        _hide_distribution(Path(folder))
        ways = {
            LAUNCHER_BARE: {"PYTHONPATH": folder},
            LAUNCHER_DISABLED: {
                "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "inference_torch,inference_transformers,inference_onnxruntime"
            },
            LAUNCHER: {},
        }
        found = _interleaved(ways, lambda environment: _process_ms(command, {**quiet, **environment}), budget_s)
    bare = found.pop(LAUNCHER_BARE)
    return median(bare), {name: ratio_of(values, bare) for name, values in found.items()}


def _hide_distribution(folder: Path) -> None:
    """Metadata of the same name without entry points: the first one on the path is the one that is seen."""
    metadata = folder / "otel_inference-0.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text("Metadata-Version: 2.1\nName: otel-inference\nVersion: 0\n")


def _process_ms(command: list[str], environment: Mapping[str, str]) -> float:
    """CPU time of a process to its end; the launcher replaces itself, so that it is one process."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    started = subprocess.Popen(command, env={**kept, **environment})
    _, status, used = os.wait4(started.pid, 0)
    started.returncode = os.waitstatus_to_exitcode(status)
    if started.returncode != 0:
        msg = f"{shutil.which(command[0]) or command[0]} ended with {started.returncode}"
        raise RuntimeError(msg)
    return (used.ru_utime + used.ru_stime) * 1000


def _interleaved(ways: Mapping[str, _Way], once: Callable[[_Way], float], budget_s: float) -> dict[str, list[float]]:
    """What `once` gives for each way, in rounds, in random order in each."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    for way in ways.values():
        once(way)  # the first start writes bytecode
    deadline_s = monotonic() + budget_s
    while monotonic() < deadline_s or len(next(iter(found.values()))) < 3:
        for name in random.sample(list(ways), len(ways)):
            found[name].append(once(ways[name]))
    return found
