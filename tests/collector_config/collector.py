"""Collector files as one, cut down to what a Collector knows, and Collectors that run them.

A Collector is looked for in `$OTELCOL`, then as `otelcol-contrib` and `otelcol` on the path. One without
contrib's components cannot load the files as they are: what it lacks is taken out, and said.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
import yaml
from tests.collector_config import names

TIERS = {
    "agent": [[], ["kafka-agent"], ["objects-agent"]],
    "gateway": [[], ["kafka-gateway"], ["objects-gateway"], ["objects-replay"], ["spanmetrics"]],
}
FILES = [
    [f"{tier}.yaml", *(f"overlays/{overlay}.yaml" for overlay in overlays)]
    for tier, combinations in TIERS.items()
    for overlays in combinations
]
KINDS = ("extensions", "receivers", "processors", "exporters", "connectors")
PATIENCE_S = 60.0
COMMON = ("timeout", "retry_on_failure", "sending_queue")
"""Options that every exporter has."""


def documents(path):
    """The documents of a YAML file."""
    return [document for document in yaml.safe_load_all((names.ROOT / path).read_text()) if document is not None]


def merged(files):
    """Several Collector files as one: mappings are merged, all else is replaced."""
    result = {}
    for file in files:
        result = _merge(result, documents(file)[0])
    return result


def _merge(old, new):
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return new
    return {**old, **{key: _merge(old.get(key), value) for key, value in new.items()}}


def kind_of(component):
    """The type of a component: what stands before the slash of its name."""
    return component.partition("/")[0]


@dataclass(frozen=True)
class Collector:
    """A Collector that is installed, and the types of components that it knows, by kind."""

    program: str
    knows: dict[str, set[str]]

    def lacks(self, config):
        """The components of `config` that it does not know, as `kind/name`."""
        return sorted(
            f"{kind}/{name}" for kind in KINDS for name in config.get(kind, {}) if kind_of(name) not in self.knows[kind]
        )

    def validate(self, config, folder):
        """What it says against `config`; empty when it accepts it."""
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        command = [self.program, "validate", f"--config={folder / 'config.yaml'}"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
        return "" if done.returncode == 0 else done.stdout + done.stderr


def installed():
    """The Collector of this machine, or `None`."""
    candidates = [os.environ.get("OTELCOL"), "otelcol-contrib", "otelcol"]
    program = next((found for name in candidates if name and (found := shutil.which(name))), None)
    if program is None:
        return None
    done = subprocess.run([program, "components"], capture_output=True, text=True, timeout=PATIENCE_S, check=True)
    listed = yaml.safe_load(done.stdout)
    return Collector(program, {kind: {each["name"] for each in listed.get(kind) or ()} for kind in KINDS})


def reduced(config, collector):
    """`config` without what the Collector lacks.

    An exporter is replaced by one of OTLP with the options that all exporters have, and one that shares spans
    out by one to the peers' address. A pipeline that has nothing left to read is left out.
    """
    lacked = [each.split("/", 1) for each in collector.lacks(config)]
    lost = {kind: {name for of, name in lacked if of == kind} for kind in KINDS}
    config = yaml.safe_load(yaml.safe_dump(config))
    config["service"]["extensions"] = [
        name for name in config["service"]["extensions"] if name not in lost["extensions"]
    ]
    _stand_in(config, lost["exporters"])
    for exporter in config["exporters"].values():
        if exporter.get("sending_queue", {}).get("storage") in lost["extensions"]:
            del exporter["sending_queue"]["storage"]
    _cut(config["service"]["pipelines"], lost)
    for kind in KINDS:
        config[kind] = {name: value for name, value in config.get(kind, {}).items() if name not in lost[kind]}
    return config


def _stand_in(config, lost):
    for name in lost:
        exporter = config["exporters"][name]
        resolver = exporter.get("resolver", {}).get("dns")
        endpoint = f"{resolver['hostname']}:{resolver['port']}" if resolver else "127.0.0.1:4317"
        common = {key: exporter[key] for key in COMMON if key in exporter}
        config["exporters"][f"otlp/{name}"] = {"endpoint": endpoint, "tls": {"insecure": True}, **common}
    for pipeline in config["service"]["pipelines"].values():
        pipeline["exporters"] = [f"otlp/{name}" if name in lost else name for name in pipeline["exporters"]]


def _cut(pipelines, lost):
    sources, sinks = lost["receivers"] | lost["connectors"], lost["connectors"]
    for name, pipeline in list(pipelines.items()):
        pipeline["receivers"] = [each for each in pipeline["receivers"] if each not in sources]
        pipeline["processors"] = [each for each in pipeline.get("processors", ()) if each not in lost["processors"]]
        pipeline["exporters"] = [each for each in pipeline["exporters"] if each not in sinks]
        if not (pipeline["receivers"] and pipeline["exporters"]):
            del pipelines[name]


@contextmanager
def running(collector, config, environment, folder, health):
    """A Collector that runs `config` and answers at its metrics' address; it is told to end at the end."""
    folder.mkdir(exist_ok=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    command = [collector.program, f"--config={folder / 'config.yaml'}"]
    with (folder / "log").open("a") as log:
        process = subprocess.Popen(command, env={**os.environ, **environment}, stdout=log, stderr=log)
        try:
            until(lambda: own_metrics(health), f"the Collector of {folder.name} answers", folder / "log")
            yield process
        finally:
            process.terminate()
            process.wait(PATIENCE_S)


def own_metrics(address):
    """What a Collector says of itself: values by name, summed over labels; empty while it does not answer."""
    try:
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=5) as answer:
            lines = answer.read().decode().splitlines()
    except OSError:
        return {}
    values = {}
    for line in lines:
        if line and not line.startswith("#"):
            series, _, value = line.rpartition(" ")
            name = series.partition("{")[0]
            values[name] = values.get(name, 0.0) + float(value)
    return values


def until(condition, what, log=None):
    """Wait for a condition; what is waited for is said if it does not come, with the end of a log."""
    deadline_s = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline_s:
        if value := condition():
            return value
        time.sleep(0.1)
    tail = f"\n{log.read_text()[-3000:]}" if log else ""
    pytest.fail(f"not within {PATIENCE_S:.0f} s: {what}{tail}")
