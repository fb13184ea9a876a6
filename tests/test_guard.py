"""Our own failures: counted, logged now and then, never the host's."""

from __future__ import annotations

import pytest

from otel_inference import guard
from otel_inference.protocols import outlet_of
from otel_inference.testing import recorded


@pytest.fixture(autouse=True)
def _fresh_counts():
    """Counts of this file's own failures, and none that another test provoked."""
    guard._errors.clear()
    guard._dropped.clear()
    yield
    guard._errors.clear()
    guard._dropped.clear()


def fail():
    """Fail inside a guarded block."""
    with guard.guarded("here"):
        msg = "ours"
        raise ValueError(msg)


def test_counts_all_and_logs_few(caplog):
    """Of many failures each is counted and one in a hundred is logged, with its traceback."""
    for _ in range(150):
        fail()

    assert guard.error_counts()["here"] == 150
    assert len(caplog.records) == 2
    assert "ValueError: ours" in caplog.text


def test_raises_in_strict_mode():
    """Tests of the package see what it would swallow."""
    guard.set_strict(strict=True)
    with pytest.raises(ValueError, match="ours"):
        fail()


def test_leaves_what_is_no_failure_alone():
    """A `BaseException` is the host's business."""
    with pytest.raises(KeyboardInterrupt), guard.guarded("here"):
        raise KeyboardInterrupt


def test_keeps_the_hosts_call_whole(linear, monkeypatch):
    """When our own code breaks, the call returns what it returns, uncounted, and the failure is a metric."""
    import torch

    with recorded() as telemetry:
        sink = outlet_of("torch").sink
        monkeypatch.setattr(sink, "_open", lambda _: 1 / 0)
        assert linear(torch.ones(1, 4)).shape == (1, 2)
        monkeypatch.setattr(sink, "begin", lambda *_, **__: 1 / 0)
        assert linear(torch.ones(1, 4)).shape == (1, 2)

        points = {point.attributes["where"]: point.value for point in telemetry.points("inference.self.errors")}
    assert points == {"begin": 1, "torch": 1}
    assert telemetry.spans() == []


def test_ends_a_call_whose_end_breaks(linear, monkeypatch):
    """When writing a call breaks, its span still ends and the next call is as always."""
    import torch

    with recorded() as telemetry:
        sink = outlet_of("torch").sink
        with monkeypatch.context() as broken:
            broken.setattr(sink._instruments, "record", lambda *_: 1 / 0)
            linear(torch.ones(1, 4))
            assert telemetry.count("inference.call.duration") == 0
        linear(torch.ones(1, 4))

        assert len(telemetry.spans()) == 2
        assert telemetry.count("inference.call.duration") == 1
    assert guard.error_counts() == {"metrics": 1}


def test_counts_what_was_dropped():
    """What had to be given up is a metric too."""
    guard.dropped("queue", 3)
    with recorded() as telemetry:
        (point,) = telemetry.points("inference.self.dropped")

    assert (point.value, dict(point.attributes)) == (3, {"where": "queue"})
