"""What torch's caching allocator holds, asked only where the host has begun to use CUDA itself.

Nothing here may initialise CUDA: that takes seconds and hundreds of MiB, and breaks a later fork. The
figures are the allocator's own, kept on the host, so asking for them waits for no device. Tested on an
imitation of `torch.cuda` (which ROCm builds share): no accelerator was at hand.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from otel_inference.resources.reading import GPU_MEMORY, Reading, TorchMemoryReading

if TYPE_CHECKING:
    from collections.abc import Mapping


class TorchMemoryProbe:
    """The allocator's figures on every device that it holds memory of.

    Its share of the fullest device stands for `gpu_memory` where no other probe knows better, as on
    devices that NVML does not know.

    Args:
        modules: Usually `sys.modules`; torch is never imported, only found.
    """

    name = "torch_memory"

    def __init__(self, modules: Mapping[str, Any] = sys.modules) -> None:
        self._modules = modules

    def read(self, at_s: float) -> Reading:
        """See `reading.Probe.read`."""
        cuda = getattr(self._modules.get("torch"), "cuda", None)
        is_initialized = getattr(cuda, "is_initialized", None)  # absent while torch is being imported
        if cuda is None or is_initialized is None or not is_initialized():
            return Reading(at_s=at_s)
        devices = tuple(
            _reading(cuda, device, stats)
            for device in range(cuda.device_count())
            if (stats := cuda.memory_stats_as_nested_dict(device)) and stats["reserved_bytes"]["all"]["current"]
        )
        fullest = max((each.reserved_bytes / each.total_bytes for each in devices if each.total_bytes), default=None)
        return Reading(
            at_s=at_s,
            utilization={} if fullest is None else {GPU_MEMORY: fullest},
            torch_memory=devices,
        )

    def close(self) -> None:
        """See `reading.Probe.close`."""

    def reset_after_fork(self) -> None:
        """See `reading.Probe.reset_after_fork`; a forked child has no CUDA, which `is_initialized` knows."""


def _reading(cuda: Any, device: int, stats: Mapping[str, Any]) -> TorchMemoryReading:
    return TorchMemoryReading(
        device=device,
        allocated_bytes=stats["allocated_bytes"]["all"]["current"],
        reserved_bytes=stats["reserved_bytes"]["all"]["current"],
        inactive_split_bytes=stats["inactive_split_bytes"]["all"]["current"],
        alloc_retries=stats["num_alloc_retries"],
        ooms=stats["num_ooms"],
        total_bytes=cuda.get_device_properties(device).total_memory,
    )
