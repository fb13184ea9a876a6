"""Options: defaults, the environment, and what a wrong value means."""

from __future__ import annotations

import pytest

from otel_inference import Config, ConfigError


def test_has_the_documented_defaults():
    """An empty environment gives the defaults."""
    config = Config.from_env({})

    assert config == Config()
    assert (config.max_models, config.capture_content, config.training) == (100, False, False)


def test_reads_the_environment():
    """Each option has a variable; other variables are none of ours."""
    config = Config.from_env(
        {
            "OTEL_INFERENCE_ENGINES": " torch, onnxruntime ,torch",
            "OTEL_INFERENCE_MAX_MODELS": "7",
            "OTEL_INFERENCE_CAPTURE_CONTENT": "TRUE",
            "OTEL_INFERENCE_TRAINING": "1",
            "OTEL_INFERENCE_RESOURCES": "off",
            "OTEL_INFERENCE_SPANS_DETAIL": "stages",
            "OTEL_SERVICE_NAME": "x",
        }
    )

    assert config == Config(
        engines=("torch", "onnxruntime"),
        max_models=7,
        capture_content=True,
        training=True,
        spans_detail="stages",
        resources=False,
    )


@pytest.mark.parametrize(
    ("variable", "value", "expected", "taken"),
    [
        ("OTEL_INFERENCE_MAX_MODELS", "many", "a whole number of at least 1", "100"),
        ("OTEL_INFERENCE_MAX_MODELS", "0", "a whole number of at least 1", "100"),
        ("OTEL_INFERENCE_TRAINING", "maybe", "true or false", "False"),
        ("OTEL_INFERENCE_SPANS_DETAIL", "all", "calls or stages", "'calls'"),
        ("OTEL_INFERENCE_ENGINES", ",", "engine names", "None"),
    ],
)
def test_warns_of_a_bad_value(caplog, variable, value, expected, taken):
    """A bad value is one warning with the variable, the value, what was expected and the default taken."""
    assert Config.from_env({variable: value}) == Config()

    (record,) = caplog.records
    assert all(part in record.getMessage() for part in (variable, value, expected, taken))


def test_warns_of_an_unknown_variable(caplog):
    """A misspelt variable is one warning with the nearest known name."""
    Config.from_env({"OTEL_INFERENCE_MAX_MODEL": "3"})

    (record,) = caplog.records
    assert "OTEL_INFERENCE_MAX_MODEL " in record.getMessage()
    assert "OTEL_INFERENCE_MAX_MODELS" in record.getMessage()


def test_the_nearest_variable_is_found_whatever_its_case(caplog):
    """A variable in the wrong case is told its right name, not that of another one as long."""
    Config.from_env({"OTEL_INFERENCE_training": "1"})

    assert "(did you mean OTEL_INFERENCE_TRAINING?)" in caplog.text


@pytest.mark.parametrize(
    "options",
    [{"max_models": 0}, {"max_models": True}, {"training": "yes"}, {"spans_detail": "all"}, {"engines": "torch"}],
    ids=str,
)
def test_refuses_a_bad_value_in_code(options):
    """In code a bad value is an error that says what was expected."""
    with pytest.raises(ConfigError, match="expected"):
        Config(**options)


def test_updates_and_refuses_unknown_options():
    """Options of a configuration file override; an unknown one is named with its nearest relative."""
    assert Config().updated({"max_models": 3}).max_models == 3
    with pytest.raises(ConfigError, match="did you mean max_models"):
        Config().updated({"max_model": 3})
