"""Refused calls as answers of WSGI applications, whatever a framework makes of exceptions."""

from __future__ import annotations

import io
import json
from wsgiref.handlers import SimpleHandler
from wsgiref.util import FileWrapper, setup_testing_defaults
from wsgiref.validate import validator

import pytest
from tests.maintenance import fake_gate as fake

from otel_inference.errors import ConfigError, OverloadedError
from otel_inference.maintenance import wsgi
from otel_inference.maintenance.deadline import asked

USUAL_S, refuse, assert_refused = fake.FOREVER_S, fake.refuse, fake.assert_refused
PLAIN = [("Content-Type", "text/plain")]


def remaining_s(usual_s):
    """Seconds left to the current request."""
    request = asked()
    return usual_s if request is None else request.left_s(usual_s)


def get(app, **environ):
    """Status, headers and body of a GET, as the standard library's server sends them, and its complaints."""
    setup_testing_defaults(environ := {"QUERY_STRING": "", **environ})
    out, complaints = io.BytesIO(), io.StringIO()
    handler = SimpleHandler(io.BytesIO(), out, complaints, environ, multithread=False)
    handler.run(app)
    head, _, body = out.getvalue().partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    return int(first.split()[1]), headers, body, complaints.getvalue()


def wrapped(app, **options):
    """`app` behind the middleware, with the standard library's watch over the protocol on both sides."""
    return validator(wsgi.OverloadMiddleware(validator(app), **options))


def test_answers_for_an_application_that_raises():
    """A refusal that an application lets through is a 503."""

    def app(environ, start_response):
        refuse()

    *answer, complaints = get(wrapped(app))
    assert_refused(*answer)
    assert complaints == ""


@pytest.mark.parametrize("begins", [False, True])
def test_answers_for_a_body_that_raises_at_once(begins):
    """So is one that comes with the first piece of the body, whether the headers have been given or not."""

    def app(environ, start_response):
        if begins:
            start_response("200 OK", PLAIN)

        def pieces():
            refuse()
            yield b"never"

        return pieces()

    *answer, complaints = get(wsgi.OverloadMiddleware(app))
    assert_refused(*answer)
    assert complaints == ""


@pytest.mark.parametrize("status", ["500 Internal Server Error", "500 INTERNAL SERVER ERROR"])
def test_answers_for_a_framework_that_answers_500(status):
    """A 500 that a framework makes of a refusal is a 503; its body is dropped, and closed."""
    closed = []

    class Body(list):
        def close(self):
            closed.append(self)

    def app(environ, start_response):
        try:
            refuse()
        except OverloadedError:
            start_response(status, PLAIN)
            return Body([b"oh", b"no"])

    assert_refused(*get(wrapped(app))[:3])
    assert len(closed) == 1


def test_leaves_other_failures_alone():
    """A 500 or an exception without a refusal is the server's and the framework's business."""

    def failing(environ, start_response):
        return 1 / 0

    def answering(environ, start_response):
        start_response("500 Internal Server Error", PLAIN)
        return [b"oh no"]

    status, _, _, complaints = get(wrapped(failing))
    assert status == 500
    assert "ZeroDivisionError" in complaints
    assert get(wrapped(answering))[2] == b"oh no"


def test_leaves_an_answer_of_the_applications_own():
    """An application that handles the error itself has its own answer sent, and complete bodies as they are."""

    def app(environ, start_response):
        with pytest.raises(OverloadedError):
            refuse()
        start_response("200 OK", PLAIN)
        return [b"cached"]

    status, _, body, complaints = get(wrapped(app))
    assert (status, body, complaints) == (200, b"cached", "")


def test_passes_on_bodies_that_are_complete():
    """A list or a file of the server's kind reaches the server as it is, so that it can be sent at once."""
    file = FileWrapper(io.BytesIO(b"weights"))
    for body in ([b"all"], (b"all",), file):
        app = wsgi.OverloadMiddleware(lambda environ, start_response, body=body: body)
        assert app({"wsgi.file_wrapper": FileWrapper}, print) is body


def test_gives_the_server_one_head_only():
    """Of the headers of a response that came to nothing none is sent: servers differ in what they do with two."""
    heads = []

    def app(environ, start_response):
        start_response("200 OK", [*PLAIN, ("Content-Length", "5")])
        yield b""
        refuse()

    body = wsgi.OverloadMiddleware(app)({}, lambda *head: heads.append(head))
    assert json.loads(b"".join(body))["error"] == "overloaded"
    assert [status for status, *_ in heads] == ["503 Service Unavailable"]


def test_serves_applications_that_write():
    """The old way to send a body, a function to write with, works as ever, also without any body."""

    def app(environ, start_response):
        write = start_response("200 OK", PLAIN)
        write(b"some ")
        write(b"text")
        return []

    def silent(environ, start_response):
        start_response("204 No Content", [])
        yield from ()

    assert get(wrapped(app))[0::2][:2] == (200, b"some text")
    assert get(wsgi.OverloadMiddleware(silent))[0] == 204


def test_raises_when_the_answer_is_on_its_way():
    """Once a piece of the body is out, the error goes on to the server, and the body is closed."""
    closed = []

    def app(environ, start_response):
        start_response("200 OK", PLAIN)
        try:
            yield b"some"
            refuse()
        finally:
            closed.append(True)

    status, _, body, complaints = get(wsgi.OverloadMiddleware(app))
    assert (status, body) == (200, b"some")
    assert "OverloadedError" in complaints
    assert closed == [True]


def test_reads_the_deadline_it_was_told_to():
    """The header named to it is a deadline for the application and for each piece of its body."""

    def app(environ, start_response):
        start_response("200 OK", PLAIN)
        first = remaining_s(USUAL_S)

        def pieces():
            yield f"{first} {remaining_s(USUAL_S)}".encode()

        return pieces()

    heeding = wrapped(app, deadline_header="X-Request-Timeout")
    first_s, later_s = map(float, get(heeding, HTTP_X_REQUEST_TIMEOUT="2.5")[2].split())
    assert 0 < later_s < first_s <= 2.5
    assert get(heeding, HTTP_X_REQUEST_TIMEOUT="soon")[2] == b"60.0 60.0"
    assert get(wrapped(app), HTTP_X_REQUEST_TIMEOUT="2.5")[2] == b"60.0 60.0"
    assert remaining_s(USUAL_S) == USUAL_S


def test_refuses_before_the_application_is_reached(telemetry):
    """While the model of its path has no place a request is a 503, unread, and the application never hears of it."""
    reached = []

    def app(environ, start_response):
        reached.append(environ["PATH_INFO"])
        start_response("200 OK", PLAIN)
        return [b"served"]

    early = wrapped(app, models={"/räng": "ranker"})
    path = "/räng/1".encode().decode("latin-1")  # as servers give it
    with fake.full("ranker") as (limiter, _):
        *answer, complaints = get(early, SCRIPT_NAME="/api", PATH_INFO=path)
        assert_refused(*answer)
        assert (complaints, limiter.rejected) == ("", 1)
        assert get(early, SCRIPT_NAME="/api", PATH_INFO=path, REQUEST_METHOD="OPTIONS")[2] == b"served"
        assert get(early, SCRIPT_NAME="/api", PATH_INFO="/health")[2] == b"served"
    assert get(early, SCRIPT_NAME="/api", PATH_INFO=path)[2] == b"served"

    assert len(reached) == 3


def test_a_refused_head_has_no_body(telemetry):
    """To `HEAD` goes the head alone: clients take what follows for the beginning of their next answer."""

    def app(environ, start_response):
        refuse()

    with fake.full("ranker"):
        for refusing in (wrapped(app, models={"/rank": "ranker"}), wrapped(app)):
            status, headers, body, complaints = get(
                refusing, SCRIPT_NAME="/api", PATH_INFO="/rank", REQUEST_METHOD="HEAD"
            )
            assert (status, body, complaints) == (503, b"", "")
            assert headers["retry-after"] == "2"


def test_a_path_that_no_server_should_give_is_let_through(telemetry):
    """A path beyond Latin-1, which breaks the protocol, is the application's to answer."""

    def app(environ, start_response):
        start_response("200 OK", PLAIN)
        return [b"served"]

    with fake.full("ranker"):
        refusing = wsgi.OverloadMiddleware(app, models={"/rank": "ranker"})
        assert get(refusing, PATH_INFO="/\u20ac")[2] == b"served"


@pytest.mark.parametrize("models", [["/rank"], "/rank", []])
def test_models_that_are_no_mapping_are_a_mistake(models):
    """A list of paths is refused with an example of what is expected."""
    with pytest.raises(ConfigError, match=r"expected names of models by path, such as \{'/embed': 'minilm'\}"):
        wsgi.OverloadMiddleware(None, models=models)
