"""All services and models at a glance."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from page import page
from panel import BURN, ERRORS, JOB, NONE_IS_GOOD, SECONDS, STATES, TO_MODEL, USED, Figure, lines, number, timeline

if TYPE_CHECKING:
    from grafana_foundation_sdk.builders import dashboard


_STATS: Final = (
    Figure(
        title="Processes",
        text="Processes that report their health.",
        unit="short",
        queries=((f"sum(job:inference_processes:count{{{JOB}}})", "processes"),),
        width=4,
        height=4,
    ),
    Figure(
        title="Calls",
        text="Calls of models that ended, a second, over five minutes.",
        unit="reqps",
        queries=((f"sum(job_model:inference_calls:rate5m{{{JOB}}})", "calls"),),
        width=4,
        height=4,
    ),
    Figure(
        title="Errors",
        text="Failed over all calls, over five minutes.",
        unit="percentunit",
        queries=(
            (
                f"sum(job_model:inference_errors:rate5m{{{JOB}}}) / sum(job_model:inference_calls:rate5m{{{JOB}}})",
                "errors",
            ),
        ),
        steps=ERRORS,
        width=4,
        height=4,
        decimals=2,
    ),
    Figure(
        title="Slowest model's p99",
        text="The longest 99th percentile of successful calls of any model, over five minutes.",
        unit="s",
        queries=((f"max(job_model:inference_call_duration_seconds:p99{{{JOB}}})", "p99"),),
        steps=SECONDS,
        width=4,
        height=4,
    ),
    Figure(
        title="Models not well",
        text="Models that at least one process judges degraded or critical.",
        unit="short",
        queries=(
            (
                f"count(max by (job, inference_model) (inference_health_state_ratio{{{JOB}}}) > 0) or vector(0)",
                "models",
            ),
        ),
        steps=NONE_IS_GOOD,
        width=4,
        height=4,
    ),
    Figure(
        title="Alerts firing",
        text="Alerts of this package's rules that fire now.",
        unit="short",
        queries=((f'count(ALERTS{{alertname=~"Inference.*",alertstate="firing",{JOB}}}) or vector(0)', "alerts"),),
        steps=NONE_IS_GOOD,
        width=4,
        height=4,
    ),
)

_CALLS: Final = (
    Figure(
        title="Calls by model",
        text="Calls that ended, a second, over five minutes. Click a line for its model.",
        unit="reqps",
        queries=((f"job_model:inference_calls:rate5m{{{JOB}}}", "{{job}} {{inference_model}}"),),
        links=TO_MODEL,
    ),
    Figure(
        title="Errors by model",
        text="Failed over all calls, over five minutes. The dashed lines are one in a thousand and one in a hundred.",
        unit="percentunit",
        queries=((f"job_model:inference_errors:ratio_rate5m{{{JOB}}}", "{{job}} {{inference_model}}"),),
        steps=ERRORS,
        links=TO_MODEL,
    ),
    Figure(
        title="Latency by model (p99)",
        text="99th percentile of successful calls, from the buckets of all processes, over five minutes.",
        unit="s",
        queries=((f"job_model:inference_call_duration_seconds:p99{{{JOB}}}", "{{job}} {{inference_model}}"),),
        steps=SECONDS,
        links=TO_MODEL,
    ),
    Figure(
        title="Error budget: burn rate",
        text="How many times too fast the budget of 30 days is used up, over one hour; 14.4 for an hour is a page.",
        unit="short",
        queries=(
            (
                f"job_model:inference_errors:ratio_rate1h{{{JOB}}} / scalar(inference:errors:budget)",
                "errors {{inference_model}}",
            ),
            (
                f"job_model:inference_slow_calls:ratio_rate1h{{{JOB}}} / scalar(inference:slow_calls:budget)",
                "slow {{inference_model}}",
            ),
        ),
        steps=BURN,
        links=TO_MODEL,
    ),
)

_RESOURCES: Final = (
    Figure(
        title="Utilization, fleet mean",
        text="Used over available, mean over processes: what to scale on.",
        unit="percentunit",
        queries=((f"job_resource:inference_utilization:avg{{{JOB}}}", "{{job}} {{inference_resource}}"),),
        steps=USED,
        maximum=1.0,
    ),
    Figure(
        title="Utilization, worst process",
        text="Used over available in the process where it is most.",
        unit="percentunit",
        queries=((f"job_resource:inference_utilization:max{{{JOB}}}", "{{job}} {{inference_resource}}"),),
        steps=USED,
        maximum=1.0,
    ),
    Figure(
        title="Calls running",
        text="Calls in flight over all processes.",
        unit="short",
        queries=((f"job_model:inference_active_calls:sum{{{JOB}}}", "{{job}} {{inference_model}}"),),
        links=TO_MODEL,
    ),
    Figure(
        title="Processes by service",
        text="Processes that report their health.",
        unit="short",
        queries=((f"job:inference_processes:count{{{JOB}}}", "{{job}}"),),
    ),
)

_STATE: Final = Figure(
    title="State by model",
    text="The worst that any process says of the model.",
    unit="short",
    queries=(
        (f"max by (job, inference_model) (inference_health_state_ratio{{{JOB}}})", "{{job}} {{inference_model}}"),
    ),
    width=24,
    links=TO_MODEL,
)


def overview() -> dashboard.Dashboard:
    """All services and models at a glance."""
    return page(
        "overview",
        "Model inference: overview",
        "All services and models at a glance. From here to one model, from there to its traces.",
        (
            ("Now", [number(figure) for figure in _STATS]),
            ("Health", [timeline(_STATE, STATES)]),
            ("Calls", [lines(figure) for figure in _CALLS]),
            ("Resources", [lines(figure) for figure in _RESOURCES]),
        ),
    )
