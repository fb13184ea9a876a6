"""The other files: they parse, hang together, and are accepted by what reads them, where that is installed."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest
import yaml
from tests.collector_config import names
from tests.collector_config.collector import documents


def program(name):
    """The path of a program, or a skip that says what is missing."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(
            f"{name} is not installed (Debian: apt-get install --no-install-recommends prometheus prometheus-alertmanager)"
        )
    return found


def run(*command):
    """Run a checker in the folder; its output is shown when it refuses."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, cwd=names.ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", sorted(names.ROOT.rglob("*.yaml")), ids=lambda path: path.name)
def test_every_file_is_yaml(path):
    """Each file has at least one document that is a mapping."""
    found = documents(path)
    assert found
    assert all(isinstance(document, dict) for document in found)


def test_compose_publishes_on_the_loopback_address_only():
    """Every published port is bound to 127.0.0.1."""
    services = documents("compose.yaml")[0]["services"]
    ports = [port for service in services.values() for port in service.get("ports", ())]
    assert len(ports) == 6
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_compose_pins_its_images_and_mounts_what_is_there():
    """Images have a version, and what is mounted exists, but for the token that the user makes."""
    services = documents("compose.yaml")[0]["services"]
    assert all(re.search(r":v?\d+\.\d+\.\d+$", service["image"]) for service in services.values())
    mounts = [volume.partition(":")[0] for service in services.values() for volume in service.get("volumes", ())]
    missing = {mount for mount in mounts if mount.startswith("./") and not (names.ROOT / mount).exists()}
    assert missing <= {"./alertmanager/token"}


def test_grafana_has_no_password_that_everybody_knows():
    """Nobody can log in, no administrator is made, and whoever looks may only look."""
    environment = documents("compose.yaml")[0]["services"]["grafana"]["environment"]
    assert environment["GF_SECURITY_DISABLE_INITIAL_ADMIN_CREATION"] == "true"
    assert environment["GF_AUTH_DISABLE_LOGIN_FORM"] == environment["GF_AUTH_ANONYMOUS_ENABLED"] == "true"
    assert environment["GF_AUTH_BASIC_ENABLED"] == "false"
    assert environment["GF_AUTH_ANONYMOUS_ORG_ROLE"] == "Viewer"
    text = "".join(path.read_text() for path in names.ROOT.rglob("*.yaml"))
    assert not re.search(r"(?i)password\s*:", text)


def test_prometheus_accepts_the_rules():
    """`promtool check rules` finds nothing wrong."""
    run(program("promtool"), "check", "rules", *map(str, names.RULES))


def test_the_rules_do_what_they_say():
    """`promtool test rules` passes: burn rates, absence, stalls, saturation, losses."""
    tests = sorted((names.ROOT / "prometheus" / "tests").glob("*.yaml"))
    tested = "".join(path.read_text() for path in tests)
    assert {rule["alert"] for rule in names.rules() if "alert" in rule} <= set(
        re.findall(r'alertname(?:: |=")(\w+)', tested)
    )
    run(program("promtool"), "test", "rules", *map(str, tests))


@pytest.mark.parametrize("file", ["prometheus.yaml", "scrape.yaml"])
def test_prometheus_accepts_its_configuration(file, tmp_path):
    """`promtool check config` finds nothing wrong; `otlp` is left out, which Debian's build does not know."""
    promtool = program("promtool")
    config = documents(f"prometheus/{file}")[0]
    config.pop("otlp", None)
    config["rule_files"] = [str(names.ROOT / "prometheus" / "rules" / "*.yaml")]
    (tmp_path / file).write_text(yaml.safe_dump(config))
    run(promtool, "check", "config", str(tmp_path / file))


def test_alertmanager_accepts_its_configuration():
    """`amtool check-config` finds nothing wrong, and a fleet's alert is routed to the receiver and to people."""
    amtool = program("amtool")
    config = "alertmanager/alertmanager.yaml"
    run(amtool, "check-config", config)
    command = [amtool, "config", "routes", "test", f"--config.file={config}", "scope=fleet", "severity=critical"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True, cwd=names.ROOT)
    assert "otel-inference" in done.stdout
