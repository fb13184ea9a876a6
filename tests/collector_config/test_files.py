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


def commands(section, *programs):
    """The commands of a section of the README that start with one of these programs."""
    text = (names.ROOT / "README.md").read_text().partition(f"## {section}\n")[2].partition("\n## ")[0]
    lines = [line[4:] for line in text.splitlines() if line.startswith("    ")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [line for line in joined.splitlines() if line.split(" ", 1)[0] in programs]


def test_without_docker_everything_is_on_this_machine(tmp_path):
    """What the README has done to the files leaves no name of compose's in them, and a folder that is there."""
    shutil.copytree(names.ROOT, tmp_path / "config")
    (tmp_path / "fleet").mkdir()
    for command in commands("Without docker", "cp", "sed"):
        here = command.replace("/tmp/fleet", str(tmp_path / "fleet"))
        subprocess.run(here, shell=True, check=True, timeout=60, cwd=tmp_path / "config")
    (prometheus,) = yaml.safe_load_all((tmp_path / "config/prometheus/local.yaml").read_text())
    targets = [each for job in prometheus["scrape_configs"] for each in job["static_configs"][0]["targets"]]
    targets += prometheus["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"]
    sources = yaml.safe_load((tmp_path / "fleet/provisioning/datasources/datasources.yaml").read_text())["datasources"]
    targets += [source["url"].removeprefix("http://") for source in sources]
    assert {target.partition(":")[0] for target in targets} <= {"127.0.0.1", "localhost"}
    dashboards = yaml.safe_load((tmp_path / "fleet/provisioning/dashboards/dashboards.yaml").read_text())["providers"]
    assert {each["options"]["path"] for each in dashboards} == {str(tmp_path / "config/grafana/dashboards")}


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
