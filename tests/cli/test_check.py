"""`otel-inference check`: what it finds in an environment, and what it says to do."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import logging
import os
import re
import sys
from pathlib import Path

import pytest
from tests.cli.endpoint import one

from otel_inference.cli import checklist
from otel_inference.cli.check import Result, Verdict, exit_code, heard, of_environment
from otel_inference.cli.main import main
from otel_inference.cli.reachability import of_endpoints


def test_a_good_environment_has_nothing_to_be_done():
    """With a name and the health sampler, every check of the environment is well."""
    environ = {
        "OTEL_SERVICE_NAME": "ranking",
        "OTEL_TRACES_SAMPLER": "inference_health",
        "OTEL_TRACES_SAMPLER_ARG": "0.01",
    }
    results = of_environment(environ)
    assert {result.verdict for result in results} == {Verdict.OK}
    assert one(results, "sampler").found == "inference_health 0.01"
    assert exit_code(results) == 0


@pytest.mark.parametrize(
    ("environ", "subject", "verdict", "words"),
    [
        ({"OTEL_SDK_DISABLED": "true"}, "SDK", Verdict.FAILED, "nothing is exported"),
        ({"OTEL_CONFIG_FILE": "/nowhere.yaml"}, "SDK", Verdict.FAILED, "/nowhere.yaml, which is not there"),
        ({"OTEL_CONFIG_FILE": __file__, "OTEL_TRACES_SAMPLER": "nonsense"}, "sampler", Verdict.SKIPPED, "which is not"),
        ({"OTEL_CONFIG_FILE": __file__}, "service", Verdict.SKIPPED, "which is not"),
        ({"OTEL_INFERENCE_WINDOW": "3"}, "options", Verdict.FAILED, "did you mean OTEL_INFERENCE_WINDOW_S"),
        ({"OTEL_INFERENCE_WINDOW_S": "wide"}, "options", Verdict.FAILED, "OTEL_INFERENCE_WINDOW_S='wide'"),
        (
            {"OTEL_INFERENCE_ENGINES": "torch,onnxruntme"},
            "options",
            Verdict.FAILED,
            "onnxruntme, which is no engine (did",
        ),
        (
            {"OTEL_INFERENCE_ENGINES": "torch,zzz"},
            "options",
            Verdict.FAILED,
            "zzz, which is no engine (known are torch,",
        ),
        ({"OTEL_INFERENCE_ACTIONS": "trim_heep"}, "options", Verdict.FAILED, "did you mean 'trim_heap'?"),
        ({"OTEL_INFERENCE_training": "1"}, "options", Verdict.FAILED, "did you mean OTEL_INFERENCE_TRAINING"),
        ({"OTEL_PYTHON_CONFIGURATOR": "nobody"}, "launcher", Verdict.WARNING, "nothing is exported at all"),
        ({}, "launcher", Verdict.OK, "opentelemetry-instrument sets the providers"),
        ({"OTEL_INFERENCE_JOURNAL": "/nowhere/journal"}, "journal", Verdict.FAILED, "folder /nowhere is not there"),
        ({"OTEL_INFERENCE_JOURNAL": "/proc"}, "journal", Verdict.FAILED, "it is a folder"),
        ({}, "service", Verdict.WARNING, "unknown_service"),
        ({"OTEL_RESOURCE_ATTRIBUTES": "a=b,service.name=x"}, "service", Verdict.OK, "x"),
        ({}, "sampler", Verdict.WARNING, "every call is a span"),
        ({"OTEL_TRACES_SAMPLER": "inference_healt"}, "sampler", Verdict.FAILED, "is unknown"),
        ({"OTEL_TRACES_SAMPLER": "always_off"}, "sampler", Verdict.WARNING, "no traces at all"),
        (
            {"OTEL_TRACES_SAMPLER": "inference_health", "OTEL_TRACES_SAMPLER_ARG": "1%"},
            "sampler",
            Verdict.FAILED,
            "not a number from 0 to 1",
        ),
    ],
)
def test_what_is_wrong_is_said_in_words(environ, subject, verdict, words):
    """Each mistake has its verdict, names the variable or its effect, and says what to do."""
    result = one(of_environment(environ), subject)
    assert result.verdict is verdict
    assert words in result.found
    assert bool(result.remedy) is (verdict not in {Verdict.OK, Verdict.SKIPPED})


def test_a_misspelt_sampler_gets_the_right_name():
    """The nearest sampler that there is stands in the remedy."""
    assert (
        one(of_environment({"OTEL_TRACES_SAMPLER": "inference_healt"}), "sampler").remedy
        == "Did you mean inference_health?"
    )


def test_another_instrumentation_of_an_engine_is_a_warning(monkeypatch):
    """Another instrumentor of transformers is named, unless the launcher is told to leave it out."""
    points = importlib.metadata.entry_points

    def with_another(**selected):
        other = importlib.metadata.EntryPoint(
            "transformers", "somebody.else:Instrumentor", "opentelemetry_instrumentor"
        )
        return [*points(**selected), *([other] if selected["group"] == other.group else [])]

    monkeypatch.setattr(importlib.metadata, "entry_points", with_another)
    result = one(of_environment({}), "duplicates")
    assert (result.verdict, "transformers" in result.found) == (Verdict.WARNING, True)
    told = one(of_environment({"OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "flask, transformers"}), "duplicates")
    assert told.verdict is Verdict.OK


def test_no_distro_is_a_warning(monkeypatch):
    """Without a configurator the launcher sets no providers: it is said that nothing is exported, and what to install."""
    points = importlib.metadata.entry_points
    without = {"opentelemetry_configurator": ()}
    monkeypatch.setattr(
        importlib.metadata, "entry_points", lambda **selected: without.get(selected["group"], points(**selected))
    )
    result = one(of_environment({}), "launcher")
    assert result.verdict is Verdict.WARNING
    assert "under opentelemetry-instrument nothing is exported" in result.found
    assert "pip install opentelemetry-distro" in result.remedy


def test_a_journal_that_can_be_written_is_well_and_not_made(tmp_path):
    """A file that is not there yet is well where its folder is, and the check leaves none behind."""
    result = one(of_environment({"OTEL_INFERENCE_JOURNAL": str(tmp_path / "journal.jsonl")}), "journal")
    assert result.verdict is Verdict.OK
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("is_there", [True, False])
def test_a_journal_that_may_not_be_written_is_a_failure(tmp_path, monkeypatch, is_there):
    """A file, or a folder, that the user may not write to is said before the first action is lost."""
    file = tmp_path / "journal.jsonl"
    if is_there:
        file.touch()
    forbidden = file if is_there else tmp_path
    monkeypatch.setattr(os, "access", lambda path, _mode: path != forbidden)  # to root nothing is forbidden
    result = one(of_environment({"OTEL_INFERENCE_JOURNAL": str(file)}), "journal")
    assert (result.verdict, "may not write" in result.found) == (Verdict.FAILED, True)


def test_an_engine_that_is_shut_off_is_a_warning():
    """What the launcher is told to leave out of ours is named."""
    results = of_environment({"OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "inference_torch"})
    assert any(result.subject == "engines" and "torch: not instrumented" in result.found for result in results)


def test_engines_left_out_and_engines_missed_are_warnings(monkeypatch):
    """Of engines that are there those not named are said, of those named the ones that are not there."""
    there = {"torch", "onnxruntime"}
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name if name in there else None)
    results = [
        each for each in of_environment({"OTEL_INFERENCE_ENGINES": "torch,llama_cpp"}) if each.subject == "engines"
    ]
    assert [(each.verdict, each.found) for each in results] == [
        (Verdict.OK, "torch"),
        (Verdict.WARNING, "onnxruntime: installed and left out by OTEL_INFERENCE_ENGINES"),
        (Verdict.WARNING, "llama_cpp: in OTEL_INFERENCE_ENGINES and not installed here"),
    ]


def test_no_engine_is_a_warning(monkeypatch):
    """Where no engine is installed, that is said."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    assert one(of_environment({}), "engines").verdict is Verdict.WARNING


def test_the_command_prints_and_ends_with_a_code(endpoint, monkeypatch, capsys):
    """A set-up that works ends with 0; one in which something failed with 1."""
    assert main(["check", "--timeout", "2"]) == 0
    assert "takes them, by http/protobuf" in " ".join(capsys.readouterr().out.split())
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    assert main(["check", "--timeout", "2"]) == 1
    assert "1 failed" in capsys.readouterr().out


def test_without_rich_it_is_plain_text(monkeypatch, capsys):
    """The list is printed without `rich` too, with what to do beneath what was found."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    checklist.show([Result(subject="clock", verdict=Verdict.WARNING, found="30 s behind", remedy="Synchronise it.")])
    out = capsys.readouterr().out
    assert out.splitlines() == [
        "warning  clock      30 s behind",
        " " * 20 + "-> Synchronise it.",
        "0 ok, 0 skipped, 1 warning, 0 failed",
    ]


def test_listening_to_a_log_leaves_it_as_it_was(capfd):
    """What is logged meanwhile is collected and not printed, and the logger is as before."""
    log = logging.getLogger("otel_inference.test")
    before = (logging.getLogger("otel_inference").propagate, logging.getLogger("otel_inference").handlers[:])
    with heard("otel_inference") as said:
        log.warning("%s is wrong", "it")
    assert said == ["it is wrong"]
    assert (logging.getLogger("otel_inference").propagate, logging.getLogger("otel_inference").handlers) == before
    assert capfd.readouterr().err == ""


def test_a_file_that_configures_the_sdk_is_read(tmp_path, monkeypatch):
    """One that cannot be read, or without the package that reads it, keeps the launcher from loading anything."""
    file = tmp_path / "otel.yaml"

    def judge(text):
        file.write_text(text)
        return one(of_environment({"OTEL_CONFIG_FILE": str(file)}), "SDK")

    readable = judge('file_format: "1.0"\n')
    assert (readable.verdict, "are not looked at" in readable.found) == (Verdict.WARNING, True)
    broken = judge("foo: [bar")
    assert (broken.verdict, broken.remedy) == (Verdict.FAILED, "Correct the file.")
    monkeypatch.setitem(sys.modules, "opentelemetry.configuration", None)
    assert judge('file_format: "1.0"\n').remedy == "pip install opentelemetry-configuration"


def test_its_page_has_a_line_for_each_subject(tmp_path):
    """What the command prints is found in docs/check.md, and nothing else is promised there."""
    page = (Path(__file__).parents[2] / "docs" / "check.md").read_text(encoding="utf-8")
    promised = [
        name for row in re.findall(r"^\| (`.*?`) \|", page, re.MULTILINE) for name in re.findall(r"`(.+?)`", row)
    ]

    environ = {"OTEL_INFERENCE_JOURNAL": str(tmp_path / "journal"), "OTEL_CONFIG_FILE": __file__}
    results = [*of_environment(environ), *of_endpoints({**environ, "OTEL_LOGS_EXPORTER": "none"}, 0.1)]
    assert {result.subject for result in results} == set(promised)
