"""`compose.yaml`: what is published, mounted, waited for and shown to whom."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

import pytest
from tests.collector_config import names
from tests.collector_config.collector import documents, merged

COMPOSE = documents("compose.yaml")[0]
SERVICES = COMPOSE["services"]
PORTS = {name: service.get("ports", []) for name, service in SERVICES.items()}


def mounts(service):
    """What a service mounts, as (source, target) pairs."""
    found = []
    for volume in service.get("volumes", ()):
        if isinstance(volume, dict):
            found.append((volume["source"], volume["target"]))
        else:
            found.append(tuple(volume.split(":")[:2]))
    return found


def test_ports_are_published_on_the_loopback_address_only():
    """Every published port is bound to 127.0.0.1."""
    ports = [port for published in PORTS.values() for port in published]
    assert ports
    assert all(re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port) for port in ports)


def test_the_readme_says_what_opens_where():
    """The ports in the README's table are those that are published, no more and no fewer."""
    readme = (names.ROOT / "README.md").read_text()
    table = readme[readme.index("| address |") : readme.index("All are published")]
    said = {int(port) for port in re.findall(r"127\.0\.0\.1:(\d+)", table)}
    assert said == {int(port.split(":")[1]) for published in PORTS.values() for port in published}


def test_images_have_a_version():
    """No image is whatever is newest."""
    assert all(re.search(r":v?\d+\.\d+\.\d+$", service["image"]) for service in SERVICES.values())


@pytest.mark.parametrize("name", SERVICES)
def test_what_is_mounted_is_there(name):
    """Files of the folder exist, but for the token that the user makes, and named volumes are declared."""
    for source, _ in mounts(SERVICES[name]):
        if source == "./alertmanager/token":
            continue
        if source.startswith("./"):
            assert (names.ROOT / source).exists(), source
        else:
            assert source in COMPOSE["volumes"]


def test_a_token_that_is_not_there_stops_the_start():
    """Docker does not make a directory in place of the token, which Alertmanager could then not read."""
    (token,) = (each for each in SERVICES["alertmanager"]["volumes"] if isinstance(each, dict))
    assert token["source"] == "./alertmanager/token"
    assert token["bind"] == {"create_host_path": False}


@pytest.mark.parametrize("name", SERVICES)
def test_what_is_waited_for_can_come(name):
    """A service that others wait for to be well has a check of it, at a port that it has."""
    waited = SERVICES[name].get("depends_on", {})
    conditions = waited if isinstance(waited, dict) else {each: {"condition": "service_started"} for each in waited}
    assert set(conditions) <= set(SERVICES)
    for other, waiting in conditions.items():
        if waiting["condition"] == "service_healthy":
            asked = " ".join(SERVICES[other]["healthcheck"]["test"])
            assert re.search(r"127\.0\.0\.1:(\d+)/", asked)[1] in {port.split(":")[2] for port in PORTS[other]}


@pytest.mark.parametrize("tier", ["agent", "gateway"])
def test_variables_of_a_collector_are_those_of_its_file(tier):
    """Each variable that a Collector is given is read by the file that it runs, and other services are named right."""
    text = (names.ROOT / f"{tier}.yaml").read_text()
    environment = SERVICES[tier]["environment"]
    assert set(environment) <= set(re.findall(r"\$\{env:(\w+)", text))
    for variable, value in environment.items():
        if variable.endswith(("_ENDPOINT", "_PEERS")):
            assert urlsplit(value if "//" in value else f"//{value}").hostname in SERVICES


def test_a_collector_writes_its_queue_where_a_volume_is():
    """The agent's storage lies within the named volume, so that it survives the container."""
    ((storage, target),) = [each for each in mounts(SERVICES["agent"]) if not each[0].startswith("./")]
    assert storage in COMPOSE["volumes"]
    assert SERVICES["agent"]["environment"]["OTEL_AGENT_STORAGE"].startswith(f"{target}/")
    assert merged(["agent.yaml"])["extensions"]["file_storage"]["directory"].startswith("${env:OTEL_AGENT_STORAGE:-")


def test_grafana_has_no_password_that_everybody_knows():
    """Nobody can log in, no administrator is made, and whoever looks may only look."""
    environment = SERVICES["grafana"]["environment"]
    assert environment["GF_SECURITY_DISABLE_INITIAL_ADMIN_CREATION"] == "true"
    assert environment["GF_AUTH_DISABLE_LOGIN_FORM"] == environment["GF_AUTH_ANONYMOUS_ENABLED"] == "true"
    assert environment["GF_AUTH_BASIC_ENABLED"] == "false"
    assert environment["GF_AUTH_ANONYMOUS_ORG_ROLE"] == "Viewer"
    text = "".join(path.read_text() for path in names.ROOT.rglob("*.yaml"))
    assert not re.search(r"(?i)password\s*:", text)


def test_grafana_finds_what_it_is_to_show():
    """Provisioning and dashboards are mounted where Grafana and the provisioning file look for them."""
    targets = dict(mounts(SERVICES["grafana"]))
    assert targets["./grafana/provisioning"] == "/etc/grafana/provisioning"
    providers = documents("grafana/provisioning/dashboards/dashboards.yaml")[0]["providers"]
    assert {provider["options"]["path"] for provider in providers} == {targets["./grafana/dashboards"]}
    home = SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home.startswith(targets["./grafana/dashboards"])
