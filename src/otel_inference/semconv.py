"""Every name this package writes: attributes, metrics, units, buckets, environment variables.

Data only. `gen_ai.*` follows the GenAI semantic conventions as of v1.41 and is written out here,
because the constants of `opentelemetry-semantic-conventions` are marked as moved.
"""

from __future__ import annotations

from typing import Final

SCOPE: Final = "otel_inference"
SCHEMA_URL: Final = "https://opentelemetry.io/schemas/1.41.0"

# Attributes of a call
ENGINE: Final = "inference.engine"
ENGINE_VERSION: Final = "inference.engine.version"
OPERATION: Final = "inference.operation"
MODEL: Final = "inference.model"
DEVICE: Final = "inference.device"
BATCH_SIZE: Final = "inference.batch.size"
INPUT_SIZE: Final = "inference.input.size"
COLD: Final = "inference.cold"
TIME_TO_FIRST_TOKEN: Final = "inference.time_to_first_token"
TIME_PER_OUTPUT_TOKEN: Final = "inference.time_per_output_token"
DEVICE_DURATION: Final = "inference.device.duration"
QUEUE_DURATION: Final = "inference.queue.duration"
"""Also the name of the metric."""
ERROR_TYPE: Final = "error.type"

# Values of `inference.resource`
RESOURCE_CONCURRENCY: Final = "concurrency"

# GenAI attributes
GEN_AI_OPERATION: Final = "gen_ai.operation.name"
GEN_AI_PROVIDER: Final = "gen_ai.provider.name"
GEN_AI_MODEL: Final = "gen_ai.request.model"
GEN_AI_MAX_TOKENS: Final = "gen_ai.request.max_tokens"
GEN_AI_TEMPERATURE: Final = "gen_ai.request.temperature"
GEN_AI_TOP_P: Final = "gen_ai.request.top_p"
GEN_AI_TOP_K: Final = "gen_ai.request.top_k"
GEN_AI_CHOICE_COUNT: Final = "gen_ai.request.choice.count"
GEN_AI_STREAM: Final = "gen_ai.request.stream"
GEN_AI_INPUT_TOKENS: Final = "gen_ai.usage.input_tokens"
GEN_AI_OUTPUT_TOKENS: Final = "gen_ai.usage.output_tokens"
GEN_AI_TOKEN_TYPE: Final = "gen_ai.token.type"
GEN_AI_INPUT_MESSAGES: Final = "gen_ai.input.messages"
GEN_AI_OUTPUT_MESSAGES: Final = "gen_ai.output.messages"

# Values of `gen_ai.operation.name`
TEXT_COMPLETION: Final = "text_completion"
CHAT: Final = "chat"
EMBEDDINGS: Final = "embeddings"

# Stages of a call, and their attribute: `stage_duration(PREFILL)` and so on
PREPROCESS: Final = "preprocess"
STAGE_FORWARD: Final = "forward"
PREFILL: Final = "prefill"
DECODE: Final = "decode"
POSTPROCESS: Final = "postprocess"
STAGE: Final = "inference.stage"


def stage_duration(stage: str) -> str:
    """The span attribute with the seconds that a call spent in `stage`."""
    return f"{STAGE}.{stage}.duration"


# Values of `inference.operation`
FORWARD: Final = "forward"
GENERATE: Final = "generate"
PIPELINE: Final = "pipeline"
RUN: Final = "run"
LOAD: Final = "load"
ENCODE: Final = "encode"
PREDICT: Final = "predict"
COMPLETION: Final = "completion"
EMBED: Final = "embed"

# Metrics
CALL_DURATION: Final = "inference.call.duration"
BATCH_SIZE_METRIC: Final = "inference.batch.size"
LOAD_DURATION: Final = "inference.model.load.duration"
ACTIVE_CALLS: Final = "inference.active_calls"
HEALTH_THROUGHPUT: Final = "inference.health.throughput"
HEALTH_LATENCY: Final = "inference.health.latency"
HEALTH_ERROR_RATIO: Final = "inference.health.error_ratio"
HEALTH_UTILIZATION: Final = "inference.health.utilization"
HEALTH_STATE: Final = "inference.health.state"
QUANTILE: Final = "quantile"
RESOURCE: Final = "inference.resource"
HW_GPU_UTILIZATION: Final = "hw.gpu.utilization"
HW_GPU_MEMORY_USAGE: Final = "hw.gpu.memory.usage"
HW_GPU_MEMORY_LIMIT: Final = "hw.gpu.memory.limit"
HW_GPU_MEMORY_UTILIZATION: Final = "hw.gpu.memory.utilization"
HW_ID: Final = "hw.id"
HW_NAME: Final = "hw.name"
HW_VENDOR: Final = "hw.vendor"
FINDINGS: Final = "inference.findings"
FINDING_KIND: Final = "kind"
FINDING_SEVERITY: Final = "severity"
MAINTENANCE_ACTIONS: Final = "inference.maintenance.actions"
MAINTENANCE_ACTION: Final = "action"
MAINTENANCE_OUTCOME: Final = "outcome"
LIMITER_LIMIT: Final = "inference.limiter.limit"
LIMITER_IN_USE: Final = "inference.limiter.in_use"
LIMITER_REJECTED: Final = "inference.limiter.rejected"
SELF_ERRORS: Final = "inference.self.errors"
SELF_DROPPED: Final = "inference.self.dropped"
WHERE: Final = "where"
GEN_AI_REQUEST_DURATION: Final = "gen_ai.server.request.duration"
GEN_AI_TIME_TO_FIRST_TOKEN: Final = "gen_ai.server.time_to_first_token"
GEN_AI_TIME_PER_OUTPUT_TOKEN: Final = "gen_ai.server.time_per_output_token"
GEN_AI_TOKEN_USAGE: Final = "gen_ai.client.token.usage"

# Events (OpenTelemetry logs), and the attributes of theirs that are not a call's
FINDING_OPENED: Final = "inference.finding.opened"
FINDING_CLOSED: Final = "inference.finding.closed"
MAINTENANCE_EVENT: Final = "inference.maintenance.action"
FINDING_EVENT_KIND: Final = "inference.finding.kind"
FINDING_EVENT_SEVERITY: Final = "inference.finding.severity"
FINDING_SUBJECT: Final = "inference.finding.subject"
FINDING_SINCE: Final = "inference.finding.since"
FINDING_ADVICE: Final = "inference.finding.advice"
FINDING_EXPLAINED_BY: Final = "inference.finding.explained_by"
FINDING_EVIDENCE: Final = "inference.finding.evidence"
"""Prefix: `inference.finding.evidence.p99_s` and so on."""

# Attributes of the spans and events of maintenance
ACTION_NAME: Final = "inference.maintenance.action"
ACTION_OUTCOME: Final = "inference.maintenance.outcome"
ACTION_MODE: Final = "inference.maintenance.mode"
ACTION_DETAIL: Final = "inference.maintenance.detail"
ACTION_DURATION: Final = "inference.maintenance.duration"
ACTION_VERDICT: Final = "inference.maintenance.verdict"
KNOB_BEFORE: Final = "inference.maintenance.knob.before"
KNOB_AFTER: Final = "inference.maintenance.knob.after"

# Baggage
DEADLINE: Final = "inference.deadline"
"""Until when a request's answer is of use: the time of day in seconds since 1970 (UTC)."""

# Sampling
KEPT_BY: Final = "inference.sampling.kept_by"
"""Why a span is exported though the head decision was no: `error` or `slow`; on the spans of its local trace too."""
ADJUSTED_COUNT: Final = "inference.sampling.adjusted_count"
"""For how many calls of its kind a span stands, where that is not what `ot=th:` of its tracestate says.

It goes before that: 1 for a failed or slow call while tail keep is on, 0 for the other spans of a trace kept by its tail.
"""

# Bucket advice. The conventions' own where they have any; the SDK's default (0 to 10,000) would
# put every call into its first bucket. A forward pass of a small model takes microseconds.
CALL_SECONDS: Final = (
    0.00001, 0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05,
    0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
)  # fmt: skip
LOAD_SECONDS: Final = (0.01, 0.05, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
BATCH_ITEMS: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0)
GEN_AI_DURATION_SECONDS: Final = (
    0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92,
)  # fmt: skip
GEN_AI_FIRST_TOKEN_SECONDS: Final = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
)  # fmt: skip
GEN_AI_PER_TOKEN_SECONDS: Final = (
    0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5,
)  # fmt: skip
GEN_AI_TOKENS: Final = (
    1.0, 4.0, 16.0, 64.0, 256.0, 1024.0, 4096.0, 16384.0, 65536.0, 262144.0, 1048576.0, 4194304.0,
    16777216.0, 67108864.0,
)  # fmt: skip

# Environment variables: prefix and names after it
ENV_PREFIX: Final = "OTEL_INFERENCE_"
ENV_ENGINES: Final = "OTEL_INFERENCE_ENGINES"
ENV_MAX_MODELS: Final = "OTEL_INFERENCE_MAX_MODELS"
ENV_CAPTURE_CONTENT: Final = "OTEL_INFERENCE_CAPTURE_CONTENT"
ENV_SPANS_DETAIL: Final = "OTEL_INFERENCE_SPANS_DETAIL"
ENV_TRAINING: Final = "OTEL_INFERENCE_TRAINING"
ENV_WINDOW: Final = "OTEL_INFERENCE_WINDOW_S"
ENV_RESOURCES: Final = "OTEL_INFERENCE_RESOURCES"
ENV_SLO_LATENCY: Final = "OTEL_INFERENCE_SLO_LATENCY"
ENV_SLO_ERRORS: Final = "OTEL_INFERENCE_SLO_ERRORS"
ENV_ALERT_WEBHOOK: Final = "OTEL_INFERENCE_ALERT_WEBHOOK"
ENV_ALERTMANAGER: Final = "OTEL_INFERENCE_ALERTMANAGER"
ENV_TAIL_KEEP: Final = "OTEL_INFERENCE_TAIL_KEEP"
ENV_SAMPLING_RATIO: Final = "OTEL_INFERENCE_SAMPLING_RATIO"
ENV_BOOST_PER_SECOND: Final = "OTEL_INFERENCE_BOOST_PER_SECOND"
ENV_MAX_PER_SECOND: Final = "OTEL_INFERENCE_MAX_PER_SECOND"
ENV_MAINTENANCE: Final = "OTEL_INFERENCE_MAINTENANCE"
ENV_ACTIONS: Final = "OTEL_INFERENCE_ACTIONS"
ENV_JOURNAL: Final = "OTEL_INFERENCE_JOURNAL"
ENV_STRICT: Final = "OTEL_INFERENCE_STRICT"
