"""Torch's allocator, on an imitation of `torch.cuda`."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import pytest

from otel_inference.resources.reading import Reading, TorchMemoryReading
from otel_inference.resources.torch_memory import TorchMemoryProbe


class FakeCuda:
    """Has two devices of 100 bytes, of which one holds memory."""

    def __init__(self, *, initialized=True):
        """Hold 80 bytes on the first device."""
        self.initialized = initialized
        self.reserved = [80, 0]

    def is_initialized(self):
        """Tell, at any time."""
        return self.initialized

    def device_count(self):
        """Count both devices."""
        assert self.initialized, "this would initialise CUDA"
        return 2

    def get_device_properties(self, device):
        """Tell the size of one."""
        assert self.initialized, "this would initialise CUDA"
        return SimpleNamespace(total_memory=100)

    def memory_stats_as_nested_dict(self, device):
        """Tell what is held on one."""
        assert self.initialized, "this would initialise CUDA"
        figures = {"allocated_bytes": 60, "reserved_bytes": self.reserved[device], "inactive_split_bytes": 15}
        stats = {name: {"all": {"current": value}} for name, value in figures.items()}
        return {**stats, "num_alloc_retries": 3, "num_ooms": 1}


def test_tells_what_the_allocator_holds():
    """A device on which the process holds memory is told of, and its share of the device."""
    reading = TorchMemoryProbe({"torch": SimpleNamespace(cuda=FakeCuda())}).read(1.0)

    assert reading.torch_memory == (
        TorchMemoryReading(
            device=0,
            allocated_bytes=60,
            reserved_bytes=80,
            inactive_split_bytes=15,
            alloc_retries=3,
            ooms=1,
            total_bytes=100,
        ),
    )
    assert reading.utilization == {"gpu_memory": 0.8}


@pytest.mark.parametrize(
    "modules",
    [
        {},
        {"torch": None},
        {"torch": SimpleNamespace()},
        {"torch": SimpleNamespace(cuda=SimpleNamespace())},
        {"torch": SimpleNamespace(cuda=FakeCuda(initialized=False))},
    ],
)
def test_asks_nothing_before_the_host_uses_cuda(modules):
    """Torch absent, half imported or without CUDA begun is left alone."""
    assert TorchMemoryProbe(modules).read(1.0) == Reading(at_s=1.0)


def test_holding_nothing_is_no_share():
    """Where the allocator holds nothing, its devices are not told of."""
    cuda = FakeCuda()
    cuda.reserved = [0, 0]

    assert TorchMemoryProbe({"torch": SimpleNamespace(cuda=cuda)}).read(1.0) == Reading(at_s=1.0)


def test_the_real_torch_has_what_it_asks():
    """The names are torch's, and a process without CUDA reads nothing and stays without."""
    import torch

    probe = TorchMemoryProbe()
    assert probe.read(1.0) == Reading(at_s=1.0)
    probe.close()
    probe.reset_after_fork()

    assert not torch.cuda.is_initialized()
    assert torch.cuda.memory_stats_as_nested_dict() == {}
    assert torch.cuda.device_count
    assert torch.cuda.get_device_properties


def test_imports_no_torch():
    """Reading in a process that has not imported torch does not import it."""
    script = """
import os, sys
from otel_inference.resources.standard import standard_probes
for probe in standard_probes(os.environ):
    probe.read(1.0)
    probe.close()
print("torch" in sys.modules, "pynvml" in sys.modules)
"""
    out = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout

    assert out.split() == ["False", "False"]
