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
