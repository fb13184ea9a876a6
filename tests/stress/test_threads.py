"""Many threads: nothing lost, nothing counted twice."""

from __future__ import annotations

import threading

from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

from otel_inference import Config, instrument, uninstrument
from otel_inference.testing import recorded

THREADS, CALLS = 8, 10_000


def run(work):
    """Run `work` in all threads at once."""
    barrier = threading.Barrier(THREADS)

    def start():
        barrier.wait()
        work()

    threads = [threading.Thread(target=start) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_counts_exactly(linear):
    """8 threads x 10,000 calls are exactly 80,000, whatever the sampler decides."""
    import torch

    rows = torch.ones(1, 4)

    def work():
        with torch.inference_mode():
            for _ in range(CALLS):
                linear(rows)

    with recorded(["torch"], config=Config(strict=True), sampler=ALWAYS_OFF) as telemetry:
        run(work)

        assert telemetry.count("inference.call.duration") == THREADS * CALLS
        assert telemetry.points("inference.active_calls")[0].value == 0
    assert telemetry.spans() == []


def test_switches_under_load(linear):
    """Switched on and off while calls run, no call breaks and nothing of ours is left."""
    import torch

    before = dict(vars(torch.nn.Module))
    rows = torch.ones(1, 4)
    failures = []

    def work():
        for number in range(400):
            if threading.get_ident() % THREADS == 0 or number % 20 == 0:
                instrument(["torch"])
                uninstrument()
            try:
                assert linear(rows).shape == (1, 2)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is ours
                failures.append(error)

    run(work)

    assert failures == []
    assert dict(vars(torch.nn.Module)) == before
