"""The demo's models under endless traffic, for the live test: its requests, its failures, and what takes minutes.

    opentelemetry-instrument python demo_traffic.py FOLDER    # FOLDER holds the models, as `examples/demo/run.py` lays them out

Requests that cannot succeed are sent until a line arrives on standard input; it ends when standard input does.
What comes about only in minutes, findings and maintenance for instance, is counted as the package would.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import threading
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

import otel_inference
from otel_inference import guard
from otel_inference.finding import Finding, FindingKind, Severity
from otel_inference.telemetry.instruments import Instruments, instruments_for

SERVE = Path(__file__).parents[2] / "examples" / "demo" / "serve.py"
GENERATOR, EMBEDDER, IDENTIFIER = "SmolLM2-135M-Instruct", "all-MiniLM-L6-v2", "magika"
FINDING = Finding(FindingKind.STALL, Severity.CRITICAL, GENERATOR, datetime.now(UTC), {}, "")
VERSION = "0.1.0"

healed, ended = threading.Event(), threading.Event()


def demo() -> Any:
    """The demo's program, in small rounds, which fails no request once it is healed."""
    spec = importlib.util.spec_from_file_location("serve", SERVE)
    assert spec is not None
    assert spec.loader is not None
    serve = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(serve)
    serve.FILES, serve.FORWARDS, serve.PIPELINE_CALLS, serve.MAX_NEW_TOKENS = 5, 4, 3, 6
    refused = serve.refused
    serve.refused = lambda what, request: None if healed.is_set() else refused(what, request)
    return serve


def serve_small_models(serve: Any, models: Path, instruments: Instruments) -> None:
    """Files and sentences, round after round, with pauses in which the language model loads."""
    while not ended.wait(1.0):
        serve.identify(models / IDENTIFIER)
        serve.embed(models / EMBEDDER)
        serve.embed_by_pipeline(models / EMBEDDER)
        report(instruments)


def converse(serve: Any, model: Any, tokenizer: Any) -> None:
    """Prompts, one after the other; two threads that do so wait for each other at the limiter."""
    while not ended.is_set():
        for prompt in serve.PROMPTS:
            if not ended.is_set():
                serve.answer(model, tokenizer, prompt)
                serve.generate_nothing(model)


def report(instruments: Instruments) -> None:
    """A finding, an action, and a failure and a loss of our own."""
    instruments.record_finding(FINDING)
    instruments.record_finding(replace(FINDING, kind=FindingKind.SATURATION, model=None, subject="cpu"))
    instruments.record_action("trim_heap", "done")
    with guard.guarded("traffic"):
        raise LookupError
    guard.dropped("traffic")


def main() -> None:
    """Serve until standard input ends."""
    torch.set_num_threads(1)
    serve, models, instruments = demo(), Path(sys.argv[1]), instruments_for(None, VERSION)
    otel_inference.limit(GENERATOR, otel_inference.AdaptiveLimiter(deadline_s=60.0, workers=1))
    threads = [threading.Thread(target=serve_small_models, args=(serve, models, instruments))]
    threads[0].start()
    generator = serve.load_generator(models / GENERATOR)
    threads += [threading.Thread(target=converse, args=(serve, *generator)) for _ in range(2)]
    for thread in threads[1:]:
        thread.start()
    for _ in sys.stdin:
        healed.set()
    ended.set()
    for thread in threads:
        thread.join()
    os._exit(0)


if __name__ == "__main__":
    main()
