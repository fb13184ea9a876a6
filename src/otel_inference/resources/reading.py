"""What the probes saw at one time, and what a probe is."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

# Names of resources: keys of `Reading.utilization` and values of the attribute `inference.resource`.
CPU: Final = "cpu"
MEMORY: Final = "memory"
GPU: Final = "gpu"
GPU_MEMORY: Final = "gpu_memory"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pressure:
    """How much of the last ten seconds tasks stood waiting for a resource (Linux PSI)."""

    some_avg10_ratio: float
    """Share of time in which at least one task waited."""
    full_avg10_ratio: float | None = None
    """Share of time in which no task could run; `None` where the kernel does not say."""
    is_own_group: bool = False
    """Whether this is about the process's control group; else it is about the whole machine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceleratorReading:
    """One device, with what its attributes are called in the `hw.*` conventions."""

    uuid: str
    """`hw.id`."""
    name: str
    """`hw.name`."""
    vendor: str
    """`hw.vendor`."""
    is_ours: bool = False
    """Whether the driver lists a process of ours on it; it cannot across process namespaces."""
    utilization_ratio: float | None = None
    """`hw.gpu.utilization`: share of the last sample period in which a kernel ran."""
    memory_used_bytes: int | None = None
    """`hw.gpu.memory.usage`, by all processes."""
    memory_limit_bytes: int | None = None
    """`hw.gpu.memory.limit`."""
    power_w: float | None = None
    """`hw.power`."""
    energy_j: float | None = None
    """`hw.energy`, since the driver was loaded."""
    temperature_c: float | None = None
    clocks_limited_by: tuple[str, ...] | None = None
    """What holds its clocks down now: `power_cap`, `power_brake`, `thermal`, `hardware`; idling is not in it."""
    ecc_corrected: int | None = None
    """Memory errors since the driver was loaded."""
    ecc_uncorrected: int | None = None

    @property
    def memory_utilization_ratio(self) -> float | None:
        """`hw.gpu.memory.utilization`."""
        if self.memory_used_bytes is None or not self.memory_limit_bytes:
            return None
        return self.memory_used_bytes / self.memory_limit_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class TorchMemoryReading:
    """What torch's caching allocator holds on one device, in this process."""

    device: int
    """Index as torch counts."""
    allocated_bytes: int
    reserved_bytes: int
    inactive_split_bytes: int
    """Reserved, but in pieces that can only serve smaller requests."""
    alloc_retries: int
    """Times it had to free its cache to find room, since the process began; each waits for the device."""
    ooms: int
    """Times it found none, since the process began."""
    total_bytes: int
    """The device's memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What was seen at one time. What could not be read is `None` or absent, never 0."""

    at_s: float
    """When, on the clock of whoever asked."""
    utilization: Mapping[str, float] = field(default_factory=dict)
    """Used over available, by resource."""

    cpu_used_cores: float | None = None
    """Mean since the last reading, of the process and its descendants."""
    cpu_limit_cores: float | None = None
    """What it may use: the smallest of quota, affinity and machine."""
    cpu_throttled_ratio: float | None = None
    """Share of the quota's periods since the last reading that ended with the process stopped."""
    cpu_throttled_s_per_s: float | None = None
    """Time it was stopped, summed over processors, so it may exceed 1."""
    cpu_busy_ratio: float | None = None
    """Share of time in which the processors that it may run on were not idle, whoever used them."""
    cpu_pressure: Pressure | None = None

    rss_bytes: int | None = None
    """Resident memory of the process and its descendants. Pages that they share count for each, but it is never taken
    for more than their control group, or the machine, has in use."""
    memory_limit_bytes: int | None = None
    """What it may use: the smallest of the control group's limits and the machine."""
    memory_high_bytes: int | None = None
    """Above this the kernel slows the process down to reclaim memory."""
    memory_working_set_bytes: int | None = None
    """The whole control group's memory, without file pages that can be dropped."""
    memory_limit_hits: int | None = None
    """Times since the last reading that the group ran into its limit and memory had to be reclaimed."""
    memory_pressure: Pressure | None = None

    gc_pause_s: float | None = None
    """Time in garbage collections since the last reading, in which no other thread could run Python."""
    gc_pause_ratio: float | None = None
    """The same as a share of the time passed."""
    gc_pause_max_s: float | None = None
    """The longest of them."""

    interpreter_delay_s: float | None = None
    """Median time by which short waits of our thread ended late: it waited for the interpreter, seldom for a processor."""

    call_lock_ratio: float | None = None
    """Share of the running calls' time in which their threads waited for another thread, other than for the interpreter."""
    call_pause_ratio: float | None = None
    """Share of it in which they waited for anything else: input, output, a time."""

    accelerators: tuple[AcceleratorReading, ...] = ()
    torch_memory: tuple[TorchMemoryReading, ...] = ()


class Probe(Protocol):
    """Something that reads. All its methods are called by one thread at a time; `read` may raise."""

    @property
    def name(self) -> str:
        """What its failures are counted as: `probe.<name>`."""
        ...

    def read(self, at_s: float) -> Reading:
        """What it sees now, with all other fields left empty."""
        ...

    def close(self) -> None:
        """Leave nothing behind. It may be read again afterwards, and then begins anew."""
        ...

    def reset_after_fork(self) -> None:
        """Forget what belongs to the parent process, without touching it."""
        ...


_PARTS: Final = tuple(each.name for each in fields(Reading) if each.name not in {"at_s", "utilization"})


def merged(at_s: float, parts: Iterable[Reading]) -> Reading:
    """One reading of all that the parts saw; of two that saw the same thing the earlier one is believed.

    >>> merged(1.0, [Reading(at_s=1.0, rss_bytes=5), Reading(at_s=1.0, utilization={"cpu": 0.5})]).rss_bytes
    5
    """
    utilization: dict[str, float] = {}
    values: dict[str, Any] = {}
    for part in parts:
        utilization = {**part.utilization, **utilization}
        for name in _PARTS:
            value = getattr(part, name)
            if value is not None and value != () and name not in values:
                values[name] = value
    return Reading(at_s=at_s, utilization=utilization, **values)
