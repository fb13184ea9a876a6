"""What was found and done, and whether telemetry can be believed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from page import page
from panel import (
    BAR,
    FIRING,
    JOB,
    NONE_IS_GOOD,
    RATE,
    SAMPLES_PER_S,
    STATES,
    TO_MODEL,
    USED,
    Figure,
    lines,
    number,
    or_none,
    timeline,
)

if TYPE_CHECKING:
    from grafana_foundation_sdk.builders import dashboard


_STATES: Final = Figure(
    title="State by model",
    text="The worst that any process says of the model.",
    unit="short",
    queries=(
        (f"max by (job, inference_model) (inference_health_state_ratio{{{JOB}}})", "{{job}} {{inference_model}}"),
    ),
    width=24,
    links=TO_MODEL,
)

_ALERTS: Final = Figure(
    title="Alerts over the fleet",
    text="Rules of Prometheus that fire.",
    unit="short",
    queries=(
        (
            or_none(
                "max by (alertname, job, inference_model, severity) "
                f'(ALERTS{{alertname=~"Inference.*",alertstate="firing",{JOB}}})',
                "alertname",
                "none",
            ),
            "{{alertname}} {{job}} {{inference_model}} {{severity}}",
        ),
    ),
    width=24,
)

_FOUND: Final = Figure(
    title="Findings that opened",
    text="By kind and severity, all processes. Evidence and advice are in the log events inference.finding.opened.",
    unit="short",
    queries=(
        (
            f"sum by (kind, severity) (sum_over_time(job_model_kind:inference_findings:increase1m{{{JOB}}}[{BAR}]))",
            "{{kind}} {{severity}}",
        ),
    ),
    width=24,
    bars=True,
    interval="1m",
)

_DONE: Final = Figure(
    title="Maintenance",
    text="What was run, and how it ended. Each run is a trace of its own: search for maintenance.",
    unit="short",
    queries=(
        (
            f"sum by (action, outcome) (sum_over_time(job_action:inference_maintenance_actions:increase1m{{{JOB}}}[{BAR}]))",
            "{{action}}: {{outcome}}",
        ),
    ),
    width=24,
    bars=True,
    interval="1m",
    links=(
        (
            "Traces of maintenance",
            "/explore?schemaVersion=1&panes="
            + quote(
                '{"a":{"datasource":"jaeger","queries":[{"refId":"A","queryType":"search","operation":"maintenance"}],"range":{"from":"now-1h","to":"now"}}}'
            ),
        ),
    ),
)

_TOTALS: Final = (
    Figure(
        title="Findings, by kind",
        text="Over the time shown.",
        unit="short",
        queries=(
            (
                f"sum by (kind) (sum_over_time(job_model_kind:inference_findings:increase1m{{{JOB}}}[$__range]))",
                "{{kind}}",
            ),
        ),
        height=6,
        decimals=0,
    ),
    Figure(
        title="Maintenance, by outcome",
        text="Over the time shown.",
        unit="short",
        queries=(
            (
                f"sum by (outcome) (sum_over_time(job_action:inference_maintenance_actions:increase1m{{{JOB}}}[$__range]))",
                "{{outcome}}",
            ),
        ),
        height=6,
        decimals=0,
    ),
)


def findings() -> dashboard.Dashboard:
    """What was found, what fired and what was done about it, beneath each other."""
    return page(
        "findings",
        "Model inference: findings and maintenance",
        "What was found, which alerts fired, and what was done about it: one time line.",
        (
            ("Time line", [timeline(_STATES, STATES), timeline(_ALERTS, FIRING), lines(_FOUND), lines(_DONE)]),
            ("Totals", [number(figure) for figure in _TOTALS]),
        ),
    )


_OWN: Final = (
    Figure(
        title="Failures of the instrumentation",
        text="Its own failures a second, by place. Calls of models go on.",
        unit="eps",
        queries=(
            (
                or_none(
                    f"sum by (job, where) (rate(inference_self_errors_total{{{JOB}}}[{RATE}]))", "where", "no failure"
                ),
                "{{job}} {{where}}",
            ),
        ),
        steps=NONE_IS_GOOD,
    ),
    Figure(
        title="Telemetry given up",
        text="Records a second that were dropped in the process, by place.",
        unit="recps",
        queries=(
            (
                or_none(
                    f"sum by (job, where) (rate(inference_self_dropped_total{{{JOB}}}[{RATE}]))",
                    "where",
                    "nothing given up",
                ),
                "{{job}} {{where}}",
            ),
        ),
        steps=NONE_IS_GOOD,
    ),
    Figure(
        title="Processes reporting",
        text="A step down that nobody ordered is telemetry, or processes, lost.",
        unit="short",
        queries=((f"job:inference_processes:count{{{JOB}}}", "{{job}}"),),
    ),
    Figure(
        title="Series by service",
        text="Series of this package's metrics; docs/scale.md says what to expect of a process.",
        unit="short",
        queries=((f'count by (job) ({{__name__=~"inference_.*|gen_ai_.*|hw_gpu_.*",{JOB}}})', "{{job}}"),),
    ),
)

_SERVER: Final = (
    Figure(
        title="Samples taken in by Prometheus",
        text="A second, from everywhere.",
        unit=SAMPLES_PER_S,
        queries=((f"rate(prometheus_tsdb_head_samples_appended_total[{RATE}])", "{{instance}} {{type}}"),),
        width=8,
    ),
    Figure(
        title="Series in Prometheus",
        text="In its head, from everywhere.",
        unit="short",
        queries=(("prometheus_tsdb_head_series", "{{instance}}"),),
        width=8,
    ),
    Figure(
        title="Rules and notifications that failed",
        text="A second. Above zero, alerts cannot be relied on.",
        unit="eps",
        queries=(
            (f"sum(rate(prometheus_rule_evaluation_failures_total[{RATE}]))", "rule evaluations"),
            (f"sum(rate(prometheus_notifications_dropped_total[{RATE}]))", "notifications dropped"),
        ),
        steps=NONE_IS_GOOD,
        width=8,
    ),
)

_COLLECTOR: Final = (
    Figure(
        title="Collectors: taken and refused",
        text="Spans and data points a second. Refused ones are sent again by the process, for a while.",
        unit="recps",
        queries=(
            (f"sum by (job) (rate(otelcol_receiver_accepted_spans_total[{RATE}]))", "spans taken"),
            (f"sum by (job) (rate(otelcol_receiver_accepted_metric_points_total[{RATE}]))", "points taken"),
            (f"sum by (job) (rate(otelcol_receiver_refused_spans_total[{RATE}]))", "spans refused"),
        ),
    ),
    Figure(
        title="Collectors: queues",
        text="How full the sending queues are. At 100 % new telemetry is refused.",
        unit="percentunit",
        queries=(
            (
                "otelcol_exporter_queue_size / otelcol_exporter_queue_capacity",
                "{{instance}} {{exporter}} {{data_type}}",
            ),
        ),
        steps=USED,
        maximum=1.0,
    ),
)


def telemetry() -> dashboard.Dashboard:
    """Whether what the other dashboards show can be believed."""
    return page(
        "telemetry",
        "Model inference: telemetry's own health",
        "Whether what the other dashboards show can be believed.",
        (
            ("The package", [lines(figure) for figure in _OWN]),
            ("Prometheus", [lines(figure) for figure in _SERVER]),
            ("Collectors", [lines(figure) for figure in _COLLECTOR]),
        ),
    )
