"""Refused calls as answers of ASGI applications, whatever a framework makes of exceptions."""

from __future__ import annotations

import asyncio
import http.client
import threading
import time
from contextlib import contextmanager

import anyio
import pytest
import uvicorn
from fastapi import FastAPI
from fastapi.responses import JSONResponse, StreamingResponse
from tests.maintenance import fake_gate as fake

from otel_inference.errors import ConfigError, OverloadedError
from otel_inference.maintenance import asgi
from otel_inference.maintenance.deadline import asked

LIMITER, USUAL_S, refuse, assert_refused = fake.CLOSED, fake.FOREVER_S, fake.refuse, fake.assert_refused


def remaining_s(usual_s):
    """Seconds left to the current request."""
    request = asked()
    return usual_s if request is None else request.left_s(usual_s)


def get(app, path="/", headers=()):
    """Status, headers and body of a GET, and what the application raised."""
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET", "scheme": "http",
        "path": path, "raw_path": path.encode(), "query_string": b"", "headers": list(headers),
        "client": None, "server": None,
    }  # fmt: skip
    sent, raised = [], None

    async def receive():
        await asyncio.sleep(60)

    async def send(message):
        sent.append(message)

    try:
        asyncio.run(app(scope, receive, send))
    except Exception as error:  # noqa: BLE001 - handed to the test
        raised = error
    begun = [message for message in sent if message["type"] == "http.response.start"]
    assert len(begun) <= 1
    body = b"".join(message.get("body", b"") for message in sent if message["type"] == "http.response.body")
    if not begun:
        return None, {}, body, raised
    names = {name.decode().lower(): value.decode() for name, value in begun[0]["headers"]}
    return begun[0]["status"], names, body, raised


def fastapi(route, **options):
    """A FastAPI application with one route, behind the middleware as FastAPI has it."""
    app = FastAPI()
    app.add_middleware(asgi.OverloadMiddleware, **options)
    app.get("/")(route)
    return app


def test_answers_for_a_function_in_a_thread():
    """A FastAPI endpoint in the thread pool whose call is refused answers 503."""
    *answer, raised = get(fastapi(refuse))

    assert_refused(*answer)
    assert raised is None


def test_answers_for_a_coroutine():
    """An asynchronous endpoint whose call is refused answers 503."""

    async def route():
        await LIMITER.acquire_async("ranker")

    assert_refused(*get(fastapi(route))[:3])


def test_answers_for_a_task_group():
    """A group of nothing but refusals, as task groups raise it, is a refusal; one with another error is not."""

    def app_of(*errors):
        async def route():
            raise ExceptionGroup("tasks", errors)  # noqa: EM101 - as task groups call it

        return fastapi(route)

    refusals = [OverloadedError("ranker", 1.5), OverloadedError("tagger", 0.1)]
    nested = ExceptionGroup("inner", refusals)
    assert_refused(*get(app_of(refusals[1], nested))[:3])
    status, *_, raised = get(app_of(nested, ValueError()))
    assert (status, type(raised)) == (500, ExceptionGroup)


def test_answers_for_a_real_task_group():
    """A refusal in a task of anyio's is answered as one."""

    async def route():
        async with anyio.create_task_group() as group:
            group.start_soon(LIMITER.acquire_async, "ranker")

    assert_refused(*get(fastapi(route))[:3])


def test_answers_around_a_framework_that_answers_500():
    """Around the whole of FastAPI, which answers 500 and raises on, the answer is 503 and nothing is raised."""
    inner = FastAPI()
    inner.get("/")(refuse)
    inner.get("/broken")(lambda: 1 / 0)
    app = asgi.OverloadMiddleware(inner)

    *answer, raised = get(app)
    assert_refused(*answer)
    assert raised is None
    status, *_, raised = get(app, "/broken")
    assert (status, type(raised)) == (500, ZeroDivisionError)


def test_leaves_an_answer_of_the_applications_own():
    """An application that handles the error itself has its own answer sent."""
    app = fastapi(refuse)
    app.add_exception_handler(OverloadedError, lambda request, error: JSONResponse({"cached": 1}))

    status, _, body, raised = get(app)
    assert (status, body, raised) == (200, b'{"cached":1}', None)


def test_answers_for_a_stream_that_is_refused_at_once():
    """A streamed answer whose call is refused before its first piece is a 503."""

    def pieces():
        refuse()
        yield "never"

    async def pieces_async():
        await LIMITER.acquire_async("ranker")
        yield "never"

    for route in (lambda: StreamingResponse(pieces()), lambda: StreamingResponse(pieces_async())):
        *answer, raised = get(fastapi(route))
        assert_refused(*answer)
        assert raised is None


def test_passes_everything_else_on():
    """What an application sends reaches the server in its order, also a head without a body."""
    start = {"type": "http.response.start", "status": 200, "headers": []}
    hint, body = {"type": "http.response.early_hint"}, {"type": "http.response.body"}
    for messages in ([hint, start, body, body], [start]):
        sent = []

        async def app(scope, receive, send, messages=messages):
            for message in messages:
                await send(message)

        async def send(message, sent=sent):
            sent.append(message)

        asyncio.run(asgi.OverloadMiddleware(app)({"type": "http"}, None, send))
        assert sent == messages


def test_raises_when_the_answer_has_begun():
    """Once a response is under way, the error goes on to the server."""

    def pieces():
        yield "some"
        refuse()

    status, _, body, raised = get(fastapi(lambda: StreamingResponse(pieces())))
    assert (status, body) == (200, b"some")
    assert isinstance(raised, OverloadedError | ExceptionGroup)


def test_reads_the_deadline_it_was_told_to():
    """The header named to it is a deadline, if it is a number; without a name none is read."""
    headers = [(b"X-Request-Timeout", b"2.5"), (b"x-other", b"1")]
    app = fastapi(lambda: remaining_s(USUAL_S), deadline_header="X-Request-Timeout")

    assert 0 < float(get(app, headers=headers)[2]) <= 2.5
    assert get(app, headers=[(b"x-request-timeout", b"soon")])[2] == b"60.0"
    assert get(app)[2] == b"60.0"
    assert get(fastapi(lambda: remaining_s(USUAL_S)), headers=headers)[2] == b"60.0"


MODELS = {"/rank": "ranker"}


@pytest.mark.parametrize("named", ["/rank", "/rank/", "/"])
@pytest.mark.parametrize("path", ["/rank", "/rank/", "/rank/v2"])
def test_refuses_before_the_application_is_reached(telemetry, named, path):
    """While the model of its path has no place a request is a 503, and the application never hears of it."""
    reached = []

    async def app(scope, receive, send):
        reached.append(scope["path"])

    with fake.full("ranker") as (limiter, _):
        *answer, raised = get(asgi.OverloadMiddleware(app, models={named: "ranker"}), path)

    assert_refused(*answer)
    assert (reached, raised, limiter.rejected) == ([], None, 1)


def test_refuses_nothing_else_early(telemetry):
    """Other paths, other models, a browser's question whether it may ask, and all after a place is free, reach it."""
    reached = []

    async def app(scope, receive, send):
        reached.append((scope["method"], scope["path"]))

    early = asgi.OverloadMiddleware(app, models={**MODELS, "/tag": "tagger", "/rank/health": None})
    asked = [
        ("GET", "/health"),
        ("GET", "/rank/health"),
        ("GET", "/ranking"),
        ("GET", "/tag"),
        ("OPTIONS", "/rank"),
        ("GET", "/"),
    ]
    scopes = [{"type": "http", "method": method, "path": path} for method, path in asked]
    with fake.full("ranker") as (limiter, _):
        for scope in scopes:
            asyncio.run(early(scope, None, None))
        asyncio.run(asgi.OverloadMiddleware(app)({**scopes[0], "path": "/rank"}, None, None))
        assert limiter.rejected == 0
    asyncio.run(early({**scopes[0], "path": "/rank"}, None, None))

    assert reached == [*asked, ("GET", "/rank"), ("GET", "/rank")]


@pytest.mark.parametrize(("path", "root_path"), [("/api/rank", "/api"), ("/rank", "/api"), ("/rank", None)])
def test_knows_its_paths_below_a_proxy(telemetry, path, root_path):
    """What a proxy or a mount puts before the application's own paths does not count."""
    scope = {"type": "http", "method": "GET", "path": path, "root_path": root_path}
    sent = []

    async def send(message):
        sent.append(message)

    with fake.full("ranker"):
        asyncio.run(asgi.OverloadMiddleware(None, models=MODELS)(scope, None, send))

    assert sent[0]["status"] == 503


@pytest.mark.parametrize("models", [{"rank": "ranker"}, {"/rank": ""}, {"/rank": 1}, {1: "ranker"}])
def test_a_path_that_means_nothing_is_a_mistake(models):
    """A path without a slash or a model without a name is refused when the middleware is made."""
    with pytest.raises(ConfigError, match="expected a path and the name of the model"):
        asgi.OverloadMiddleware(None, models=models)


@pytest.mark.parametrize("path", ["/models/{name}/rank", "/models/<name>/rank"])
def test_a_path_with_parameters_is_a_mistake(path):
    """No request has such a path, so that it would never be refused early."""
    with pytest.raises(ConfigError, match="expected it as requests have it, without parameters"):
        asgi.OverloadMiddleware(None, models={path: "ranker"})


@pytest.mark.parametrize("models", [["/rank"], "/rank", []])
def test_models_that_are_no_mapping_are_a_mistake(models):
    """A list of paths is refused with an example of what is expected."""
    with pytest.raises(ConfigError, match=r"expected names of models by path, such as \{'/embed': 'minilm'\}"):
        asgi.OverloadMiddleware(None, models=models)


def test_leaves_other_protocols_alone():
    """What is not HTTP passes untouched, errors included."""

    async def app(scope, receive, send):
        assert scope["type"] == "websocket"
        refuse()

    with pytest.raises(OverloadedError):
        asyncio.run(asgi.OverloadMiddleware(app)({"type": "websocket"}, None, None))


@contextmanager
def serving(app, http="auto"):
    """The port on which `app` is served."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="critical", ws="none", lifespan="off", http=http))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(10)


def test_works_in_a_real_server():
    """Uvicorn sends the 503 and goes on serving."""
    app = fastapi(refuse)
    app.get("/well")(lambda: "well")
    with serving(app) as port:
        for _ in range(2):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
            connection.request("GET", "/")
            response = connection.getresponse()
            headers = {name.lower(): value for name, value in response.getheaders()}
            assert_refused(response.status, headers, response.read())
            connection.request("GET", "/well")
            assert connection.getresponse().read() == b'"well"'
            connection.close()


@pytest.mark.parametrize("http_parser", ["h11", "httptools"])
def test_a_connection_outlives_a_body_that_nobody_reads(telemetry, http_parser):
    """A large body is refused unread, and the next request on the same connection is served."""
    app = FastAPI()
    app.add_middleware(asgi.OverloadMiddleware, models=MODELS)
    app.post("/rank")(lambda: "never")
    app.get("/well")(lambda: "well")
    with fake.full("ranker"), serving(app, http_parser) as port:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        for _ in range(3):
            connection.request("POST", "/rank", bytes(1 << 20))
            socket = connection.sock
            response = connection.getresponse()
            headers = {name.lower(): value for name, value in response.getheaders()}
            assert_refused(response.status, headers, response.read())
            connection.request("GET", "/well")
            assert connection.getresponse().read() == b'"well"'
            assert connection.sock is socket
        connection.close()
