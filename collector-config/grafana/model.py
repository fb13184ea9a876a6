"""One model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from page import page
from panel import (
    BURN,
    JOB,
    MODEL,
    NONE_IS_GOOD,
    RATE,
    SECONDS,
    TO_TRACES,
    TOKENS,
    TOKENS_PER_S,
    USED,
    Figure,
    density,
    lines,
)

if TYPE_CHECKING:
    from grafana_foundation_sdk.builders import dashboard


def one_model() -> dashboard.Dashboard:
    """Rate, errors, duration, utilization and tokens of one model."""
    quantiles = (0.5, 0.9, 0.99)
    red = (
        Figure(
            title="Calls by operation",
            text="Calls that ended, a second.",
            unit="reqps",
            queries=(
                (
                    f"sum by (inference_operation) (rate(inference_call_duration_seconds_count{{{MODEL}}}[{RATE}]))",
                    "{{inference_operation}}",
                ),
            ),
            links=TO_TRACES,
        ),
        Figure(
            title="Errors by kind",
            text="Failed calls a second, by the class of the exception, over five minutes.",
            unit="reqps",
            queries=(
                (
                    (
                        f"sum by (error_type) (job_model_error:inference_errors:rate5m{{{MODEL}}}) or "
                        f"label_replace(0 * sum(job_model:inference_calls:rate5m{{{MODEL}}}) "
                        f'unless on () job_model_error:inference_errors:rate5m{{{MODEL}}}, "error_type", "none", "", "")'
                    ),
                    "{{error_type}}",
                ),
            ),
            steps=NONE_IS_GOOD,
            links=TO_TRACES,
            bars=True,
        ),
        Figure(
            title="Duration of successful calls",
            text="Quantiles over all processes. A dot is one call: it opens its trace.",
            unit="s",
            queries=tuple(
                (
                    f'histogram_quantile({q}, sum by (le) (rate(inference_call_duration_seconds_bucket{{{MODEL},error_type=""}}[{RATE}])))',
                    f"p{q * 100:g}",
                )
                for q in quantiles
            ),
            steps=SECONDS,
            links=TO_TRACES,
            exemplars=True,
        ),
        Figure(
            title="Error budget: burn rate",
            text="How many times too fast the budget of 30 days is used up. A page needs both windows above 14.4.",
            unit="short",
            queries=tuple(
                (
                    f"job_model:inference_{what}:ratio_rate{window}{{{MODEL}}} / scalar(inference:{what}:budget)",
                    f"{name}, {window}",
                )
                for what, name in (("errors", "errors"), ("slow_calls", "slow"))
                for window in ("5m", "1h", "6h")
            ),
            steps=BURN,
        ),
    )
    spread = Figure(
        title="Distribution of durations",
        text="Calls a second in each bucket, failed ones included.",
        unit="s",
        queries=((f"sum by (le) (rate(inference_call_duration_seconds_bucket{{{MODEL}}}[{RATE}]))", "{{le}}"),),
        exemplars=True,
    )
    window = Figure(
        title="Duration by process (p99 of its window)",
        text="What each process says of its own last minute: of warm calls, within 1 %.",
        unit="s",
        queries=((f'inference_health_latency_seconds{{{MODEL},quantile="0.99"}}', "{{instance}}"),),
        steps=SECONDS,
    )
    return page(
        "model",
        "Model inference: one model",
        "Rate, errors and duration; what it waits for and what it uses; tokens. Dots and links lead to traces.",
        (
            ("Rate, errors, duration", [lines(figure) for figure in red]),
            ("Spread", [density(spread), lines(window)]),
            ("Utilization", [lines(figure) for figure in _utilization()]),
            ("Tokens", [lines(figure) for figure in _tokens()]),
            ("Accelerators and loads", [lines(figure) for figure in _machine()]),
        ),
        one_model=True,
    )


def _utilization() -> tuple[Figure, ...]:
    return (
        Figure(
            title="Concurrency used",
            text="Mean number of calls in flight over how many may run, by process. Above 100 % calls wait.",
            unit="percentunit",
            queries=(
                (f'inference_health_utilization_ratio{{{MODEL},inference_resource="concurrency"}}', "{{instance}}"),
            ),
            steps=USED,
        ),
        Figure(
            title="Resources of its processes",
            text="Used over available, the highest of the service's processes.",
            unit="percentunit",
            queries=((f"job_resource:inference_utilization:max{{{JOB}}}", "{{inference_resource}}"),),
            steps=USED,
            maximum=1.0,
        ),
        Figure(
            title="Calls in flight",
            text="Begun and not ended, those that wait at a limiter among them, and what the limiter lets run.",
            unit="short",
            queries=(
                (f"sum(inference_active_calls{{{MODEL}}})", "in flight"),
                (f"sum(inference_limiter_limit{{{MODEL}}})", "limit"),
                (f"sum(inference_limiter_in_use{{{MODEL}}})", "let run"),
            ),
        ),
        Figure(
            title="Queue time",
            text="How long calls waited for their turn, at a limiter or in a batch.",
            unit="s",
            queries=(
                (
                    f"histogram_quantile(0.99, sum by (le) (rate(inference_queue_duration_seconds_bucket{{{MODEL}}}[{RATE}])))",
                    "p99 wait",
                ),
                (
                    f"histogram_quantile(0.5, sum by (le) (rate(inference_queue_duration_seconds_bucket{{{MODEL}}}[{RATE}])))",
                    "p50 wait",
                ),
            ),
            steps=SECONDS,
        ),
        Figure(
            title="Calls turned away",
            text="By a limiter, a second. They count as failed.",
            unit="reqps",
            queries=((f"sum(rate(inference_limiter_rejected_total{{{MODEL}}}[{RATE}]))", "turned away"),),
            steps=NONE_IS_GOOD,
        ),
        Figure(
            title="Items in a call",
            text="Batch size: mean and 90th percentile.",
            unit="short",
            queries=(
                (
                    f"sum(rate(inference_batch_size_sum{{{MODEL}}}[{RATE}])) / sum(rate(inference_batch_size_count{{{MODEL}}}[{RATE}]))",
                    "mean",
                ),
                (
                    f"ceil(histogram_quantile(0.9, sum by (le) (rate(inference_batch_size_bucket{{{MODEL}}}[{RATE}]))))",
                    "p90",
                ),
            ),
        ),
    )


def _tokens() -> tuple[Figure, ...]:
    def quantiles(metric: str) -> tuple[tuple[str, str], ...]:
        chosen = f'{TOKENS},error_type=""'
        return tuple(
            (f"histogram_quantile({q}, sum by (le) (rate({metric}_bucket{{{chosen}}}[{RATE}])))", f"p{q * 100:g}")
            for q in (0.5, 0.9, 0.99)
        )

    return (
        Figure(
            title="Tokens",
            text="Tokens a second, read and written.",
            unit=TOKENS_PER_S,
            queries=(
                (
                    f"sum by (gen_ai_token_type) (rate(gen_ai_client_token_usage_sum{{{TOKENS}}}[{RATE}]))",
                    "{{gen_ai_token_type}}",
                ),
            ),
        ),
        Figure(
            title="Tokens of a call",
            text="Mean of a call, read and written: whether inputs grew.",
            unit="short",
            queries=(
                (
                    (
                        f"sum by (gen_ai_token_type) (rate(gen_ai_client_token_usage_sum{{{TOKENS}}}[{RATE}])) / "
                        f"sum by (gen_ai_token_type) (rate(gen_ai_client_token_usage_count{{{TOKENS}}}[{RATE}]))"
                    ),
                    "{{gen_ai_token_type}}",
                ),
            ),
        ),
        Figure(
            title="Time to first token",
            text="Of successful generations.",
            unit="s",
            queries=quantiles("gen_ai_server_time_to_first_token_seconds"),
            steps=SECONDS,
            exemplars=True,
        ),
        Figure(
            title="Time per output token",
            text="After the first, of successful generations.",
            unit="s",
            queries=quantiles("gen_ai_server_time_per_output_token_seconds"),
            exemplars=True,
        ),
        Figure(
            title="Duration of generations",
            text="To the last output token, of successful generations.",
            unit="s",
            queries=quantiles("gen_ai_server_request_duration_seconds"),
            exemplars=True,
            width=24,
        ),
    )


def _machine() -> tuple[Figure, ...]:
    return (
        Figure(
            title="Accelerators busy",
            text="Share of time that a kernel ran. Empty without an accelerator.",
            unit="percentunit",
            queries=((f"hw_gpu_utilization_ratio{{{JOB}}}", "{{instance}} {{hw_name}} {{hw_id}}"),),
            steps=USED,
            maximum=1.0,
            width=8,
        ),
        Figure(
            title="Accelerator memory",
            text="Used of all there is. Empty without an accelerator.",
            unit="percentunit",
            queries=(
                (
                    f"hw_gpu_memory_usage_bytes{{{JOB}}} / hw_gpu_memory_limit_bytes{{{JOB}}}",
                    "{{instance}} {{hw_name}} {{hw_id}}",
                ),
            ),
            steps=USED,
            maximum=1.0,
            width=8,
        ),
        Figure(
            title="Loads",
            text="Mean time that the processes which report took to load the model; each does so once, and no rate sees that.",
            unit="s",
            queries=(
                (
                    f"sum(inference_model_load_duration_seconds_sum{{{MODEL}}}) / sum(inference_model_load_duration_seconds_count{{{MODEL}}})",
                    "mean",
                ),
            ),
            width=8,
        ),
    )
