"""Knobs of the engines themselves: torch's threads, a pipeline's batch size, the longest text that may be written.

Each is made by the user, for an object or a library that is already there; none imports an engine.
"""

from __future__ import annotations

import sys
import threading
import weakref
from typing import TYPE_CHECKING, Any, Final

from otel_inference.errors import KnobError
from otel_inference.maintenance.knob import Knob

if TYPE_CHECKING:
    from collections.abc import Callable

_PIPELINES: Final = "transformers.pipelines.base"


class _OfThread(threading.local):
    """What a thread has."""

    adopted: int | None = None
    """The number of threads it was given here."""
    own: int = 0
    """The number it had before."""


class _TorchThreads:
    """How many threads an operation of torch may use, in all threads of the process that call models."""

    def __init__(self) -> None:
        self._ever_wanted = False
        self._wanted: int | None = None
        self._of_thread = _OfThread()

    def want(self, count: int | None) -> None:
        """Say what `adopt` puts in force from now on; `None`: what each thread had."""
        self._wanted = count
        self._ever_wanted = True

    @property
    def wanted(self) -> int | None:
        """What was said last."""
        return self._wanted

    def adopt(self) -> None:
        """Put in force, in this thread, what is wanted."""
        if not self._ever_wanted:
            return
        wanted, thread = self._wanted, self._of_thread
        if thread.adopted == wanted:
            return
        torch = sys.modules["torch"]  # something is or was wanted, so it is there
        if thread.adopted is None:
            thread.own = torch.get_num_threads()
        torch.set_num_threads(thread.own if wanted is None else wanted)
        thread.adopted = wanted


_torch_threads: Final = _TorchThreads()

adopt_torch_threads: Final = _torch_threads.adopt
"""Makes a change of `torch_threads` reach the thread it is called in.

With OpenMP, torch's usual builds count threads per calling thread: `torch.set_num_threads` changes the one it is called in
and those that have not yet used torch. So this is to be called in the thread of a model's call, when that begins. It
takes about 0.2 us while nothing was ever to be changed.
"""


def torch_threads(*, most: int | None = None) -> Knob:
    """Threads that one operation of torch may use: fewer are faster where several calls run at once.

    Changing them affects threads in which `adopt_torch_threads` is called. The knob starts at what torch uses now.

    Args:
        most: Largest number to try; default: what torch uses now.

    Raises:
        KnobError: If torch was not imported, or may use no more than one thread.
    """
    torch = sys.modules.get("torch")
    if torch is None:
        msg = "torch_threads() found no torch; expected the program to have imported it: call this after that"
        raise KnobError(msg)
    original = torch.get_num_threads()
    highest = original if most is None else most
    if highest <= 1:
        msg = f"torch_threads() got most={highest!r}; expected more than 1: torch may use one thread only, with nothing to tune"
        raise KnobError(msg)

    def put(count: float) -> None:
        torch.set_num_threads(int(count))  # for threads that have not used torch yet
        _torch_threads.want(None if count == original else int(count))

    def get() -> int:
        # In a fresh thread, as knobs are read in, torch says what was set last in any thread.
        return original if _torch_threads.wanted is None else int(torch.get_num_threads())

    return Knob("torch_threads", get, put, low=1, high=highest, scale="log", lower_is_lighter=False)


def pipeline_batch_size(pipeline: Any, *, most: int = 32) -> Knob:
    """Items that a transformers pipeline gives its model at once, where it is called with many and no `batch_size`.

    Args:
        pipeline: Of any task. The knob does not keep it alive.
        most: Largest number to try.

    Raises:
        KnobError: If this is no pipeline, or one that cannot put items together, as without a padding token.
    """
    if not hasattr(pipeline, "_batch_size") or _PIPELINES not in sys.modules:
        msg = f"pipeline_batch_size() got {type(pipeline).__name__}; expected a pipeline of transformers >= 4.40"
        raise KnobError(msg)
    extractor = getattr(pipeline, "feature_extractor", None) or getattr(pipeline, "image_processor", None)
    try:
        sys.modules[_PIPELINES].pad_collate_fn(pipeline.tokenizer, extractor)
    except ValueError as error:
        msg = f"pipeline_batch_size() got a pipeline that cannot work on batches: {error}"
        raise KnobError(msg) from error
    original, pipeline_of = pipeline._batch_size, _alive("pipeline", pipeline)

    def put(size: float) -> None:
        pipeline_of()._batch_size = original if size == (original or 1) else int(size)

    return Knob(
        "pipeline_batch_size",
        lambda: pipeline_of()._batch_size or 1,
        put,
        low=1,
        high=max(most, original or 1),
        scale="log",
    )


def max_new_tokens(model: Any, *, least: int) -> Knob:
    """Longest text that a model may write: shorter in a brown-out, so that more calls are answered in time.

    It is lowered only while the objective is broken, and goes up again to what the user had set, never above. It applies
    to calls that give no length of their own.

    Args:
        model: A model or pipeline of transformers whose `generation_config.max_new_tokens` is set. The knob does not
            keep it alive.
        least: Shortest limit that is still worth an answer, in tokens.

    Raises:
        KnobError: If the model has no such limit, or it is not above `least`.
    """
    limit = getattr(getattr(model, "generation_config", None), "max_new_tokens", None)
    if not isinstance(limit, int) or not 0 < least < limit:
        msg = (
            f"max_new_tokens() got generation_config.max_new_tokens={limit!r} and least={least!r}; expected "
            "0 < least < max_new_tokens: set model.generation_config.max_new_tokens to the longest text that is wanted"
        )
        raise KnobError(msg)
    model_of = _alive("model", model)

    def put(tokens: float) -> None:
        model_of().generation_config.max_new_tokens = int(tokens)

    return Knob(
        "max_new_tokens",
        lambda: model_of().generation_config.max_new_tokens,
        put,
        low=least,
        high=limit,
        scale="log",
        brown_out=True,
    )


def _alive(what: str, thing: Any) -> Callable[[], Any]:
    """A function that returns the thing, as long as somebody else keeps it."""
    reference = weakref.ref(thing)

    def alive() -> Any:
        found = reference()
        if found is None:
            msg = f"the {what} is gone"
            raise ReferenceError(msg)
        return found

    return alive
