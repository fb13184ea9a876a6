"""When the error budget of an objective burns too fast, and when that is over."""

from __future__ import annotations

import pytest

from otel_inference.diagnosis.slo import BurnWatch, Tier
from otel_inference.finding import Severity
from otel_inference.health.horizon import HorizonCounts

HOUR_S = 3600.0


class Model:
    """Calls at an even pace, some of them bad, counted as a model's are."""

    def __init__(self, calls_per_minute, ratio=0.99):
        self.counts = HorizonCounts()
        self.watch = BurnWatch(ratio)
        self.pace_s = 60.0 / calls_per_minute
        self.born_s = self.now_s = 1e6
        self.calls = 0

    def run(self, seconds, bad_every=0):
        """Let time pass; returns after how many seconds each change of what burns was seen, and what it was."""
        changes, was, begun_s = [], None, self.now_s
        next_s = self.now_s + self.pace_s
        while self.now_s < begun_s + seconds:
            self.now_s += 10.0
            while next_s <= self.now_s:
                self.calls += 1
                self.counts.add(next_s, failed=bad_every > 0 and self.calls % bad_every == 0)
                next_s += self.pace_s
            burn = self.watch.update(lambda width_s: self.counts.counts(width_s, self.now_s), self.now_s - self.born_s)
            now = None if burn is None else (burn.tier, burn.factor)
            if now != was:
                changes.append((self.now_s - begun_s, now))
            was = now
        return changes


def test_refuses_an_objective_that_is_none():
    """A promise of more than all calls cannot be watched."""
    with pytest.raises(ValueError, match="ratio is 2"):
        BurnWatch(2.0)


def test_finds_a_total_outage_first_for_control_then_for_people():
    """With 99 % promised and 50 calls a minute, maintenance learns of it in a minute, people in ten."""
    model = Model(calls_per_minute=50)
    assert model.run(2 * HOUR_S, bad_every=200) == []
    changes = {what: at_s for at_s, what in model.run(1800, bad_every=1)}

    # t = factor x (1 - objective) x window / 1, plus what it takes to be sure.
    assert changes[Tier.CONTROL, 14.4] <= 60
    assert 0.144 * HOUR_S <= changes[Tier.PAGE, 14.4] <= 0.144 * HOUR_S + 120


def test_finds_an_outage_at_five_calls_a_minute_in_time():
    """Found within two stretches and two minutes."""
    for ratio in (0.99, 0.999):
        model = Model(calls_per_minute=5, ratio=ratio)
        model.run(2 * HOUR_S)
        assert model.run(600, bad_every=1)[0][0] <= 140


def test_tells_of_a_slow_burn_by_the_long_windows_only():
    """At eight times the budget, the fast tiers are silent and the slow ones are not."""
    model = Model(calls_per_minute=20)
    model.run(1 * HOUR_S)
    changes = model.run(4 * HOUR_S, bad_every=12)

    assert {factor for _, (_, factor) in changes} == {6.0}
    assert [tier for _, (tier, _) in changes] == [Tier.CONTROL, Tier.PAGE]


def test_is_silent_at_the_budget():
    """One bad call in a hundred is what 99 % allows."""
    model = Model(calls_per_minute=5)

    assert model.run(8 * HOUR_S, bad_every=100) == []


@pytest.mark.parametrize(("bad", "found"), [(4, False), (5, True)])
def test_takes_five_bad_calls(bad, found):
    """However few calls there are, four bad ones are no burn."""
    burn = BurnWatch(0.999).update(lambda _: (bad, bad), HOUR_S)

    assert (burn is not None) is found


def test_needs_to_be_sure_by_the_long_window():
    """Seven times the budget is too fast, but of 67 calls it may be chance; of 670 it is not."""
    assert BurnWatch(0.99).update(lambda _: (67, 5), HOUR_S) is None
    burn = BurnWatch(0.99).update(lambda _: (670, 60), HOUR_S)

    assert (burn.tier, burn.severity, burn.factor) == (Tier.PAGE, Severity.CRITICAL, 6.0)
    assert (burn.calls, burn.bad, burn.long_s, burn.short_s) == (670, 60, 21600.0, 1800.0)
    assert (burn.bad, burn.calls) == (60, 670)
    assert (burn.burn_long, burn.burn_short) == pytest.approx((8.96, 8.96), abs=0.01)


def test_needs_the_short_window_too():
    """What was bad an hour ago and is well now is no burn."""
    assert BurnWatch(0.99).update(lambda width_s: (600, 0 if width_s < HOUR_S else 300), HOUR_S) is None
    assert BurnWatch(0.99).update(lambda width_s: (600 if width_s >= HOUR_S else 0, 0), HOUR_S) is None


def test_never_asks_for_more_than_half():
    """Of a loose objective, 14.4 times the budget would be more than all calls; more than half bad is enough."""
    assert BurnWatch(0.5).update(lambda _: (1000, 490), HOUR_S) is None
    assert BurnWatch(0.5).update(lambda _: (1000, 540), HOUR_S) is not None


def test_judges_a_young_process_by_what_it_has():
    """A process younger than a rule's short window is not judged by it; the long window counts from its birth."""
    assert BurnWatch(0.99).update(lambda _: (100, 100), 29.0) is None
    assert BurnWatch(0.99).update(lambda _: (100, 100), 31.0).tier is Tier.CONTROL
    burn = BurnWatch(0.99).update(lambda _: (100, 100), 301.0)
    assert (burn.tier, burn.covered_s) == (Tier.PAGE, 301.0)


def test_closes_once_the_short_window_is_well():
    """After an outage of twelve minutes each page closes in the time of its short window, and nothing opens again."""
    model = Model(calls_per_minute=20)
    model.run(HOUR_S)
    model.run(720, bad_every=1)
    changes = model.run(1.5 * HOUR_S)

    assert [what for _, what in changes] == [(Tier.PAGE, 14.4), (Tier.PAGE, 6.0), None]
    assert [at_s for at_s, _ in changes] == pytest.approx([10.0, 300.0, 1750.0], abs=50.0)


def test_closes_at_the_second_quiet_update_in_a_row():
    """One quiet update is not enough, and two with a bad one between are not either."""
    watch, bad = BurnWatch(0.99), [100, 0, 100, 0, 0, 0]
    burns = [watch.update(lambda _, now=now: (100, now), HOUR_S) for now in bad]

    assert [burn is not None for burn in burns] == [True, True, True, True, False, False]


def test_does_not_flap_at_low_traffic():
    """One bad call in three at a call a minute opens each tier once, although many short windows are well."""
    model = Model(calls_per_minute=1)
    model.run(2 * HOUR_S)
    changes = model.run(3 * HOUR_S, bad_every=3)

    assert len(changes) == len({what for _, what in changes})
    assert changes[-1][1] == (Tier.PAGE, 14.4)


def test_closes_when_traffic_has_stopped_for_the_long_window():
    """Nobody calls any more: the burn ends when the long window is empty."""
    model = Model(calls_per_minute=5, ratio=0.999)
    model.run(HOUR_S)
    model.run(120, bad_every=1)
    model.pace_s = 1e9
    model.run(5.8 * HOUR_S)
    assert model.run(0.1 * HOUR_S) == [(10.0, (Tier.PAGE, 6.0))]

    assert model.run(0.3 * HOUR_S)[-1][1] is None
