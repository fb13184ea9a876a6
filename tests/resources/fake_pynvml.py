"""Imitates the part of `nvidia-ml-py` that the probe uses: names, units, errors as in version 13.615.

`test_imitates_the_real_module` compares it with the real one where that is installed.
"""

from __future__ import annotations

from types import SimpleNamespace

NVML_ERROR_UNINITIALIZED = 1
NVML_ERROR_NOT_SUPPORTED = 3
NVML_ERROR_NO_PERMISSION = 4
NVML_ERROR_NOT_FOUND = 6
NVML_ERROR_DRIVER_NOT_LOADED = 9
NVML_ERROR_LIBRARY_NOT_FOUND = 12
NVML_ERROR_FUNCTION_NOT_FOUND = 13
NVML_ERROR_GPU_IS_LOST = 15
NVML_TEMPERATURE_GPU = 0
NVML_MEMORY_ERROR_TYPE_CORRECTED = 0
NVML_MEMORY_ERROR_TYPE_UNCORRECTED = 1
NVML_VOLATILE_ECC = 0

GIB = 1024**3


class NVMLError(Exception):
    """Carries NVML's code."""

    def __init__(self, value):
        """Keep the code."""
        super().__init__(value)
        self.value = value


class Device:
    """What one device answers; a code in `errors` is raised instead, by name of the function."""

    def __init__(self, uuid, *, gpu=0, used_gib=0, pids=(), name=b"Imitation 80GB", reasons=0):
        """Answer with these figures."""
        self.uuid = uuid
        self.name = name
        self.gpu = gpu
        self.used_gib = used_gib
        self.pids = pids
        self.reasons = reasons
        self.errors = {}
        self.lost = False


devices: list[Device] = []
parts: dict[str, Device] = {}
init_error = None
count_error = None
sessions = 0
inits = 0


def nvmlInit():  # noqa: N802
    """Begin a session."""
    global sessions, inits  # noqa: PLW0603
    inits += 1
    if init_error is not None:
        raise NVMLError(init_error)
    sessions += 1


def nvmlShutdown():  # noqa: N802
    """End a session."""
    global sessions  # noqa: PLW0603
    _check_open()
    sessions -= 1


def nvmlDeviceGetCount():  # noqa: N802
    """Count devices."""
    _check_open()
    if count_error is not None:
        raise NVMLError(count_error)
    return len(devices)


def nvmlDeviceGetHandleByIndex(index):  # noqa: N802
    """Find a device."""
    _check_open()
    device = devices[index]
    _answer(device, "nvmlDeviceGetHandleByIndex", None)
    return device


def nvmlDeviceGetHandleByUUID(uuid):  # noqa: N802
    """Find a device or a part of one."""
    _check_open()
    if uuid not in parts:
        raise NVMLError(NVML_ERROR_NOT_FOUND)
    return parts[uuid]


def nvmlDeviceGetUUID(handle):  # noqa: N802
    """Identify it."""
    return _answer(handle, "nvmlDeviceGetUUID", handle.uuid)


def nvmlDeviceGetName(handle):  # noqa: N802
    """Name it."""
    return _answer(handle, "nvmlDeviceGetName", handle.name)


def nvmlDeviceGetUtilizationRates(handle):  # noqa: N802
    """Tell percents."""
    return _answer(handle, "nvmlDeviceGetUtilizationRates", SimpleNamespace(gpu=handle.gpu, memory=1))


def nvmlDeviceGetMemoryInfo(handle):  # noqa: N802
    """Tell bytes."""
    used = handle.used_gib * GIB
    info = SimpleNamespace(total=80 * GIB, used=used, free=80 * GIB - used)
    return _answer(handle, "nvmlDeviceGetMemoryInfo", info)


def nvmlDeviceGetPowerUsage(handle):  # noqa: N802
    """Tell milliwatts."""
    return _answer(handle, "nvmlDeviceGetPowerUsage", 250_500)


def nvmlDeviceGetTotalEnergyConsumption(handle):  # noqa: N802
    """Tell millijoules."""
    return _answer(handle, "nvmlDeviceGetTotalEnergyConsumption", 7_000)


def nvmlDeviceGetTemperature(handle, sensor):  # noqa: N802
    """Tell degrees."""
    assert sensor == NVML_TEMPERATURE_GPU
    return _answer(handle, "nvmlDeviceGetTemperature", 61)


def nvmlDeviceGetCurrentClocksEventReasons(handle):  # noqa: N802
    """Tell bits."""
    return _answer(handle, "nvmlDeviceGetCurrentClocksEventReasons", handle.reasons)


def nvmlDeviceGetCurrentClocksThrottleReasons(handle):  # noqa: N802
    """Tell the same bits by the older name."""
    return _answer(handle, "nvmlDeviceGetCurrentClocksThrottleReasons", handle.reasons)


def nvmlDeviceGetTotalEccErrors(handle, errorType, counterType):  # noqa: N802, N803
    """Count memory errors."""
    assert counterType == NVML_VOLATILE_ECC
    return _answer(handle, "nvmlDeviceGetTotalEccErrors", (4, 1)[errorType])


def nvmlDeviceGetComputeRunningProcesses(handle):  # noqa: N802
    """List processes."""
    return _answer(
        handle,
        "nvmlDeviceGetComputeRunningProcesses",
        [SimpleNamespace(pid=pid, usedGpuMemory=1) for pid in handle.pids],
    )


def _answer(device, function, answer):
    """Answer, or fail as told."""
    _check_open()
    if device.lost:
        raise NVMLError(NVML_ERROR_GPU_IS_LOST)
    if function in device.errors:
        raise NVMLError(device.errors[function])
    return answer


def _check_open():
    """Refuse outside of a session."""
    if sessions < 1:
        raise NVMLError(NVML_ERROR_UNINITIALIZED)
