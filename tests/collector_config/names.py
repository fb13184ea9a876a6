"""The files under test, what they ask Prometheus, and the names that there are to ask for."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import promql_parser
import yaml

from otel_inference import semconv
from otel_inference.telemetry.instruments import Instruments

ROOT = Path(__file__).parents[2] / "collector-config"
RULES = sorted((ROOT / "prometheus" / "rules").glob("*.yaml"))
DASHBOARDS = sorted((ROOT / "grafana" / "dashboards").glob("*.json"))

UNITS = {"s": "_seconds", "By": "_bytes", "{call}/s": "_per_second"}
FOREIGN = re.compile(r"(prometheus|otelcol)_\w+|ALERTS")
"""Metrics of the servers themselves."""
FOREIGN_LABELS = {"job", "instance", "le", "__name__", "alertname", "alertstate", "type", "exporter", "data_type"}


class _NamingMeter:
    """Notes the instruments that are made of it, as names in Prometheus."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def create_histogram(self, name: str, unit: str, *_: Any, **__: Any) -> None:
        """Three series a histogram."""
        self.names |= {prometheus_name(name, unit) + ending for ending in ("_bucket", "_count", "_sum")}

    def create_counter(self, name: str, unit: str, *_: Any) -> None:
        """A counter's name ends in `_total`."""
        self.names.add(prometheus_name(name, unit) + "_total")

    def create_observable_counter(self, name: str, _callbacks: Any, unit: str, _text: str) -> None:
        """A counter's name ends in `_total`."""
        self.create_counter(name, unit)

    def create_observable_gauge(self, name: str, _callbacks: Any, unit: str, _text: str) -> None:
        """A gauge without a unit ends in `_ratio`."""
        self.names.add(prometheus_name(name, unit) if unit != "1" else prometheus_name(name, unit, "_ratio"))

    def create_observable_up_down_counter(self, name: str, _callbacks: Any, unit: str, _text: str) -> None:
        """Shown as a gauge."""
        self.names.add(prometheus_name(name, unit))


def prometheus_name(name: str, unit: str, ending: str = "") -> str:
    """The name in Prometheus, by the translation of its OTLP receiver."""
    ending = ending or UNITS.get(unit, "")
    translated = name.replace(".", "_")
    return translated if translated.endswith(ending) else translated + ending


def metrics() -> set[str]:
    """Every metric of ours by its names in Prometheus."""
    meter = _NamingMeter()
    Instruments(meter)  # type: ignore[arg-type]
    return meter.names


def attributes() -> set[str]:
    """Every name in `semconv.py`."""
    return {value for name, value in vars(semconv).items() if name.isupper() and isinstance(value, str)}


def recorded() -> set[str]:
    """The names of the recording rules."""
    return {rule["record"] for rule in rules() if "record" in rule}


def rules() -> list[dict[str, Any]]:
    """All rules, recording and alerting."""
    return [rule for path in RULES for group in yaml.safe_load(path.read_text())["groups"] for rule in group["rules"]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One expression and where it stands."""

    where: str
    expression: str

    @property
    def plain(self) -> str:
        """Grafana's variables replaced by something that Prometheus knows."""
        return filled(self.expression, rate="5m", span="1h", job=".*", model="ranker")


def filled(expression: str, *, rate: str, span: str, job: str, model: str) -> str:
    """An expression of a dashboard as Grafana would send it."""
    variables = {"$__rate_interval": rate, "$__interval": rate, "$__range": span, "$job": job, "$model": model}
    for variable, value in variables.items():
        expression = expression.replace(variable, value)
    return expression.replace("$$__tags", 'inference_model="ranker"')


def panels(dashboard: dict[str, Any]) -> list[dict[str, Any]]:
    """The panels of a dashboard, without its rows."""
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def of_panels() -> list[Asked]:
    """What the panels ask."""
    return [
        Asked(where=f"{path.stem}: {panel['title']}", expression=target["expr"])
        for path in DASHBOARDS
        for panel in panels(json.loads(path.read_text()))
        for target in panel["targets"]
    ]


def asked() -> list[Asked]:
    """Every expression in the whole folder."""
    found = [Asked(where=rule.get("record") or rule["alert"], expression=rule["expr"]) for rule in rules()]
    for path in DASHBOARDS:
        dashboard = json.loads(path.read_text())
        found += [Asked(where=path.stem, expression=mark["expr"]) for mark in dashboard["annotations"]["list"]]
        for choice in dashboard["templating"]["list"]:
            wanted = choice["query"].removeprefix("label_values(").removesuffix(")")
            metric, _, label = wanted.rpartition(", ")
            found.append(Asked(where=path.stem, expression=f"count by ({label}) ({metric})"))
    sources = yaml.safe_load((ROOT / "grafana/provisioning/datasources/datasources.yaml").read_text())
    for source in sources["datasources"]:
        queries = source["jsonData"].get("tracesToMetrics", {}).get("queries", [])
        found += [Asked(where=source["name"], expression=query["query"]) for query in queries]
    scaled = yaml.safe_load((ROOT / "kubernetes/scaling-keda.yaml").read_text())
    found += [Asked(where="keda", expression=trigger["metadata"]["query"]) for trigger in scaled["spec"]["triggers"]]
    return found + of_panels()


def names_in(expression: str) -> tuple[set[str], set[str]]:
    """The metrics and the labels that an expression names."""
    selected: set[str] = set()
    labels: set[str] = set()

    def visit(node: Any) -> None:
        if isinstance(node, promql_parser.VectorSelector):
            selected.update({node.name} - {None})
            labels.update(matcher.name for matcher in node.matchers.matchers)
        modifier = getattr(node, "modifier", None)
        if isinstance(node, promql_parser.AggregateExpr) and modifier is not None:
            labels.update(modifier.labels)

    for node in nodes(promql_parser.parse(expression)):
        visit(node)
    return selected, labels


def nodes(node: Any) -> list[Any]:
    """A node of a parsed expression and all beneath it."""
    found = [node]
    for name in ("expr", "lhs", "rhs", "vector_selector", "args", "param"):
        child = getattr(node, name, None)
        for each in child if isinstance(child, list) else [child]:
            if isinstance(each, promql_parser.Expr):
                found += nodes(each)
    return found


def generate(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the program that makes the dashboards."""
    command = [sys.executable, "-B", ROOT / "grafana" / "generate.py", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
