"""Every name in rules, dashboards and Collector files is one that the package writes."""

from __future__ import annotations

import re

import promql_parser
import pytest
from tests.collector_config import names

from otel_inference import semconv

ASKED = names.asked()
NAMED = re.compile(r"\b(?:inference|gen_ai|hw)\.[a-z_.]*[a-z_]")
"""Attributes and metrics as OpenTelemetry writes them."""
VARIABLES = re.compile(r"\bOTEL_INFERENCE_[A-Z_]+\b")


def test_there_is_something_to_look_at():
    """Rules, panels, choices, marks, data sources and scaling are all found."""
    assert len(ASKED) > 90
    assert {"keda", "Jaeger", "overview"} <= {asked.where for asked in ASKED}


def test_names_are_translated_as_prometheus_does():
    """Units become endings, counters end in `_total`, and gauges without a unit in `_ratio`, once."""
    assert {
        "inference_call_duration_seconds_bucket",
        "inference_health_throughput_per_second",
        "inference_health_utilization_ratio",
        "inference_health_error_ratio",
        "inference_findings_total",
        "inference_active_calls",
        "hw_gpu_memory_usage_bytes",
        "gen_ai_client_token_usage_sum",
    } <= names.metrics()


@pytest.mark.parametrize("asked", ASKED, ids=lambda asked: asked.where)
def test_metrics_and_labels_exist(asked):
    """What an expression selects and groups by is written by the package, by a rule, or by a server."""
    metrics, labels = names.names_in(asked.plain)
    known = names.metrics() | names.recorded()
    assert {name for name in metrics if name not in known and not names.FOREIGN.fullmatch(name)} == set()
    written = {name.replace(".", "_") for name in names.attributes()} | names.FOREIGN_LABELS
    assert labels - written == set()


def test_a_name_that_does_not_exist_is_found():
    """The parser sees names in every place that an expression can have them."""
    metrics, labels = names.names_in(
        'sum by (a) (rate(b_total{c="d"}[5m] offset 1h)) / scalar(e:f) or label_replace(g, "h", "", "", "")'
    )
    assert metrics == {"b_total", "e:f", "g"}
    assert labels == {"a", "c"}


@pytest.mark.parametrize(
    "path", [*sorted(names.ROOT.rglob("*.yaml")), names.ROOT / "README.md"], ids=lambda path: path.name
)
def test_attributes_and_variables_in_files_exist(path):
    """Each `inference.*`, `gen_ai.*` or `hw.*` in a file, and each variable of ours, is in `semconv.py`."""
    text = path.read_text()
    assert set(NAMED.findall(text)) - names.attributes() == set()
    assert set(VARIABLES.findall(text)) - names.attributes() == set()


def test_the_latency_objective_is_the_bound_of_a_bucket():
    """Slow calls are counted from a bucket that the histogram has."""
    (rule,) = (rule for rule in names.rules() if rule.get("record") == "job_model:inference_slow_calls:rate5m")
    bounds = {
        float(matcher.value)
        for node in names.nodes(promql_parser.parse(rule["expr"]))
        if isinstance(node, promql_parser.VectorSelector)
        for matcher in node.matchers.matchers
        if matcher.name == "le"
    }
    assert bounds
    assert bounds <= set(semconv.CALL_SECONDS)
