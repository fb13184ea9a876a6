"""Never run: the public API as a type checker has to see it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import otel_inference
from otel_inference import Config, observe

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator


@observe("ranker", "predict", batch_size=len)
def predict(rows: list[int]) -> int:
    """A decorated function keeps its type."""
    return len(rows)


@observe("ranker")
async def predict_later(rows: list[int]) -> str:
    """A decorated coroutine function keeps its type."""
    return str(rows)


@observe("writer")
def stream() -> Generator[str, None, int]:
    """A decorated generator function keeps its type."""
    yield "a"
    return 1


@observe("writer")
async def stream_later() -> AsyncGenerator[str, None]:
    """A decorated asynchronous generator function keeps its type."""
    yield "a"


def use() -> None:
    """Calls are checked like those of the undecorated functions."""
    count: int = predict([1, 2])
    with observe("ranker", batch_size=count) as call:
        call.set(output_tokens=3)
        call.fail(ValueError("no answer"))
    otel_inference.instrument(["torch"], config=Config(max_models=3))
    sent: bool = otel_inference.force_flush(timeout_s=1.0)
    otel_inference.name_model(object(), f"sent-{sent}")
    otel_inference.uninstrument()
