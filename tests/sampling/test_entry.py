"""The sampler by its name in the configuration."""

from __future__ import annotations

import pytest
from opentelemetry.sdk.trace.sampling import Sampler

from otel_inference.sampling.entry import health_sampler


@pytest.fixture(autouse=True)
def _no_options(monkeypatch):
    """The environment has no options of ours."""
    for name in ("SAMPLING_RATIO", "BOOST_PER_SECOND", "MAX_PER_SECOND"):
        monkeypatch.delenv(f"OTEL_INFERENCE_{name}", raising=False)


@pytest.mark.parametrize(("arg", "ratio"), [("0.01", "0.01"), (" 1 ", "1.0"), (None, "1.0"), ("", "1.0")])
def test_takes_its_ratio_from_the_argument(arg, ratio):
    """The argument is the base ratio; without one everything is kept, as with the SDK's ratio samplers."""
    sampler = health_sampler(arg)

    assert isinstance(sampler, Sampler)
    assert sampler.get_description() == f"HealthSampler{{{ratio}}}"


def test_takes_options_from_the_environment(monkeypatch):
    """Called with nothing, as by a declarative configuration, it takes the environment's ratio and limits."""
    monkeypatch.setenv("OTEL_INFERENCE_SAMPLING_RATIO", "0.2")
    monkeypatch.setenv("OTEL_INFERENCE_BOOST_PER_SECOND", "3")
    monkeypatch.setenv("OTEL_INFERENCE_MAX_PER_SECOND", "30")
    sampler = health_sampler()

    assert sampler.get_description() == "HealthSampler{0.2}"
    assert health_sampler("0.5").get_description() == "HealthSampler{0.5}"
    assert (sampler._quotas._boost._places, sampler._quotas._limit._places) == (3, 30)


@pytest.mark.parametrize("arg", ["much", "1.5", "-0.1", "nan", "ratio=0.1"])
def test_reports_a_bad_argument(arg, caplog):
    """What is no ratio is one warning that names variable, value, what was expected and the default taken."""
    sampler = health_sampler(arg)

    (record,) = caplog.records
    expected = f"OTEL_TRACES_SAMPLER_ARG={arg!r} is not a number from 0 to 1, such as 0.01; using 1.0"
    assert record.getMessage() == expected
    assert sampler.get_description() == "HealthSampler{1.0}"
