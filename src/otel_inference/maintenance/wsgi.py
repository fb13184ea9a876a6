"""503 for refused calls, in WSGI applications (Flask, Django, Bottle, Pyramid)."""

from __future__ import annotations

from dataclasses import replace
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar

from otel_inference.maintenance.announcement import announced
from otel_inference.maintenance.deadline import outer_deadline, seconds_of
from otel_inference.maintenance.paths import UNREFUSED, ModelPaths
from otel_inference.maintenance.refusal import STATUS, noted, overload_in, refusal_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from types import TracebackType
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from otel_inference.errors import OverloadedError
    from otel_inference.maintenance.refusal import Refusal

    OptExcInfo = tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None]

_Value = TypeVar("_Value")


class OverloadMiddleware:
    """Answers 503 with `Retry-After` where a limiter turned a call away.

    It makes no difference whether the application lets `OverloadedError` through, before or with its first
    piece of body, or answers 500 because of it, as Flask and Django do. What handles the error itself, say
    by an answer of its own, is left alone. Once a piece of the response is out, the error goes on.

    ```python
    app.wsgi_app = OverloadMiddleware(app.wsgi_app)  # Flask
    application = OverloadMiddleware(application)    # any other
    ```

    Args:
        app: The application.
        deadline_header: Name of a request header with the seconds that the client waits for the answer, such
            as `X-Request-Timeout`; limiters heed it where it is shorter than their own deadline. Default: none is read.
        models: Names of models by path, such as `{"/embed": "minilm"}`: requests of these paths, and of those below them,
            call that model. They are refused before the application sees them and before their body is read while
            the model's limiter would turn a call away; `None` for a path takes it out again. Default: the application
            is asked each time.

    Raises:
        ConfigError: If `models` is not that.
    """

    def __init__(
        self,
        app: WSGIApplication,
        *,
        deadline_header: str | None = None,
        models: Mapping[str, str | None] | None = None,
    ) -> None:
        self._app = app
        self._paths = ModelPaths({} if models is None else models)
        self._key = None if deadline_header is None else "HTTP_" + deadline_header.upper().replace("-", "_")

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request."""
        told = None if self._key is None else environ.get(self._key)
        left_s = None if told is None else seconds_of(told)
        answer = _Answer(start_response, left_s, bodiless=environ.get("REQUEST_METHOD") == "HEAD")
        nothing: Iterable[bytes] = ()

        def called() -> Iterable[bytes]:
            with announced(self._model_of(environ)):
                return self._app(environ, answer.start)

        body = answer.watched(called, nothing)
        if answer.refusal is None and _is_complete(body, environ):
            answer.begin()
            return body
        return _Body(body, answer)

    def _model_of(self, environ: WSGIEnvironment) -> str | None:
        """The model that a request will call, if that is known."""
        if not self._paths or environ.get("REQUEST_METHOD") == UNREFUSED:
            return None
        path: str = environ.get("PATH_INFO", "")
        return self._paths.model_of(path.encode("latin-1", "replace").decode("utf-8", "replace"))  # as PEP 3333 has it


class _Answer:
    """The response to one request, on its way out.

    Its head is held back until there is something to send: servers differ in what they do with a second one.
    """

    def __init__(self, start_response: StartResponse, asked_s: float | None, *, bodiless: bool) -> None:
        self._start_response = start_response
        self._bodiless = bodiless
        self._until_s = None if asked_s is None else monotonic() + asked_s
        self._overloads: list[OverloadedError] = []
        self._head: tuple[str, list[tuple[str, str]], OptExcInfo | None] | None = None
        self._write: Callable[[bytes], object] = _drop
        self._begun = False
        self.refusal: Refusal | None = None
        """What is sent in place of the application's response."""

    def watched(self, step: Callable[[], _Value], otherwise: _Value) -> _Value:
        """What a step of the application gives; `otherwise` if a limiter turned it away."""
        left_s = None if self._until_s is None else self._until_s - monotonic()
        with outer_deadline(left_s), noted(self._overloads):
            try:
                return step()
            except Exception as error:
                overload = overload_in(error)
                if overload is None or self._begun:
                    raise
                self._refuse(overload)
                return otherwise

    def start(
        self, status: str, headers: list[tuple[str, str]], exc_info: OptExcInfo | None = None, /
    ) -> Callable[[bytes], object]:
        """The `start_response` of the application; a 500 that stands for a refusal is one."""
        if self._begun:
            return self._start_response(status, headers, exc_info)  # which raises
        if status.startswith("500") and self._overloads:
            self._refuse(self._overloads[0])
        if self.refusal is not None:
            return _drop
        self._head = (status, headers, exc_info)
        return self._write_at_once

    def begin(self) -> None:
        """Send the head, if there is one and it has not been sent."""
        if self._head is not None:
            head, self._head, self._begun = self._head, None, True
            self._write = self._start_response(*head)

    def _write_at_once(self, piece: bytes) -> None:
        self.begin()
        self._write(piece)

    def _refuse(self, error: OverloadedError) -> None:
        refusal = refusal_of(error)
        # Servers send to `HEAD` whatever they are given, and the client takes it for its next answer.
        self.refusal = replace(refusal, body=b"") if self._bodiless else refusal
        self._head = (f"{STATUS.value} {STATUS.phrase}", list(self.refusal.headers), None)


class _Body:
    """The pieces of a body, each made where the request's deadline holds and refusals are noted."""

    def __init__(self, body: Iterable[bytes], answer: _Answer) -> None:
        self._body = body
        self._pieces = iter(body)
        self._answer = answer
        self._refused = False

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        piece = None if self._refused else self._next()
        if piece is None or piece:  # an empty one may come before the head
            self._answer.begin()
        if piece is None:
            raise StopIteration
        return piece

    def _next(self) -> bytes | None:
        answer = self._answer
        piece = answer.watched(lambda: next(self._pieces, None), None) if answer.refusal is None else None
        if answer.refusal is None:
            return piece
        self._refused = True
        return answer.refusal.body or None

    def close(self) -> None:
        """Close the application's own body, as the server asks for in the end."""
        close = getattr(self._body, "close", None)
        if close is not None:
            close()


def _drop(_: bytes) -> None:
    """Write nothing: the answer is another one."""


def _is_complete(body: Iterable[bytes], environ: WSGIEnvironment) -> bool:
    """Whether nothing of the application runs any more: servers look at the length of a list, and send files."""
    file_wrapper: Any = environ.get("wsgi.file_wrapper")
    return isinstance(body, (list, tuple)) or (isinstance(file_wrapper, type) and isinstance(body, file_wrapper))
