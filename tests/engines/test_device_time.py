"""Device time by events, on an imitation of `torch.cuda`: no accelerator was at hand to test on."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from otel_inference import force_flush, guard
from otel_inference.engines import _device_time
from otel_inference.telemetry import recorder


class FakeCuda:
    """A device with one queue, which passes its marks only when told to."""

    def __init__(self):
        self.now_ms = 0.0
        self.done = False
        self.made = 0
        self.capturing = False
        self.waited = False
        self.Event = lambda *, enable_timing: self._event(enable_timing)

    def _event(self, enable_timing):
        assert enable_timing
        self.made += 1
        return FakeEvent(self)

    def current_stream(self, device):
        """The one queue."""
        return SimpleNamespace(device_index=device.index)

    def is_current_stream_capturing(self):
        """Whether a graph is being recorded."""
        return self.capturing

    def synchronize(self, *_):
        """Wait, which nobody may."""
        self.waited = True


class FakeEvent:
    """A mark in the queue."""

    def __init__(self, cuda):
        self._cuda = cuda
        self.at_ms = None

    def record(self, _stream):
        """Mark the present."""
        self.at_ms = self._cuda.now_ms

    def query(self):
        """Whether the device has come past."""
        return self._cuda.done

    def elapsed_time(self, other):
        """Milliseconds to another mark; an error before the device has come past."""
        assert self._cuda.done
        return other.at_ms - self.at_ms

    synchronize = FakeCuda.synchronize


@pytest.fixture
def cuda(monkeypatch):
    """`torch.cuda` imitated, with an empty pool."""
    fake = FakeCuda()
    monkeypatch.setattr(torch, "cuda", fake)
    monkeypatch.setattr(_device_time, "_pools", {})
    return fake


class OnDevice:
    """What looks like a tensor on an accelerator."""

    device = torch.device("cuda", 1)
    shape = (2, 3)


@pytest.fixture
def model(cuda):
    """A module whose forward takes 250 ms of device time."""

    class Host(torch.nn.Module):
        def forward(self, _):
            cuda.now_ms += 250.0
            return cuda

    return Host().eval()


def test_reads_the_time_later(telemetry, cuda, model):
    """A call whose device is still at work is written when the device is done, by a later call."""
    model(OnDevice())
    assert telemetry.spans() == []
    assert telemetry.points("inference.active_calls")[0].value == 0
    cuda.done = True
    model(OnDevice())

    first, second = telemetry.spans()
    assert first.attributes["inference.device.duration"] == second.attributes["inference.device.duration"] == 0.25
    assert first.attributes["inference.device"] == "cuda:1"
    assert first.end_time < second.start_time
    assert telemetry.count("inference.call.duration") == 2
    assert not cuda.waited


def test_reuses_events(telemetry, cuda, model):
    """Events go back to a pool: many calls need few."""
    cuda.done = True
    for _ in range(20):
        model(OnDevice())

    assert cuda.made == 2


def test_bounds_the_calls_that_wait(telemetry, cuda, model, monkeypatch):
    """With a device that never answers, the oldest calls are written without device time."""
    monkeypatch.setattr(recorder, "_MAX_LATE", 4)
    for _ in range(10):
        model(OnDevice())

    assert 6 <= len(telemetry.spans()) < 10
    assert not any("inference.device.duration" in span.attributes for span in telemetry.spans())


@pytest.mark.parametrize("flush", [force_flush, lambda: __import__("otel_inference").uninstrument()])
def test_writes_what_waits_at_the_end(telemetry, cuda, model, flush):
    """A flush writes what is done, and switching off writes all."""
    model(OnDevice())
    cuda.done = True
    flush()

    assert len(telemetry.spans()) == 1


def test_ends_a_failed_call_at_once(telemetry, cuda):
    """A call that fails is written at once, and its exception is not kept for the device's sake."""

    class Host(torch.nn.Module):
        def forward(self, _):
            raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011 - the host's own, bare
        Host().eval()(OnDevice())

    (span,) = telemetry.spans()
    assert span.attributes["error.type"] == "ValueError"


def test_marks_nothing_while_a_graph_is_recorded(telemetry, cuda, model):
    """During CUDA graph capture no event enters the stream."""
    cuda.capturing = True
    model(OnDevice())

    assert cuda.made == 0
    assert len(telemetry.spans()) == 1


def test_survives_a_device_that_refuses(cuda, model):
    """When the device's API fails, the call goes through and is counted without device time."""
    from otel_inference.testing import recorded

    cuda.current_stream = lambda _: 1 / 0
    with recorded() as telemetry:
        assert model(OnDevice()) is cuda

    assert len(telemetry.spans()) == 1
    assert guard.error_counts() == {"device_time": 1}
    guard._errors.clear()
