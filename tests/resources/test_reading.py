"""What probes saw, put together."""

from __future__ import annotations

from otel_inference.resources.reading import AcceleratorReading, Reading, merged


def test_keeps_what_each_part_saw():
    """A reading has every part's fields, and nothing for what no part saw."""
    device = AcceleratorReading(uuid="GPU-1", name="x", vendor="y")
    parts = [
        Reading(at_s=1.0, utilization={"cpu": 0.5}, cpu_throttled_ratio=0.0),
        Reading(at_s=1.0, utilization={"memory": 0.25}, rss_bytes=5),
        Reading(at_s=1.0, accelerators=(device,)),
    ]

    whole = merged(2.0, parts)
    assert whole == Reading(
        at_s=2.0,
        utilization={"cpu": 0.5, "memory": 0.25},
        cpu_throttled_ratio=0.0,
        rss_bytes=5,
        accelerators=(device,),
    )
    assert whole.gc_pause_s is None


def test_believes_the_earlier_of_two():
    """Where two parts saw the same thing, the first one's word stands."""
    parts = [
        Reading(at_s=1.0, utilization={"gpu_memory": 0.9}, rss_bytes=0),
        Reading(at_s=1.0, utilization={"gpu_memory": 0.1}, rss_bytes=9),
    ]

    assert merged(1.0, parts).utilization == {"gpu_memory": 0.9}
    assert merged(1.0, parts).rss_bytes == 0


def test_knows_no_share_of_an_unknown_limit():
    """A device that tells only one of its figures has no memory utilization."""
    assert AcceleratorReading(uuid="", name="", vendor="", memory_used_bytes=1).memory_utilization_ratio is None
    assert AcceleratorReading(uuid="", name="", vendor="", memory_limit_bytes=1).memory_utilization_ratio is None
