"""What OpenTelemetry's launcher loads: one stateless instrumentor per engine, and one for `observe()`.

`instrument()` of the launcher passes no options; those under
`instrumentation/development: python: inference_torch:` of a declarative configuration file arrive
as keyword arguments. An exception other than an import error would keep every later instrumentor of
any vendor from loading, so that whatever goes wrong here is one log line.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, ClassVar

from opentelemetry.instrumentation.instrumentor import BaseInstrumentor  # type: ignore[attr-defined]

from otel_inference import guard, runtime
from otel_inference.engines import load
from otel_inference.errors import EngineUnavailableError, OtelInferenceError

if TYPE_CHECKING:
    from collections.abc import Collection

_log = logging.getLogger("otel_inference")
_PROVIDERS = ("tracer_provider", "meter_provider", "logger_provider")


@dataclass
class Options:
    """Options of a declarative configuration file; each overrides the environment's."""

    max_models: int | None = None
    spans_detail: str | None = None
    capture_content: bool | None = None
    resources: bool | None = None
    tail_keep: bool | None = None
    training: bool | None = None


class _Instrumentor(BaseInstrumentor):  # type: ignore[misc]
    configuration: ClassVar[type] = Options
    engines: ClassVar[tuple[str, ...]] = ()
    what: ClassVar[str]

    def _instrument(self, **kwargs: Any) -> None:
        try:
            providers = {name: kwargs.pop(name) for name in _PROVIDERS if name in kwargs}
            if all(map(runtime.allows, self.engines)):
                runtime.instrument(self.engines, **providers)
                runtime.adjust(kwargs)
        except EngineUnavailableError as error:
            _log.debug("%s", error)
        except OtelInferenceError as error:
            _log.error("%s is not instrumented as configured: %s", self.what, error)
        except Exception:  # noqa: BLE001 - see the module's docstring
            guard.failed("entrypoint")

    def _uninstrument(self, **_: Any) -> None:
        runtime.uninstrument(self.engines)


class ObserveInstrumentor(_Instrumentor):
    """`inference_observe`: what `observe()` measures, also where no engine is installed."""

    what = "observe()"

    def instrumentation_dependencies(self) -> Collection[str]:
        """None: it patches nothing."""
        return ()


class _EngineInstrumentor(_Instrumentor):
    engine: ClassVar[str]

    def __init_subclass__(cls) -> None:
        """Say what is instrumented."""
        cls.what, cls.engines = cls.engine, (cls.engine,)

    def instrumentation_dependencies(self) -> Collection[str]:
        """The library this engine patches, with its supported versions."""
        engine = load(self.engine)
        # Another distribution may bring the same library: onnxruntime-gpu is onnxruntime.
        return () if find_spec(engine.name) is not None else (engine.requires,)


class TorchInstrumentor(_EngineInstrumentor):
    """`inference_torch`."""

    engine = "torch"


class TransformersInstrumentor(_EngineInstrumentor):
    """`inference_transformers`."""

    engine = "transformers"


class OnnxRuntimeInstrumentor(_EngineInstrumentor):
    """`inference_onnxruntime`."""

    engine = "onnxruntime"


class SentenceTransformersInstrumentor(_EngineInstrumentor):
    """`inference_sentence_transformers`."""

    engine = "sentence_transformers"


class LlamaCppInstrumentor(_EngineInstrumentor):
    """`inference_llama_cpp`."""

    engine = "llama_cpp"
