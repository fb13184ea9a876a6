"""Devices, on an imitation of NVML."""

from __future__ import annotations

import inspect

import pytest

from otel_inference.resources.accelerator import AcceleratorProbe, visible_devices
from otel_inference.resources.reading import AcceleratorReading, Reading

GIB = 1024**3
UUIDS = ["GPU-aaaa-0", "GPU-aabb-1", "GPU-cccc-2"]


@pytest.fixture
def probe_of(nvml):
    """Gives a probe of these devices, under `CUDA_VISIBLE_DEVICES` if given."""

    def make(*devices, visible=None, pids=(1,)):
        nvml.devices.extend(devices)
        environ = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
        return AcceleratorProbe(environ, pids=lambda _: pids, load=lambda: nvml)

    return make


def test_tells_all_of_a_device(nvml, probe_of):
    """Every figure comes in the unit of its convention."""
    probe = probe_of(nvml.Device("GPU-a", gpu=75, used_gib=20, pids=(1,), reasons=0x1 | 0x4 | 0x40))
    reading = probe.read(0.0)

    assert reading.accelerators == (
        AcceleratorReading(
            uuid="GPU-a",
            name="Imitation 80GB",
            vendor="NVIDIA",
            is_ours=True,
            utilization_ratio=0.75,
            memory_used_bytes=20 * GIB,
            memory_limit_bytes=80 * GIB,
            power_w=250.5,
            energy_j=7.0,
            temperature_c=61,
            clocks_limited_by=("power_cap", "thermal"),
            ecc_corrected=4,
            ecc_uncorrected=1,
        ),
    )
    assert reading.utilization == {"gpu": 0.75, "gpu_memory": 0.25}


def test_the_fullest_device_counts(nvml, probe_of):
    """The process is as busy as its busiest device and as full as its fullest."""
    probe = probe_of(nvml.Device("GPU-a", gpu=10, used_gib=60), nvml.Device("GPU-b", gpu=90, used_gib=40))

    assert probe.read(0.0).utilization == {"gpu": 0.9, "gpu_memory": 0.75}


def test_devices_of_others_do_not_count(nvml, probe_of):
    """Where the driver knows which device is ours, a neighbour's is told of but does not count."""
    ours = nvml.Device("GPU-a", gpu=10, used_gib=20, pids=(7, 8))
    theirs = nvml.Device("GPU-b", gpu=100, used_gib=80, pids=(9,))
    reading = probe_of(ours, theirs, pids=(8,)).read(0.0)

    assert reading.utilization == {"gpu": 0.1, "gpu_memory": 0.25}
    assert [device.is_ours for device in reading.accelerators] == [True, False]


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        (None, [0, 1, 2]),
        ("", []),
        ("2,0", [2, 0]),
        (" 1 , 2 ", [1, 2]),
        ("0,0", [0]),
        ("0,-1,1", [0]),
        ("1,7,0", [1]),
        ("1gpu,2", [1, 2]),
        ("nothing", []),
        ("GPU-cccc-2,GPU-aaaa", [2, 0]),
        ("GPU-aa", []),  # of two devices
        ("GPU-cccc,GPU-dddd,0", [2]),
        ("MIG-1234", ["MIG-1234"]),
    ],
)
def test_sees_what_cuda_shows(visible, expected):
    """Indices, UUIDs, their beginnings and parts are understood as CUDA does, up to the first that is none."""
    assert visible_devices(visible, UUIDS) == expected


def test_reads_visible_devices_only(nvml, probe_of):
    """A device that CUDA hides from the process is not asked."""
    devices = [nvml.Device(uuid, gpu=10 * index) for index, uuid in enumerate(UUIDS)]
    reading = probe_of(*devices, visible="GPU-cccc,1").read(0.0)

    assert [device.uuid for device in reading.accelerators] == ["GPU-cccc-2", "GPU-aabb-1"]


def test_a_part_of_a_device_has_no_utilization(nvml, probe_of):
    """A MIG part tells its memory only; what it cannot tell is unknown, not 0."""
    part = nvml.parts["MIG-1"] = nvml.Device("MIG-1", used_gib=8)
    part.errors = {"nvmlDeviceGetUtilizationRates": 3, "nvmlDeviceGetPowerUsage": 4, "nvmlDeviceGetTotalEccErrors": 13}
    reading = probe_of(visible="MIG-1").read(0.0)

    assert reading.utilization == {"gpu_memory": 0.1}
    (device,) = reading.accelerators
    assert (device.utilization_ratio, device.power_w, device.ecc_corrected) == (None, None, None)


def test_asks_older_drivers_by_the_older_name(nvml, probe_of):
    """What limits the clocks is told by drivers and modules that call it otherwise."""
    device = nvml.Device("GPU-a", reasons=0x8)
    device.errors = {"nvmlDeviceGetCurrentClocksEventReasons": 13}
    assert probe_of(device).read(0.0).accelerators[0].clocks_limited_by == ("hardware",)
    del nvml.nvmlDeviceGetCurrentClocksEventReasons

    assert probe_of().read(0.0).accelerators[0].clocks_limited_by == ("hardware",)


def test_a_lost_device_is_left_alone_and_tried_again(nvml, probe_of, failures):
    """One device's failure leaves the others, and after a while it is looked up anew."""
    lost, well = nvml.Device("GPU-a", gpu=90), nvml.Device("GPU-b", gpu=10)
    probe = probe_of(lost, well)
    probe.read(0.0)
    lost.lost = True
    assert probe.read(1.0).utilization["gpu"] == 0.1
    probe.read(2.0)
    assert failures() == {"probe.accelerator.device": 1}
    lost.lost = False

    assert probe.read(30.0).utilization["gpu"] == 0.1
    assert probe.read(31.0).utilization["gpu"] == 0.9


def test_a_device_lost_from_the_beginning(nvml, probe_of, failures):
    """A device that cannot even be named keeps its index, so that the others keep theirs."""
    lost, well = nvml.Device("GPU-a", gpu=90), nvml.Device("GPU-b", gpu=10)
    lost.lost = True

    assert probe_of(lost, well, visible="1").read(0.0).utilization["gpu"] == 0.1
    assert failures() == {}


def test_a_failed_beginning_leaves_no_session(nvml, probe_of):
    """When the devices cannot be counted, the session is given back and the next reading begins anew."""
    probe = probe_of(nvml.Device("GPU-a", gpu=50))
    nvml.count_error = 999
    with pytest.raises(nvml.NVMLError):
        probe.read(0.0)
    assert nvml.sessions == 0
    nvml.count_error = None

    assert probe.read(1.0).utilization["gpu"] == 0.5


@pytest.mark.parametrize("code", [9, 12])
def test_is_off_without_a_driver(nvml, probe_of, code):
    """A machine without such devices is asked once."""
    nvml.init_error = code
    probe = probe_of()
    probe.read(0.0)

    assert probe.read(1.0) == Reading(at_s=1.0)
    assert nvml.inits == 1


def test_other_failures_of_the_driver_are_failures(nvml, probe_of):
    """A driver that is there and refuses is tried again."""
    nvml.init_error = 18
    probe = probe_of(nvml.Device("GPU-a"))
    with pytest.raises(nvml.NVMLError):
        probe.read(0.0)
    nvml.init_error = None

    assert len(probe.read(1.0).accelerators) == 1


def test_is_off_without_the_module():
    """The module is optional and looked for once."""
    looked = []

    def load():
        looked.append(1)
        raise ImportError

    probe = AcceleratorProbe({}, load=load)
    assert probe.read(0.0) == probe.read(0.0) == Reading(at_s=0.0)
    assert looked == [1]


def test_loads_nothing_where_no_device_is_visible():
    """A process that is shown no device does not load the module."""
    probe = AcceleratorProbe({"CUDA_VISIBLE_DEVICES": " "}, load=lambda: pytest.fail("loaded"))

    assert probe.read(0.0) == Reading(at_s=0.0)


def test_one_session_begun_and_ended(nvml, probe_of):
    """However often it reads, there is one session, and none after its end."""
    probe = probe_of(nvml.Device("GPU-a"))
    for at_s in range(5):
        probe.read(float(at_s))
    assert nvml.sessions == 1
    probe.close()
    probe.close()

    assert (nvml.sessions, nvml.inits) == (0, 1)


def test_a_forked_child_has_a_session_of_its_own(nvml, probe_of):
    """The parent's session is not ended by the child."""
    probe = probe_of(nvml.Device("GPU-a"))
    probe.read(0.0)
    probe.reset_after_fork()
    assert nvml.sessions == 1
    probe.read(1.0)

    assert nvml.sessions == 2


def test_imitates_the_real_module(nvml):
    """Every function that the imitation has, the real module has with as many arguments, and every number."""
    real = pytest.importorskip("pynvml")
    for name, ours in vars(nvml).items():
        if name.startswith("NVML_"):
            assert getattr(real, name) == ours
        elif name.startswith("nvml"):
            wanted = len(inspect.signature(ours).parameters)
            offered = inspect.signature(inspect.unwrap(getattr(real, name))).parameters.values()
            if all(each.kind is each.POSITIONAL_OR_KEYWORD for each in offered):
                required = sum(each.default is each.empty for each in offered)
                assert required <= wanted <= len(offered)
    assert real.NVMLError(real.NVML_ERROR_GPU_IS_LOST).value == nvml.NVML_ERROR_GPU_IS_LOST
