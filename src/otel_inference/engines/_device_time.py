"""Time on an accelerator, by pairs of events that are asked later; nothing is ever waited for.

Written against `torch.cuda` (which ROCm builds share) and tested on an imitation of its events: no
accelerator was at hand. An event is a mark in the device's queue; `query()` says whether the device
has passed it, and only then the time between two marks can be read without waiting.
"""

from __future__ import annotations

import sys
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from otel_inference import guard

if TYPE_CHECKING:
    from otel_inference.call import DeviceTimer

_POOL_SIZE: Final = 64
_pools: dict[int, deque[Any]] = {}
"""Used events by device; making one costs more than recording one."""


def start_timer(device: Any) -> DeviceTimer | None:
    """A timer begun in the queue that `device` works on; `None` where there is nothing to time.

    Args:
        device: A `torch.device`.
    """
    if getattr(device, "type", None) != "cuda":  # numpy's arrays have a device too, which is a string
        return None
    try:
        cuda = sys.modules["torch"].cuda
        # While a graph is recorded, the marks would become part of it.
        return None if cuda.is_current_stream_capturing() else _CudaTimer(cuda, device)
    except Exception:  # noqa: BLE001 - a device that refuses is a call without device time
        guard.failed("device_time")
        return None


class _CudaTimer:
    """Two marks in a CUDA stream."""

    __slots__ = ("_elapsed_s", "_end", "_pool", "_start", "_stopped", "_stream")

    def __init__(self, cuda: Any, device: Any) -> None:
        self._stream = cuda.current_stream(device)
        self._pool = _pools.setdefault(self._stream.device_index, deque(maxlen=_POOL_SIZE))
        self._start = self._event(cuda)
        self._end = self._event(cuda)
        self._elapsed_s: float | None = None
        self._stopped = False
        self._start.record(self._stream)

    def _event(self, cuda: Any) -> Any:
        try:
            return self._pool.pop()
        except IndexError:
            return cuda.Event(enable_timing=True)

    def stop(self) -> None:
        """See `call.DeviceTimer.stop`."""
        try:
            self._end.record(self._stream)
            self._stopped = True
        except Exception:  # noqa: BLE001 - a device that has failed is a call without device time
            guard.failed("device_time")

    def waits(self) -> bool:
        """See `call.DeviceTimer.waits`."""
        return self.elapsed_s() is None and self._stopped

    def elapsed_s(self) -> float | None:
        """See `call.DeviceTimer.elapsed_s`."""
        # An event that was never recorded answers that it has been passed.
        if not self._stopped:
            return self._elapsed_s
        try:
            if self._end.query():
                self._stopped = False
                self._elapsed_s = self._start.elapsed_time(self._end) / 1e3
                self._pool.extend((self._start, self._end))
                self._start = self._end = None
        except Exception:  # noqa: BLE001 - a device that has failed is a call without device time
            self._stopped = False
            guard.failed("device_time")
        return self._elapsed_s
