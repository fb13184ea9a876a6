"""The environment variables, in the form in which the launcher makes command line flags of them."""

from otel_inference.semconv import (
    ENV_ACTIONS as OTEL_INFERENCE_ACTIONS,
)
from otel_inference.semconv import (
    ENV_ALERT_WEBHOOK as OTEL_INFERENCE_ALERT_WEBHOOK,
)
from otel_inference.semconv import (
    ENV_ALERTMANAGER as OTEL_INFERENCE_ALERTMANAGER,
)
from otel_inference.semconv import (
    ENV_BOOST_PER_SECOND as OTEL_INFERENCE_BOOST_PER_SECOND,
)
from otel_inference.semconv import (
    ENV_CAPTURE_CONTENT as OTEL_INFERENCE_CAPTURE_CONTENT,
)
from otel_inference.semconv import (
    ENV_ENGINES as OTEL_INFERENCE_ENGINES,
)
from otel_inference.semconv import (
    ENV_JOURNAL as OTEL_INFERENCE_JOURNAL,
)
from otel_inference.semconv import (
    ENV_MAINTENANCE as OTEL_INFERENCE_MAINTENANCE,
)
from otel_inference.semconv import (
    ENV_MAX_MODELS as OTEL_INFERENCE_MAX_MODELS,
)
from otel_inference.semconv import (
    ENV_MAX_PER_SECOND as OTEL_INFERENCE_MAX_PER_SECOND,
)
from otel_inference.semconv import (
    ENV_RESOURCES as OTEL_INFERENCE_RESOURCES,
)
from otel_inference.semconv import (
    ENV_SAMPLING_RATIO as OTEL_INFERENCE_SAMPLING_RATIO,
)
from otel_inference.semconv import (
    ENV_SLO_ERRORS as OTEL_INFERENCE_SLO_ERRORS,
)
from otel_inference.semconv import (
    ENV_SLO_LATENCY as OTEL_INFERENCE_SLO_LATENCY,
)
from otel_inference.semconv import (
    ENV_SPANS_DETAIL as OTEL_INFERENCE_SPANS_DETAIL,
)
from otel_inference.semconv import (
    ENV_STRICT as OTEL_INFERENCE_STRICT,
)
from otel_inference.semconv import (
    ENV_TAIL_KEEP as OTEL_INFERENCE_TAIL_KEEP,
)
from otel_inference.semconv import (
    ENV_TRAINING as OTEL_INFERENCE_TRAINING,
)
from otel_inference.semconv import (
    ENV_WINDOW as OTEL_INFERENCE_WINDOW_S,
)

__all__ = [
    "OTEL_INFERENCE_ACTIONS",
    "OTEL_INFERENCE_ALERTMANAGER",
    "OTEL_INFERENCE_ALERT_WEBHOOK",
    "OTEL_INFERENCE_BOOST_PER_SECOND",
    "OTEL_INFERENCE_CAPTURE_CONTENT",
    "OTEL_INFERENCE_ENGINES",
    "OTEL_INFERENCE_JOURNAL",
    "OTEL_INFERENCE_MAINTENANCE",
    "OTEL_INFERENCE_MAX_MODELS",
    "OTEL_INFERENCE_MAX_PER_SECOND",
    "OTEL_INFERENCE_RESOURCES",
    "OTEL_INFERENCE_SAMPLING_RATIO",
    "OTEL_INFERENCE_SLO_ERRORS",
    "OTEL_INFERENCE_SLO_LATENCY",
    "OTEL_INFERENCE_SPANS_DETAIL",
    "OTEL_INFERENCE_STRICT",
    "OTEL_INFERENCE_TAIL_KEEP",
    "OTEL_INFERENCE_TRAINING",
    "OTEL_INFERENCE_WINDOW_S",
]
