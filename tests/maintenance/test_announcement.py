"""Calls that are announced before their request is read: who is turned away then, and that each call counts once."""

from __future__ import annotations

import asyncio
import threading

import pytest
from tests.maintenance import fake_gate as fake

from otel_inference import guard, observe, runtime
from otel_inference.errors import OverloadedError
from otel_inference.maintenance.announcement import Coming, announced, current
from otel_inference.maintenance.deadline import outer_deadline
from otel_inference.maintenance.gate import Gate
from otel_inference.maintenance.limiter import AdaptiveLimiter

full, limited, assert_idle, wait_until = fake.full, fake.limited, fake.assert_idle, fake.wait_until
REFUSED = "otel_inference.errors.OverloadedError"


def refused(block):
    """Whether `block` is refused."""
    try:
        block()
    except OverloadedError:
        return True
    return False


def announce():
    """A request for `ranker` that calls nothing."""
    with announced("ranker"):
        pass


def test_a_refusal_is_one_call_turned_away(telemetry):
    """It counts in the limiter, in the model's health and metrics, and as a span, once each, like one that came later."""
    with full("ranker") as (limiter, _):
        assert refused(announce)
        health = runtime.health("ranker")
        (_, span) = telemetry.spans()
        (rejected,) = telemetry.points("inference.limiter.rejected")

    assert (health.calls, health.errors, health.window.rejected, health.window.warm_calls) == (2, 1, 1, 0)
    assert (limiter.rejected, rejected.value) == (1, 1)
    assert (span.name, span.attributes["error.type"], span.events) == ("call ranker", REFUSED, ())
    assert telemetry.count("inference.call.duration", error__type=REFUSED) == 1


def test_a_call_that_comes_and_is_refused_counts_once(telemetry):
    """What was let come and is turned away when it is there, because things have changed, is one call."""
    with full("ranker", room=1) as (limiter, call):

        def request():
            with announced("ranker"):
                limiter._gate.room = 0
                asyncio.run(coroutine())

        async def coroutine():
            call()

        assert refused(request)
        health = runtime.health("ranker")

    assert (limiter.rejected, health.window.rejected, health.calls) == (1, 1, 2)


def test_requests_on_their_way_take_room():
    """Of requests that come before any of them has called the model, only as many are let come as there is room."""
    limiter, gate = limited(1, room=2)
    place = limiter.acquire("ranker")
    coming = [limiter.announce("ranker") for _ in range(2)]
    assert refused(lambda: limiter.announce("ranker"))
    coming.pop().withdraw()
    coming.append(limiter.announce("ranker"))
    assert refused(lambda: limiter.announce("ranker"))

    assert gate.announced == [0, 1, 2, 1, 2]
    place.release()
    for each in coming:
        each.withdraw()
        each.withdraw()
    assert_idle(limiter, gate)


def test_free_places_are_for_those_who_come():
    """With places free, as many may come as there are, and those beyond wait behind them."""
    limiter, gate = limited(3, room=1)
    coming = [limiter.announce("ranker") for _ in range(4)]

    assert refused(lambda: limiter.announce("ranker"))
    assert gate.announced == [0, 0, 0, 0, 1]
    for each in coming:
        each.withdraw()


@pytest.mark.parametrize("where", ["here", "thread", "task"])
def test_a_call_takes_the_place_of_its_announcement(telemetry, where):
    """A call in the request's context, or in a thread or task that takes it along, is on its way no longer."""
    limiter, _ = limited(2)
    runtime.limit("ranker", limiter)
    counts = []

    @observe("ranker")
    def call():
        counts.append(len(limiter._coming))

    async def request():
        call()  # makes the model known
        with announced("ranker"):
            counts.append(len(limiter._coming))
            if where == "here":
                call()
            elif where == "thread":
                await asyncio.to_thread(call)
            else:
                await asyncio.create_task(asyncio.to_thread(call))
            counts.append(len(limiter._coming))

    asyncio.run(request())
    runtime.unlimit("ranker")
    assert counts == [0, 1, 0, 0]


@pytest.mark.parametrize("raised", [ValueError, KeyboardInterrupt, asyncio.CancelledError, GeneratorExit])
def test_a_request_that_ends_without_a_call_is_forgotten(telemetry, raised):
    """However it ends, what it had announced is on its way no longer."""
    with full("ranker", room=1) as (limiter, _):
        for _ in range(3):
            with pytest.raises(raised), announced("ranker"):
                raise raised

        assert (len(limiter._coming), current()) == (0, None)


def test_a_call_that_does_not_come_is_not_waited_for():
    """After a tenth of the deadline, a second at most, a request that still has made no call takes no room."""
    now_s = [0.0]
    for deadline_s, longest_s in ((0.5, 0.05), (1e9, 1.0)):
        gate = fake.FakeGate(1, room=1, deadline_s=deadline_s)
        limiter = AdaptiveLimiter(gate=gate, clock=lambda: now_s[0])
        place, lingering = limiter.acquire("ranker"), limiter.announce("ranker")
        now_s[0] += longest_s / 2
        assert refused(lambda limiter=limiter: limiter.announce("ranker"))
        now_s[0] += longest_s
        limiter.announce("ranker").withdraw()
        lingering.withdraw()
        place.release()


def test_counts_on_what_is_done_until_it_comes():
    """Of those before it as many count as will not be done by the time that a request takes to get through."""
    coming = Coming()
    for index in range(400):
        coming.add(index, index)
        coming.arrive(index, index + 0.02)
        coming.arrive(index, index + 9.0)
    assert coming.lag_s == pytest.approx(0.02)

    limiter, gate = limited(2, expected_s=0.01)
    limiter._coming.lag_s = 0.02
    places = [limiter.acquire("ranker") for _ in range(2)]
    on_their_way = [limiter.announce("ranker") for _ in range(6)]
    assert gate.announced == [0, 0, 0, 0, 0, 1]
    for each in (*places, *on_their_way):
        getattr(each, "release", None) or each.withdraw()


def overloaded_gate():
    """A gate with one place whose calls take 50 ms, after ten seconds at five times what it can do."""
    gate = Gate(deadline_s=0.5, workers=1)
    for index in range(200):
        gate.finished(index * 0.05 + 0.05, index * 0.05, 0.05)
        for _ in range(5):
            gate.admit(index * 0.05 + 0.05, 1, 9)
    return gate


@pytest.mark.parametrize(("queued", "lets"), [(0, True), (1, True), (2, False), (9, False)])
def test_the_gate_says_of_a_call_to_come_what_it_would_say_of_one_that_is_there(queued, lets):
    """What it turns away counts there and then, and what it lets come does not before it is there."""
    foreseeing, deciding = overloaded_gate(), overloaded_gate()
    before = foreseeing._admitted

    assert foreseeing.may_come(10.0, 1, queued) == deciding.admit(10.0, 1, queued) == lets
    assert foreseeing._admitted == (before if lets else deciding._admitted)


def test_the_gate_lets_come_who_finds_a_free_place():
    """A free place is for anybody, a busy one not for a request that has less time than a call takes."""
    gate = overloaded_gate()

    assert gate.may_come(10.0, 0, 0)
    assert not gate.may_come(10.0, 1, 0, deadline_s=0.04)


def test_a_request_too_late_already_is_refused(telemetry):
    """A deadline of the request's own that leaves no time for a call is a refusal before anything is done for it."""
    limiter, gate = limited(2, expected_s=0.1)
    with outer_deadline(0.05):
        assert refused(lambda: limiter.announce("ranker"))
    with outer_deadline(5.0):
        limiter.announce("ranker").withdraw()
    assert_idle(limiter, gate)


def test_what_is_not_known_is_not_refused(telemetry):
    """A model that was never called, one without a limiter and one whose limiter knows no announcements come through."""
    with full("ranker") as (limiter, _):
        runtime.limit("tagger", limiter)
        with announced("tagger"), announced("reader"), announced(None):
            pass
        runtime.unlimit("tagger")
        runtime.limit(
            "ranker",
            type("Own", (), dict.fromkeys(("acquire", "acquire_async", "limit", "in_use", "rejected"), 0))(),
        )
        announce()
        runtime.limit("ranker", limiter)
        runtime.uninstrument()
        announce()

    assert limiter.rejected == 0


def test_a_gate_that_fails_refuses_nothing():
    """A failure is counted and the request goes on; so does one that comes in a finalizer, from within the limiter."""
    limiter, gate = limited(1, room=0)
    place = limiter.acquire("ranker")
    within = []

    def fails(*_):
        place.release()  # put off until nobody is inside
        within.append(limiter.announce("ranker"))
        assert limiter.in_use == 1
        return 1 / 0

    gate.may_come = fails
    limiter.announce("ranker").withdraw()

    assert (len(within), limiter.in_use) == (1, 0)
    assert guard.error_counts() == {"limiter": 1}
    guard._errors.clear()
    assert_idle(limiter, gate)


def test_a_limiter_that_cannot_forget_spoils_no_answer(telemetry):
    """What another limiter raises when a call does not come is counted, and the request ends as it would have."""
    names = ("acquire", "acquire_async", "limit", "in_use", "rejected")
    guard.set_strict(strict=False)
    with full("ranker") as (limiter, _):
        runtime.limit("ranker", type("Own", (), {**dict.fromkeys(names, 0), "announce": lambda *_: object()})())
        announce()
        with pytest.raises(LookupError), announced("ranker"):
            raise LookupError
        runtime.limit("ranker", limiter)

    assert guard.error_counts() == {"limiter": 2}
    guard._errors.clear()


def test_loses_no_announcement_among_threads():
    """20,000 requests of 8 threads that call, fail or call nothing leave nothing on its way."""
    limiter, gate = limited(3, room=4)

    def work(number):
        for index in range(2500):
            try:
                announcement = limiter.announce("ranker")
            except OverloadedError:
                continue
            if (index + number) % 3:
                limiter._do(lambda each: limiter._coming.arrive(each, 0.0), announcement)
            announcement.withdraw()

    assert fake.in_threads(work, 8) == []
    assert len(limiter._coming) == 0
    assert_idle(limiter, gate)


def test_a_forked_child_expects_nobody():
    """The requests of the parent are answered there."""
    limiter, _ = limited(1, room=1)
    announcement = limiter.announce("ranker")
    limiter.reset_after_fork()
    announcement.withdraw()

    assert len(limiter._coming) == 0
    thread = threading.Thread(target=announcement.withdraw)
    thread.start()
    thread.join()
