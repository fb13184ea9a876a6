"""503 for refused calls, in ASGI applications (FastAPI, Starlette, Quart, Litestar, Django's ASGI handler)."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from otel_inference.maintenance.announcement import announced
from otel_inference.maintenance.deadline import outer_deadline, seconds_of
from otel_inference.maintenance.paths import UNREFUSED, ModelPaths
from otel_inference.maintenance.refusal import STATUS, noted, overload_in, refusal_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, MutableMapping

    from otel_inference.errors import OverloadedError

    Message = MutableMapping[str, Any]
    Send = Callable[[Message], Awaitable[None]]
    Application = Callable[[MutableMapping[str, Any], Callable[[], Awaitable[Message]], Send], Awaitable[None]]


class OverloadMiddleware:
    """Answers 503 with `Retry-After` where a limiter turned a call away.

    It makes no difference whether the application lets `OverloadedError` through, wraps it in an
    `ExceptionGroup` of such errors, or answers 500 because of it. What handles the error itself, say by
    an answer of its own, is left alone. Once a piece of a body is out, the error goes on. Only HTTP is touched.

    ```python
    app.add_middleware(OverloadMiddleware)  # FastAPI, Starlette
    app = OverloadMiddleware(app)           # any other
    ```

    Args:
        app: The application.
        deadline_header: Name of a request header with the seconds that the client waits for the answer, such
            as `x-request-timeout`; limiters heed it where it is shorter than their own deadline. Default: none is read.
        models: Names of models by path, such as `{"/embed": "minilm"}`: requests of these paths, and of those below them,
            call that model. They are refused before the application sees them and before their body is read while
            the model's limiter would turn a call away; `None` for a path takes it out again. Default: the application
            is asked each time.

    Raises:
        ConfigError: If `models` is not that.
    """

    def __init__(
        self, app: Application, *, deadline_header: str | None = None, models: Mapping[str, str | None] | None = None
    ) -> None:
        self._app = app
        self._paths = ModelPaths({} if models is None else models)
        self._header = None if deadline_header is None else deadline_header.lower().encode("latin-1")

    async def __call__(
        self, scope: MutableMapping[str, Any], receive: Callable[[], Awaitable[Message]], send: Send
    ) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        answer = _Answer(send)
        try:
            with outer_deadline(self._asked_s(scope)), announced(self._model_of(scope)), noted(answer.overloads):
                await self._app(scope, receive, answer.send)
        except Exception as error:
            overload = overload_in(error)
            if overload is None or answer.begun:
                await answer.begin()
                raise
            await answer.refuse(overload)
        else:
            await answer.begin()

    def _model_of(self, scope: MutableMapping[str, Any]) -> str | None:
        """The model that a request will call, if that is known."""
        if not self._paths or scope["method"] == UNREFUSED:
            return None
        return self._paths.model_of(scope["path"].removeprefix(scope.get("root_path") or ""))

    def _asked_s(self, scope: MutableMapping[str, Any]) -> float | None:
        if self._header is None:
            return None
        for name, value in scope.get("headers", ()):
            if name.lower() == self._header:
                return seconds_of(value.decode("latin-1"))
        return None


class _Answer:
    """The response to one request, on its way out.

    Its head is held back until a piece of body is there, as servers themselves may do (ASGI, "Response Start"):
    a streamed answer is refused with its first piece.
    """

    def __init__(self, send: Send) -> None:
        self._send = send
        self._head: Message | None = None
        self.overloads: list[OverloadedError] = []
        """What limiters refused to this request."""
        self.begun = False
        """Whether a response of the application's is out of our hands."""
        self._refused = False

    async def send(self, message: Message) -> None:
        """Pass a message of the application on, unless it is of a 500 that stands for a refusal."""
        if message["type"] != "http.response.start":
            await self.begin()
            if not self._refused:
                await self._send(message)
        elif message["status"] == HTTPStatus.INTERNAL_SERVER_ERROR and self.overloads and not self.begun:
            await self.refuse(self.overloads[0])
        else:
            self._head = message

    async def begin(self) -> None:
        """Send the head, if there is one and it has not been sent."""
        if self._head is not None and not self._refused:
            head, self._head, self.begun = self._head, None, True
            await self._send(head)

    async def refuse(self, error: OverloadedError) -> None:
        """Answer 503, once; what the application sends from now on is dropped."""
        if self._refused:
            return
        self._refused = True
        refusal = refusal_of(error)
        headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in refusal.headers]
        await self._send({"type": "http.response.start", "status": STATUS.value, "headers": headers})
        await self._send({"type": "http.response.body", "body": refusal.body})
