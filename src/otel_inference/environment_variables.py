"""The environment variables, in the form in which the launcher makes command line flags of them."""

from otel_inference.semconv import (
    ENV_CAPTURE_CONTENT as OTEL_INFERENCE_CAPTURE_CONTENT,
)
from otel_inference.semconv import (
    ENV_ENGINES as OTEL_INFERENCE_ENGINES,
)
from otel_inference.semconv import (
    ENV_MAX_MODELS as OTEL_INFERENCE_MAX_MODELS,
)
from otel_inference.semconv import (
    ENV_RESOURCES as OTEL_INFERENCE_RESOURCES,
)
from otel_inference.semconv import (
    ENV_SPANS_DETAIL as OTEL_INFERENCE_SPANS_DETAIL,
)
from otel_inference.semconv import (
    ENV_STRICT as OTEL_INFERENCE_STRICT,
)
from otel_inference.semconv import (
    ENV_TRAINING as OTEL_INFERENCE_TRAINING,
)
from otel_inference.semconv import (
    ENV_WINDOW as OTEL_INFERENCE_WINDOW_S,
)

__all__ = [
    "OTEL_INFERENCE_CAPTURE_CONTENT",
    "OTEL_INFERENCE_ENGINES",
    "OTEL_INFERENCE_MAX_MODELS",
    "OTEL_INFERENCE_RESOURCES",
    "OTEL_INFERENCE_SPANS_DETAIL",
    "OTEL_INFERENCE_STRICT",
    "OTEL_INFERENCE_TRAINING",
    "OTEL_INFERENCE_WINDOW_S",
]
