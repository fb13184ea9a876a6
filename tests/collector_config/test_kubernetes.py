"""Kubernetes manifests: accepted by the published schemas, and they say the same as what they run."""

from __future__ import annotations

import re

import kubernetes_validate
import pytest
from cloudcoil.models.keda import v1alpha1 as keda
from tests.collector_config import names
from tests.collector_config.collector import documents, merged
from tests.collector_config.test_structure import unknown

KUBERNETES = "1.31"
FILES = sorted((names.ROOT / "kubernetes").glob("*.yaml"))
ENV = {"name": None, "value": None, "valueFrom": {"fieldRef": {"fieldPath": None}}}
INSTRUMENTATION = {
    "apiVersion": None,
    "kind": None,
    "metadata": {"name": None, "namespace": None},
    "spec": {
        "env": ENV,
        "exporter": {"endpoint": None},
        "propagators": None,
        "python": {"image": None, "env": ENV},
    },
}
"""What the Operator's `Instrumentation` has of what is used: looked up in its `instrumentation_types.go`."""
OBJECTS = [
    pytest.param(document, id=f"{path.stem}-{document['kind']}")
    for path in FILES
    for document in documents(f"kubernetes/{path.name}")
]


def keda_says(document):
    """An object of KEDA as its schema understands it: what it does not know is gone."""
    return keda.ScaledObject.model_validate(document).model_dump(by_alias=True, exclude_unset=True, mode="json")


@pytest.mark.parametrize("document", OBJECTS)
def test_kubernetes_objects_fit_the_published_schemas(document):
    """Each object is accepted by the schema of its kind, with nothing in it that the schema does not know."""
    if document["kind"] == "ScaledObject":
        assert keda_says(document) == document
    elif document["kind"] == "Instrumentation":
        assert unknown(document, INSTRUMENTATION, "Instrumentation") == []
    else:
        kubernetes_validate.validate(document, KUBERNETES, strict=True)


def test_a_wrong_kubernetes_file_is_refused():
    """The validation can fail: a misspelt key is an error."""
    document = documents("kubernetes/serving.yaml")[0]
    document["spec"]["replica"] = 2
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(document, KUBERNETES, strict=True)


def test_a_wrong_object_of_keda_is_refused():
    """A misspelt key and a threshold that is a number are not what KEDA's schema knows."""
    document = documents("kubernetes/scaling-keda.yaml")[0]
    misspelt = document | {"spec": document["spec"] | {"pollingIntervals": 1}}
    assert keda_says(misspelt) != misspelt
    document["spec"]["triggers"][0]["metadata"]["threshold"] = 0.7
    with pytest.raises(ValueError, match="threshold"):
        keda_says(document)


def test_both_autoscalers_go_by_concurrency_and_queue_time():
    """KEDA and the HPA look at the same two figures against the same bounds."""
    triggers = {each["name"]: each for each in documents("kubernetes/scaling-keda.yaml")[0]["spec"]["triggers"]}
    assert set(triggers) == {"concurrency", "queue-time"}
    assert all(trigger["type"] == "prometheus" for trigger in triggers.values())
    pods, external = documents("kubernetes/scaling-hpa.yaml")[0]["spec"]["metrics"]
    assert pods["pods"]["metric"]["name"] in triggers["concurrency"]["metadata"]["query"]
    assert milli(pods["pods"]["target"]["averageValue"]) == float(triggers["concurrency"]["metadata"]["threshold"])
    assert milli(external["external"]["target"]["value"]) == float(triggers["queue-time"]["metadata"]["threshold"])


def test_what_the_adapter_is_to_offer_exists():
    """The series in the comment for prometheus-adapter are written by the package or by a rule."""
    text = (names.ROOT / "kubernetes" / "scaling-hpa.yaml").read_text()
    series = re.findall(r"seriesQuery: '([\w:]+)", text)
    assert len(series) == 2
    assert set(series) <= names.metrics() | names.recorded()
    metrics = documents("kubernetes/scaling-hpa.yaml")[0]["spec"]["metrics"]
    assert metrics[0]["pods"]["metric"]["name"] == series[0]
    assert f"as: {metrics[1]['external']['metric']['name']}}}" in text


def test_the_server_has_all_probes():
    """Kubernetes waits for the model, sends no requests to one that takes none, and restarts one that hangs."""
    (server,) = documents("kubernetes/serving.yaml")[0]["spec"]["template"]["spec"]["containers"]
    assert {"startupProbe", "readinessProbe", "livenessProbe"} <= set(server)


@pytest.mark.parametrize(("file", "tier"), [("serving", "agent"), ("daemonset", "agent"), ("gateway", "gateway")])
def test_a_collector_is_asked_and_reached_where_it_listens(file, tier):
    """Probes and ports of a Collector's container are those of the file that it runs."""
    container = next(
        container for document in documents(f"kubernetes/{file}.yaml") for container in collectors(document)
    )
    config = merged([f"{tier}.yaml"])
    health = port(config["extensions"]["health_check"])
    assert {container[probe]["httpGet"]["port"] for probe in ("startupProbe", "livenessProbe")} == {health}
    listened = {port(each) for receiver in config["receivers"].values() for each in receiver["protocols"].values()}
    offered = {each["containerPort"] for each in container.get("ports", ())}
    services = [each for each in documents(f"kubernetes/{file}.yaml") if each["kind"] == "Service"]
    offered |= {each["port"] for service in services for each in service["spec"]["ports"]}
    assert offered == listened


@pytest.mark.parametrize("file", ["serving", "daemonset", "gateway"])
def test_a_collector_refuses_before_the_kernel_kills_it(file):
    """The memory that a Collector limits itself to is well below what its container may have."""
    tier = "gateway" if file == "gateway" else "agent"
    limit = str(merged([f"{tier}.yaml"])["processors"]["memory_limiter"]["limit_mib"])
    limit_mib = int(limit.rpartition("-")[2].rstrip("}"))
    for document in documents(f"kubernetes/{file}.yaml"):
        for container in collectors(document):
            assert mebi(container["resources"]["limits"]["memory"]) >= 1.2 * limit_mib


def test_the_sidecar_has_room_for_its_queues():
    """The volume holds the queue of each signal twice: it is copied when it is compacted."""
    queue_bytes = merged(["agent.yaml"])["exporters"]["otlp"]["sending_queue"]["queue_size"]
    volumes = documents("kubernetes/serving.yaml")[0]["spec"]["template"]["spec"]["volumes"]
    (volume,) = (each["emptyDir"] for each in volumes if "emptyDir" in each)
    assert mebi(volume["sizeLimit"]) * 2**20 >= 2 * 3 * queue_bytes


def collectors(document):
    """The containers of an object that are Collectors."""
    pod = document["spec"].get("template", {}).get("spec", {})
    containers = [*pod.get("initContainers", ()), *pod.get("containers", ())]
    return [container for container in containers if "opentelemetry-collector" in container["image"]]


def port(listener):
    """The port of something that has an endpoint."""
    return int(listener["endpoint"].rpartition(":")[2])


def milli(quantity):
    """A quantity of Kubernetes in thousandths."""
    return int(quantity.removesuffix("m")) / 1000


def mebi(quantity):
    """A quantity of Kubernetes in MiB."""
    number, unit = re.fullmatch(r"(\d+)(Mi|Gi)", quantity).groups()
    return int(number) * {"Mi": 1, "Gi": 1024}[unit]
