"""NVIDIA devices that the process may use, through NVML (`nvidia-ml-py`, optional).

Written against the API of `nvidia-ml-py` 13.615 and tested on an imitation of that module
(`tests/resources/fake_pynvml.py`): no accelerator was at hand. NVML is loaded at the first reading, on
the thread that reads; without the module, the driver or a visible device the probe reads nothing.
"""

from __future__ import annotations

import importlib
import os
import re
from typing import TYPE_CHECKING, Any, Final

from otel_inference import guard
from otel_inference.resources.reading import GPU, GPU_MEMORY, AcceleratorReading, Reading

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

VISIBLE_DEVICES: Final = "CUDA_VISIBLE_DEVICES"
_VENDOR: Final = "NVIDIA"
_RETRY_S: Final = 30.0

_CLOCK_LIMITS: Final = ((0x04, "power_cap"), (0x80, "power_brake"), (0x20 | 0x40, "thermal"), (0x08, "hardware"))
"""Bits of `nvmlClocksEventReason*`; being idle or set by the user is no limit."""


class _Device:
    """One visible device: how it is found, and its handle once it was."""

    __slots__ = ("handle", "key", "name", "retry_at_s", "uuid")

    def __init__(self, key: int | str) -> None:
        self.key = key
        """Index, or the UUID of a part of a device (MIG)."""
        self.handle: Any = None
        self.uuid = self.name = ""
        self.retry_at_s = float("-inf")


class AcceleratorProbe:
    """Utilization, memory, power and condition of each device that the process may use.

    The process's `gpu` and `gpu_memory` are those of the busiest and of the fullest device, because one
    full device fails a call whatever the others have left. Where the driver lists processes of ours on
    some devices, only these count, since a machine's other devices may serve others.

    Args:
        environ: Usually `os.environ`; says which devices are visible.
        pids: Processes that are ours, at a time.
        load: Gives the module `pynvml`.
    """

    name = "accelerator"

    def __init__(
        self,
        environ: Mapping[str, str],
        *,
        pids: Callable[[float], Collection[int]] = lambda _: (os.getpid(),),
        load: Callable[[], Any] = lambda: importlib.import_module("pynvml"),
    ) -> None:
        self._environ = environ
        self._pids = pids
        self._load = load
        self._nvml: Any = None
        self._is_off = False
        self._devices: list[_Device] = []

    def read(self, at_s: float) -> Reading:
        """See `reading.Probe.read`."""
        if not self._is_off and self._nvml is None:
            self._open()
        if self._nvml is None:
            return Reading(at_s=at_s)
        pids = frozenset(self._pids(at_s))
        seen = tuple(reading for each in self._devices if (reading := self._reading(each, at_s, pids)))
        return Reading(at_s=at_s, utilization=_utilization(seen), accelerators=seen)

    def close(self) -> None:
        """See `reading.Probe.close`."""
        nvml, self._nvml, self._devices, self._is_off = self._nvml, None, [], False
        if nvml is not None:
            nvml.nvmlShutdown()

    def reset_after_fork(self) -> None:
        """See `reading.Probe.reset_after_fork`; the parent's session is left alone and a new one begun."""
        self._nvml, self._devices, self._is_off = None, [], False

    def _open(self) -> None:
        visible = self._environ.get(VISIBLE_DEVICES)
        if visible is not None and not visible.strip():
            self._is_off = True
            return
        try:
            nvml = self._load()
        except ImportError:
            self._is_off = True
            return
        try:
            nvml.nvmlInit()
        except nvml.NVMLError as error:
            if error.value not in {nvml.NVML_ERROR_LIBRARY_NOT_FOUND, nvml.NVML_ERROR_DRIVER_NOT_LOADED}:
                raise
            self._is_off = True  # no such device in this machine
            return
        self._nvml = nvml
        try:
            uuids = [_uuid_at(nvml, index) for index in range(nvml.nvmlDeviceGetCount())]
        except nvml.NVMLError:
            self.close()  # to begin anew at the next reading
            raise
        self._devices = [_Device(key) for key in visible_devices(visible, uuids)]

    def _reading(self, device: _Device, at_s: float, pids: Collection[int]) -> AcceleratorReading | None:
        """What one device says; one that fails is left alone for a while and then looked up anew."""
        if at_s < device.retry_at_s:
            return None
        try:
            if device.handle is None:
                self._find(device)
            return _device_reading(self._nvml, device, pids)
        except self._nvml.NVMLError:
            device.handle = None
            device.retry_at_s = at_s + _RETRY_S
            guard.failed("probe.accelerator.device")
            return None

    def _find(self, device: _Device) -> None:
        nvml = self._nvml
        by = nvml.nvmlDeviceGetHandleByIndex if isinstance(device.key, int) else nvml.nvmlDeviceGetHandleByUUID
        handle = by(device.key)
        device.uuid = _as_text(nvml.nvmlDeviceGetUUID(handle))
        device.name = _as_text(nvml.nvmlDeviceGetName(handle))
        device.handle = handle


def visible_devices(visible: str | None, uuids: Sequence[str]) -> list[int | str]:
    """Which devices CUDA shows to the process: indices, and UUIDs of parts of devices (MIG).

    The first entry that names no device ends the list, as CUDA's manual says. Indices count as NVML
    counts, as torch assumes too; CUDA may order unlike devices by speed unless `CUDA_DEVICE_ORDER=PCI_BUS_ID`.

    Args:
        visible: The value of `CUDA_VISIBLE_DEVICES`; `None` where it is not set.
        uuids: Of all devices, by index; empty for one that does not tell.

    >>> visible_devices("1,GPU-aa,-1,0", ["GPU-aa0", "GPU-bb1"])
    [1, 0]
    """
    if visible is None:
        return list(range(len(uuids)))
    found: list[int | str] = []
    for entry in map(str.strip, visible.split(",")):
        key = _visible_device(entry, uuids)
        if key is None:
            break
        if key not in found:
            found.append(key)
    return found


def _visible_device(entry: str, uuids: Sequence[str]) -> int | str | None:
    if entry.startswith("MIG-"):
        return entry
    if entry.startswith("GPU-"):  # as many digits as make it unique
        matches = [index for index, uuid in enumerate(uuids) if uuid.startswith(entry)]
        return matches[0] if len(matches) == 1 else None
    digits = re.match(r"\+?(\d+)", entry)
    index = int(digits[1]) if digits else len(uuids)
    return index if index < len(uuids) else None


def _uuid_at(nvml: Any, index: int) -> str:
    try:
        return _as_text(nvml.nvmlDeviceGetUUID(nvml.nvmlDeviceGetHandleByIndex(index)))
    except nvml.NVMLError:
        return ""


def _device_reading(nvml: Any, device: _Device, pids: Collection[int]) -> AcceleratorReading:
    handle = device.handle
    rates = _told(nvml, "nvmlDeviceGetUtilizationRates", handle)
    memory = _told(nvml, "nvmlDeviceGetMemoryInfo", handle)
    power_mw = _told(nvml, "nvmlDeviceGetPowerUsage", handle)
    energy_mj = _told(nvml, "nvmlDeviceGetTotalEnergyConsumption", handle)
    reasons = _told(nvml, "nvmlDeviceGetCurrentClocksEventReasons", handle)
    if reasons is None:  # what it was called before driver 535
        reasons = _told(nvml, "nvmlDeviceGetCurrentClocksThrottleReasons", handle)
    since = nvml.NVML_VOLATILE_ECC
    return AcceleratorReading(
        uuid=device.uuid,
        name=device.name,
        vendor=_VENDOR,
        is_ours=any(each.pid in pids for each in _told(nvml, "nvmlDeviceGetComputeRunningProcesses", handle) or ()),
        utilization_ratio=None if rates is None else rates.gpu / 100,
        memory_used_bytes=None if memory is None else memory.used,
        memory_limit_bytes=None if memory is None else memory.total,
        power_w=None if power_mw is None else power_mw / 1e3,
        energy_j=None if energy_mj is None else energy_mj / 1e3,
        temperature_c=_told(nvml, "nvmlDeviceGetTemperature", handle, nvml.NVML_TEMPERATURE_GPU),
        clocks_limited_by=None if reasons is None else tuple(name for bits, name in _CLOCK_LIMITS if reasons & bits),
        ecc_corrected=_told(nvml, "nvmlDeviceGetTotalEccErrors", handle, nvml.NVML_MEMORY_ERROR_TYPE_CORRECTED, since),
        ecc_uncorrected=_told(
            nvml, "nvmlDeviceGetTotalEccErrors", handle, nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, since
        ),
    )


def _told(nvml: Any, function: str, *arguments: Any) -> Any:
    """What NVML answers; `None` where this device, driver or module cannot tell, which is no failure."""
    ask = getattr(nvml, function, None)
    if ask is None:
        return None
    try:
        return ask(*arguments)
    except nvml.NVMLError as error:
        if error.value in {
            nvml.NVML_ERROR_NOT_SUPPORTED,
            nvml.NVML_ERROR_NO_PERMISSION,
            nvml.NVML_ERROR_FUNCTION_NOT_FOUND,
        }:
            return None
        raise


def _utilization(seen: Sequence[AcceleratorReading]) -> dict[str, float]:
    counted = [each for each in seen if each.is_ours] or seen
    busy = [each.utilization_ratio for each in counted if each.utilization_ratio is not None]
    full = [ratio for each in counted if (ratio := each.memory_utilization_ratio) is not None]
    return {name: max(ratios) for name, ratios in ((GPU, busy), (GPU_MEMORY, full)) if ratios}


def _as_text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value  # modules before 11.5 gave bytes
