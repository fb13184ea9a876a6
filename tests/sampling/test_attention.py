"""What samplers know of models' health."""

from __future__ import annotations

from otel_inference.health.snapshot import HealthState
from otel_inference.sampling.attention import Attention


def test_knows_the_last_states_only():
    """A model is unwell while its last state says so; one not named any more is well."""
    attention = Attention()
    attention.set({"a": HealthState.OK, "b": HealthState.DEGRADED, "c": HealthState.CRITICAL})
    assert [attention.is_unwell(model) for model in "abcd"] == [False, True, True, False]

    attention.set({"a": HealthState.DEGRADED})
    assert [attention.is_unwell(model) for model in "abc"] == [True, False, False]


def test_forgets():
    """After a reset every model is well and nobody is told of decisions."""
    attention = Attention()
    attention.set({"a": HealthState.CRITICAL})
    attention.on_decision = lambda: None
    attention.reset()

    assert not attention.is_unwell("a")
    assert attention.on_decision is None
