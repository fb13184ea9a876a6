"""What holds of the Collector files whether or not a Collector is there to load them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from tests.collector_config import names
from tests.collector_config.collector import FILES, KINDS, documents, kind_of, merged

from otel_inference import semconv
from otel_inference.sampling import keeping

OPTIONS = yaml.safe_load(Path(__file__).with_name("options.yaml").read_text())
ALONE = [files for files in FILES if len(files) == 1]


def unknown(value, options, path):
    """The paths in `value` that `options` does not have; what is listed there with nothing under it may be anything."""
    if isinstance(value, list):
        return [found for each in value for found in unknown(each, options, path)]
    if not isinstance(value, dict) or options is None:
        return []
    found = []
    for key, under in value.items():
        if key not in options and "*" not in options:
            found.append(f"{path}::{key}")
        else:
            found += unknown(under, options.get(key, options.get("*")), f"{path}::{key}")
    return found


@pytest.mark.parametrize("files", FILES, ids=" + ".join)
def test_every_option_is_one_that_its_component_has(files):
    """Components and options are those of the list, which says where each was looked up."""
    config = merged(files)
    found = unknown(config["service"], OPTIONS["service"], "service")
    for kind in KINDS:
        for name, value in config.get(kind, {}).items():
            assert kind_of(name) in OPTIONS[kind], f"{kind}/{name}"
            found += unknown(value, OPTIONS[kind][kind_of(name)], name)
    assert found == []


def test_an_option_that_is_not_listed_is_found():
    """The comparison looks into lists and below every level."""
    options = {"policies": {"name": None, "latency": {"threshold_ms": None}}, "any": {"*": {"of": None}}}
    value = {"policies": [{"name": "slow", "latency": {"threshold": 1}}], "any": {"a": {"of": 1, "to": 2}}}
    assert unknown(value, options, "x") == ["x::policies::latency::threshold", "x::any::a::to"]


def test_no_option_is_listed_that_no_file_uses():
    """The list stays as long as what it is there for."""
    kinds = {kind: {kind_of(name) for files in FILES for name in merged(files).get(kind, {})} for kind in KINDS}
    assert {kind: set(OPTIONS[kind]) for kind in KINDS} == kinds


def test_every_collector_is_the_version_that_options_were_looked_up_for():
    """Compose, Kubernetes and the README name one version of contrib."""
    texts = [path.read_text() for path in (*sorted(names.ROOT.rglob("*.yaml")), names.ROOT / "README.md")]
    versions = set(re.findall(r"(?:opentelemetry-collector-contrib:|otelcol-contrib )(\d[\d.]*\d)", "".join(texts)))
    assert versions == {OPTIONS["version"]}


@pytest.mark.parametrize("files", FILES, ids=" + ".join)
def test_a_collector_file_hangs_together(files):
    """Pipelines use what is defined, and a tier's own file defines nothing that no pipeline uses."""
    config = merged(files)
    service = config["service"]
    assert set(service["extensions"]) == set(config["extensions"])
    connectors = set(config.get("connectors", {}))
    for kind in ("receivers", "processors", "exporters"):
        used = {name for pipeline in service["pipelines"].values() for name in pipeline[kind]}
        assert used - connectors <= set(config[kind]), kind
        if files in ALONE:
            assert set(config[kind]) <= used, kind


@pytest.mark.parametrize("files", FILES, ids=" + ".join)
def test_an_overlay_uses_what_it_defines(files):
    """Each component that an overlay brings is in a pipeline."""
    pipelines = merged(files)["service"]["pipelines"].values()
    used = {
        name for pipeline in pipelines for kind in ("receivers", "processors", "exporters") for name in pipeline[kind]
    }
    for overlay in files[1:]:
        brought = {name for kind in KINDS for name in documents(overlay)[0].get(kind, {})}
        assert brought <= used


@pytest.mark.parametrize("files", FILES, ids=" + ".join)
def test_processors_stand_in_their_order(files):
    """Memory is limited before anything else is done, and batches are made last."""
    config = merged(files)
    connectors = set(config.get("connectors", {}))
    for name, pipeline in config["service"]["pipelines"].items():
        processors = pipeline["processors"]
        if not set(pipeline["receivers"]) & connectors:
            assert processors[0] == "memory_limiter", name
        assert "batch" not in processors[:-1], name


@pytest.mark.parametrize("files", [files for files in FILES if files[0] == "agent.yaml"], ids=" + ".join)
def test_the_agent_keeps_everything_on_disk_until_it_is_taken(files):
    """Each exporter of the agent queues to storage and retries for ever, and nothing batches in memory before it."""
    config = merged(files)
    for pipeline in config["service"]["pipelines"].values():
        assert "batch" not in pipeline["processors"]
        for name in pipeline["exporters"]:
            exporter = config["exporters"][name]
            assert exporter["sending_queue"]["storage"] in config["service"]["extensions"]
            assert exporter["sending_queue"]["sizer"] == "bytes"
            assert exporter["retry_on_failure"]["max_elapsed_time"] == "0s"


@pytest.mark.parametrize("files", FILES, ids=" + ".join)
def test_what_is_sent_at_once_is_taken(files):
    """Batches for gRPC stay below the 4 MiB that a receiver takes by default, and those for Kafka below its limit."""
    for name, exporter in merged(files)["exporters"].items():
        batch = exporter.get("sending_queue", {}).get("batch")
        limits = {"otlp": 4 * 2**20, "kafka": exporter.get("producer", {}).get("max_message_bytes")}
        if kind_of(name) in limits:
            assert batch["sizer"] == "bytes"
            assert batch["max_size"] < limits[kind_of(name)]


def test_an_agent_shares_out_over_all_replicas():
    """It sends to every address of the gateway's name in turn, not to the first alone."""
    assert merged(["agent.yaml"])["exporters"]["otlp"]["balancer_name"] == "round_robin"


@pytest.mark.parametrize("files", [files for files in FILES if files[0] == "gateway.yaml"], ids=" + ".join)
def test_traces_meet_before_they_are_judged(files):
    """What reaches the tail sampling was shared out by trace id, by the gateway itself or by Kafka's partitions."""
    config = merged(files)
    pipelines = config["service"]["pipelines"]
    assert config["exporters"]["loadbalancing"]["routing_key"] == "traceID"
    assert pipelines["traces/in"]["exporters"] == ["loadbalancing"]
    judged = [pipeline for pipeline in pipelines.values() if "tail_sampling" in pipeline["processors"]]
    (sources,) = [pipeline["receivers"] for pipeline in judged]
    assert sources in (["otlp/routed"], ["kafka"])
    if sources == ["kafka"]:
        assert merged(["agent.yaml", "overlays/kafka-agent.yaml"])["exporters"]["kafka"]["partition_traces_by_id"]


def test_a_gateway_alone_is_its_only_replica():
    """Left alone it shares out to the one address that it listens on: a name with two would lose half of the traces."""
    config = merged(["gateway.yaml"])
    hostname = config["exporters"]["loadbalancing"]["resolver"]["dns"]["hostname"]
    listening = config["receivers"]["otlp/routed"]["protocols"]["grpc"]["endpoint"]
    assert hostname.rpartition(":-")[2] == "127.0.0.1}"
    assert listening.rpartition(":")[0].rpartition(":-")[2] == "127.0.0.1}"


def policies():
    """The policies of the tail sampling by name."""
    return {each["name"]: each for each in merged(["gateway.yaml"])["processors"]["tail_sampling"]["policies"]}


def test_the_gateway_keeps_what_the_process_kept():
    """The tail sampling knows the attribute and both reasons of the process's own tail keep."""
    assert policies()["kept-by-the-process"]["string_attribute"] == {
        "key": semconv.KEPT_BY,
        "values": [keeping.ERROR, keeping.SLOW],
    }


def test_the_gateway_does_not_thin_out_what_was_sampled_already():
    """By default every trace is kept: a second ratio would make each span stand for fewer calls than it says."""
    assert policies()["the-rest"]["probabilistic"]["sampling_percentage"].endswith(":-100}")


def test_a_policy_asks_for_attributes_that_the_package_writes():
    """The attribute that a condition compares is in `semconv.py`, so that it can be true."""
    conditions = [
        condition for each in policies().values() for condition in each.get("ottl_condition", {}).get("span", ())
    ]
    asked = set(re.findall(r'attributes\["([^"]+)"\]', " ".join(conditions)))
    assert asked == {semconv.ACTION_NAME, semconv.QUEUE_DURATION}


def test_span_metrics_count_calls_that_were_sent_anyway_once():
    """Spans that stand for no call are left out, and those that stand for one lose the threshold that says more."""
    config = merged(["gateway.yaml", "overlays/spanmetrics.yaml"])
    weight = f'attributes["{semconv.ADJUSTED_COUNT}"]'
    assert config["processors"]["filter/counted-elsewhere"]["traces"]["span"] == [f"{weight} == 0"]
    ((statement,),) = [
        each["statements"] for each in config["processors"]["transform/counted-once"]["trace_statements"]
    ]
    assert statement == f'set(trace_state["ot"], "th:0") where {weight} == 1'
    pipelines = config["service"]["pipelines"]
    assert pipelines["traces/measured"]["processors"][1:] == ["filter/counted-elsewhere", "transform/counted-once"]
    assert not {"filter/counted-elsewhere", "transform/counted-once"} & set(pipelines["traces/routed"]["processors"])


def test_the_object_store_keeps_signals_apart():
    """What the agent writes of a signal is what the gateway reads as that signal, from a queue of its own."""
    agent = merged(["agent.yaml", "overlays/objects-agent.yaml"])
    gateway = merged(["gateway.yaml", "overlays/objects-gateway.yaml"])
    prefixes, queues = set(), set()
    for signal in ("traces", "metrics", "logs"):
        (written,) = agent["service"]["pipelines"][signal]["exporters"]
        (read,) = gateway["service"]["pipelines"]["traces/in" if signal == "traces" else signal]["receivers"]
        exporter, receiver = agent["exporters"][written], gateway["receivers"][read]
        assert exporter["s3uploader"]["s3_prefix"] == receiver["s3downloader"]["s3_prefix"] == signal
        assert exporter["s3uploader"]["s3_bucket"] == receiver["s3downloader"]["s3_bucket"]
        assert exporter["marshaler"] == "otlp_proto"
        prefixes.add(receiver["s3downloader"]["s3_prefix"])
        queues.add(receiver["sqs"]["queue_url"])
    assert len(queues) == 3
    assert not any(one != other and one.startswith(other) for one in prefixes for other in prefixes)


def test_the_gateway_waits_longer_than_parts_of_a_trace_come_apart():
    """By way of objects, a verdict waits for a flush of the agents beyond what it waits for calls, and holds as much."""
    agent = merged(["agent.yaml", "overlays/objects-agent.yaml"])["exporters"]["awss3/traces"]
    straight = merged(["gateway.yaml"])["processors"]["tail_sampling"]
    objects = merged(["gateway.yaml", "overlays/objects-gateway.yaml"])["processors"]["tail_sampling"]
    flush_s = seconds(agent["sending_queue"]["batch"]["flush_timeout"])
    wait_s = seconds(objects["decision_wait"])
    assert wait_s >= seconds(straight["decision_wait"]) + flush_s
    assert objects["num_traces"] / wait_s >= straight["num_traces"] / seconds(straight["decision_wait"])


def seconds(duration):
    """A duration of Go's in seconds."""
    return int(duration.removesuffix("s"))
