"""What may be done, and how a mistake in saying so is told."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial

import pytest

from otel_inference.errors import ConfigError
from otel_inference.finding import Finding, FindingKind, Severity
from otel_inference.maintenance.action import Action
from otel_inference.maintenance.registration import Actions


def act(event):
    """Do nothing."""


async def act_later(event):
    """Do nothing, as a coroutine."""


class Tool:
    """Something with methods."""

    def use(self, event):
        """Do nothing."""


def action(**options):
    """An action on stalls."""
    return Action(**{"name": "act", "kind": "stall", "run": act, **options})


def found(kind="stall", *, subject=None, model=None):
    """A finding."""
    return Finding(FindingKind(kind), Severity.WARNING, model, datetime.now(UTC), {}, "", subject=subject)


def defined(body="1", name="act"):
    """A function of this name, compiled anew, as a reload does."""
    namespace = {"__name__": "serving"}
    exec(f"def {name}(event): return {body}", namespace)
    return namespace[name]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"kind": "saturated"}, "unknown kind of finding 'saturated' .did you mean 'saturation'..; known are slo_burn"),
        ({"kind": 7}, "unknown kind of finding 7; known are"),
        ({"name": ""}, "name is ''; expected a non-empty string"),
        ({"model": 3}, "model is 3; expected a non-empty string or None"),
        ({"run": None}, "run is None; expected a function of one argument, the event"),
        ({"run": act_later}, "run is a coroutine function; expected a plain one"),
        ({"undo": "act"}, "undo is 'act'; expected a function of one argument, the event, or None"),
        ({"precondition": 1}, "precondition is 1; expected a function"),
        ({"cooldown_s": -1}, "cooldown_s is -1; expected a number of seconds of at least 0, such as 60"),
        ({"cooldown_s": float("nan")}, "cooldown_s is nan; expected a number"),
        ({"timeout_s": 0}, "timeout_s is 0; expected a number of seconds above 0, such as 30"),
        ({"timeout_s": True}, "timeout_s is True; expected a number"),
        ({"settle_s": "5"}, "settle_s is '5'; expected a number"),
        ({"max_per_hour": 0}, "max_per_hour is 0; expected a whole number of at least 1, such as 6"),
        ({"max_per_hour": 1.5}, "max_per_hour is 1.5; expected a whole number"),
    ],
)
def test_refuses_what_means_nothing(options, told):
    """A value that means nothing is a ConfigError that says what it was and what was expected."""
    with pytest.raises(ConfigError, match=told):
        action(**options)


def test_has_the_defaults_of_the_contract():
    """Without more being said an action runs once a minute at most, six times an hour, for half a minute."""
    plain = action()

    assert (plain.cooldown_s, plain.max_per_hour, plain.timeout_s) == (60.0, 6, 30.0)
    assert plain.kind is FindingKind.STALL


@pytest.mark.parametrize(
    ("options", "finding", "expected"),
    [
        ({}, found(), True),
        ({}, found(model="ranker"), True),
        ({}, found("saturation"), False),
        ({"model": "ranker"}, found(model="ranker"), True),
        ({"model": "ranker"}, found(model="reader"), False),
        ({"model": "ranker"}, found(), False),
        ({"kind": "saturation", "subject": "cpu"}, found("saturation", subject="cpu"), True),
        ({"kind": "saturation", "subject": "cpu"}, found("saturation", subject="gpu"), False),
    ],
)
def test_matches_kind_model_and_subject(options, finding, expected):
    """A finding sets off what asks for its kind and asks for no other model or subject."""
    assert action(**options).matches(finding) is expected


def test_the_same_name_and_trigger_is_the_same_action():
    """Added again an action takes the place of the former one; with another trigger it is kept beside it."""
    actions = Actions()
    for options in ({}, {"max_per_hour": 2}, {"kind": "saturation"}):
        actions.add(action(**options))

    assert [(each.kind, each.max_per_hour) for each in actions.current()] == [("stall", 2), ("saturation", 6)]
    assert actions.remove("act")
    assert actions.current() == ()
    assert not actions.remove("act")


def test_functions_of_one_name_are_kept_apart():
    """Another function of the same name gets a number; the same one, also as a bound method, keeps its name."""
    actions, tool = Actions(), Tool()
    for run in (act, tool.use, lambda _: None):
        actions.add(action(name=actions.name_for(run), run=run))

    assert [each.name for each in actions.current()] == ["act", "use", "lambda"]
    assert actions.name_for(act) == "act"
    assert actions.name_for(tool.use) == "use"
    assert actions.name_for(Tool().use) == "use#2"
    assert actions.name_for(partial(act)) == "act#2"
    assert actions.name_for(lambda _: None) == "lambda#2"


def test_a_function_defined_again_takes_the_place_of_its_former_self():
    """After a reload of its module a callback is registered once, as it is now."""
    actions, new = Actions(), defined("2")
    actions.add(action(run=defined("1")))
    actions.add(action(name="other", run=defined("1", "other")))

    assert actions.forget_former_self(new)
    assert [each.name for each in actions.current()] == ["other"]
    assert not actions.forget_former_self(new)


def closure(kept):
    """One of several functions with the same code."""
    return lambda event: kept


@pytest.mark.parametrize("runs", [(defined("1", "_"), defined("2", "_")), (closure(1), closure(2))])
def test_functions_that_share_a_name_on_purpose_are_all_kept(runs):
    """Functions called `_` say nothing of who they are, and closures made in a loop are each their own."""
    actions = Actions()
    actions.add(action(run=runs[0]))

    assert not actions.forget_former_self(runs[1])
