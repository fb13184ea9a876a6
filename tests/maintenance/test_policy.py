"""Whether an action may run now."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_inference.errors import ConfigError
from otel_inference.maintenance.action import Action
from otel_inference.maintenance.policy import (
    HOUR_S,
    MAX_PER_HOUR_IN_ALL,
    Decision,
    History,
    Mode,
    Ruling,
    RunCount,
    decide,
    mode_of,
)

GO = Decision(Ruling.GO)


def action(**options):
    """An action on stalls."""
    return Action(**{"name": "act", "kind": "stall", "run": print, **options})


def decision(history, now_s=0.0, *, finding="stall::", **options):
    """May it run?"""
    known = {name: options.pop(name) for name in ("runs_in_all", "hangs", "unjudged") if name in options}
    return decide(action(**options), history, finding=finding, now_s=now_s, **{"runs_in_all": 0, **known})


@pytest.fixture
def history():
    """Of an action that has not run."""
    return History()


def test_cools_down_for_each_finding_by_itself(history):
    """About the same finding it waits for its cool-down to be over; about another one it does not."""
    history.begin("stall::", 100.0)

    assert decision(history, 159.9).ruling is Ruling.WAIT
    assert decision(history, 160.0) == GO
    assert decision(history, 100.0, finding="stall::ranker") == GO


def test_runs_so_often_in_an_hour(history):
    """However many findings there are, an action runs six times within any hour."""
    for minute in range(6):
        history.begin(f"stall::{minute}", minute * 60.0)

    assert decision(history, 400.0).reason == "it ran 6 times within an hour"
    assert decision(history, 400.0, max_per_hour=7) == GO
    assert decision(history, HOUR_S - 0.1).ruling is Ruling.REFUSE
    assert decision(history, HOUR_S) == GO


def test_a_try_that_does_not_count_only_cools_down(history):
    """What its precondition forbade uses up no run."""
    for second in range(10):
        history.begin("stall::", float(second), counts=False)

    assert decision(history, 60.0).ruling is Ruling.WAIT
    assert decision(history, 69.0) == GO


def test_all_actions_of_a_process_share_a_cap(history):
    """Twenty runs in an hour are enough, whoever had them."""
    assert decision(history, runs_in_all=MAX_PER_HOUR_IN_ALL - 1) == GO
    assert decision(history, runs_in_all=MAX_PER_HOUR_IN_ALL).ruling is Ruling.REFUSE


def test_three_failures_in_a_row_disable(history):
    """A success in between forgives; after the third in a row it is refused until somebody enables it."""
    history.fail()
    history.fail()
    history.succeed()
    history.fail()
    history.fail()
    assert decision(history) == GO
    history.fail()
    assert decision(history).reason == "disabled: it failed 3 times in a row"
    history.enable()

    assert decision(history) == GO
    history.fail()
    assert decision(history) == GO


def test_three_rollbacks_in_an_hour_disable(history):
    """What made things worse three times within an hour is refused; what did so over a longer time is not."""
    for at_s in (0.0, 1000.0, HOUR_S):
        history.roll_back(at_s)
    assert decision(history, HOUR_S) == GO
    history.roll_back(HOUR_S + 1)

    assert decision(history, HOUR_S + 1).reason == "disabled: it made things worse 3 times in an hour"


def test_what_hangs_is_disabled_meanwhile(history):
    """At most one run of an action goes on at a time."""
    assert decision(history, hangs=True).reason == "disabled: an earlier run has not returned"


def test_one_change_is_watched_at_a_time(history):
    """What can be undone waits until another change is judged; what cannot does not."""
    assert decision(history, unjudged="shrink", undo=print) == Decision(Ruling.WAIT, "shrink has not been judged yet")
    assert decision(history, unjudged="shrink") == GO


def test_a_refusal_is_news_once(history):
    """The same refusal is told of again only after a run, or after it was enabled."""
    assert [history.is_news("capped") for _ in range(3)] == [True, False, False]
    history.begin("stall::", 0.0)
    assert history.is_news("capped")
    history.enable()
    assert history.is_news("capped")


def test_forgets_findings_that_closed(history):
    """Memory is of open findings and of those that still cool down."""
    for key in ("a", "b", "c"):
        history.begin(key, 0.0)
    history.begin("d", 50.0)
    history.forget(60.0, 60.0, {"a"})

    assert set(history._last_s) == {"a", "d"}


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 400), st.sampled_from("abc")), max_size=80), st.integers(1, 8))
def test_no_hour_has_more_runs_than_the_cap(triggers, cap):
    """Whenever findings come, no hour has more runs than the cap, and no finding two within its cool-down."""
    history, ran, now_s = History(), [], 0.0
    for pause_s, finding in triggers:
        now_s += pause_s
        if decision(history, now_s, finding=finding, max_per_hour=cap) == GO:
            history.begin(finding, now_s)
            ran.append((now_s, finding))

    for at_s, finding in ran:
        assert sum(at_s <= other < at_s + HOUR_S for other, _ in ran) <= cap
        assert sum(at_s <= other < at_s + 60.0 for other, which in ran if which == finding) == 1


def test_counts_the_last_hour():
    """A run is forgotten an hour after it began."""
    runs = RunCount()
    for at_s in (0.0, 10.0):
        runs.add(at_s)

    assert [runs.last_hour(at_s) for at_s in (10.0, HOUR_S - 1, HOUR_S, HOUR_S + 10)] == [2, 2, 1, 0]


def test_an_unknown_mode_is_told_with_the_nearest():
    """A mode that nobody knows is a ConfigError that names the nearest."""
    assert mode_of(Mode.OFF) is Mode.OFF
    with pytest.raises(ConfigError, match=r"unknown maintenance mode 'observer'.*'observe'"):
        mode_of("observer")
