"""All probes of this package, in the order in which they are believed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from otel_inference.resources.accelerator import AcceleratorProbe
from otel_inference.resources.cpu import CpuProbe
from otel_inference.resources.gc_pause import GcPauseProbe
from otel_inference.resources.heartbeat import HeartbeatProbe
from otel_inference.resources.memory import MemoryProbe
from otel_inference.resources.process_tree import ProcessTree
from otel_inference.resources.torch_memory import TorchMemoryProbe

if TYPE_CHECKING:
    from collections.abc import Mapping

    from otel_inference.resources.reading import Probe


def standard_probes(environ: Mapping[str, str], *, root: str = "/") -> tuple[Probe, ...]:
    """New probes for one sampler; making them reads nothing.

    Args:
        environ: Usually `os.environ`.
        root: The folder that stands for `/`.
    """
    tree = ProcessTree()
    return (
        CpuProbe(root=root, tree=tree),  # first, so that its counters are read when the reading is stamped
        MemoryProbe(root=root, tree=tree),
        AcceleratorProbe(environ, pids=tree.pids),
        TorchMemoryProbe(),
        GcPauseProbe(),
        HeartbeatProbe(),
    )
