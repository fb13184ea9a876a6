"""Whether a set-up works, from the environment that the server would get: `otel-inference check`.

Each check gives one or more results, in words that say what to do. Nothing is instrumented, and what is
sent to the Collector is an empty request for each signal, which leaves no trace there.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import logging
import os
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Final

from otel_inference import engines, semconv
from otel_inference.config import Config
from otel_inference.errors import ConfigError
from otel_inference.maintenance.builtin_actions import builtin
from otel_inference.nearest import hint, nearest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

HEALTH_SAMPLER: Final = "inference_health"
_SAMPLERS: Final = (
    "always_on",
    "always_off",
    "traceidratio",
    "parentbased_always_on",
    "parentbased_always_off",
    "parentbased_traceidratio",
)
"""Those of the SDK itself."""
_INSTRUMENTORS: Final = "opentelemetry_instrumentor"
_PATCHING_BY_THEMSELVES: Final = ("openlit", "traceloop-sdk")
"""Distributions that instrument the same libraries when their own start function is called."""
_CONFIGURATORS: Final = "opentelemetry_configurator"
_CONFIGURATOR: Final = "OTEL_PYTHON_CONFIGURATOR"
_FILE: Final = "OTEL_CONFIG_FILE"
_DISABLED: Final = "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS"


class Verdict(StrEnum):
    """How bad a result is."""

    OK = "ok"
    SKIPPED = "skipped"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What one check found."""

    subject: str
    verdict: Verdict
    found: str
    remedy: str = ""
    """What to do; empty where nothing is to be done."""


def of_environment(environ: Mapping[str, str]) -> list[Result]:
    """All checks that need no network.

    Args:
        environ: The variables of the server to be.
    """
    return [
        _switch(environ),
        _launcher(environ),
        *_options(environ),
        *_journal(environ),
        _service(environ),
        _sampler(environ),
        *_engines(environ),
        *_duplicates(environ),
    ]


def exit_code(results: Sequence[Result]) -> int:
    """1 if something failed, else 0: a warning is for a person to weigh."""
    return int(any(result.verdict is Verdict.FAILED for result in results))


@contextmanager
def heard(logger: str) -> Iterator[list[str]]:
    """Collect what is logged below `logger`, in place of printing it; what is said twice too, which the SDK filters out."""
    said: list[str] = []

    class _Ear(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(record.getMessage())

    log, ear = logging.getLogger(logger), _Ear()
    filtered = {each: each.filters for each in _below(logger) if each.filters}
    for each in filtered:
        each.filters = []
    before = log.propagate, log.level, log.disabled
    log.propagate, log.disabled = False, False
    log.setLevel(logging.WARNING)
    log.addHandler(ear)
    try:
        yield said
    finally:
        log.removeHandler(ear)
        log.propagate, log.disabled = before[0], before[2]
        log.setLevel(before[1])
        for each, filters in filtered.items():
            each.filters = filters


def _below(name: str) -> list[logging.Logger]:
    """The loggers that there are below one of this name."""
    known = list(logging.root.manager.loggerDict.items())
    return [each for key, each in known if key.startswith(f"{name}.") and isinstance(each, logging.Logger)]


def is_true(text: str | None) -> bool:
    """How the SDK reads a boolean variable."""
    return (text or "").strip().lower() == "true"


def _switch(environ: Mapping[str, str]) -> Result:
    if is_true(environ.get("OTEL_SDK_DISABLED")):
        return Result(
            subject="SDK",
            verdict=Verdict.FAILED,
            found="OTEL_SDK_DISABLED is true: nothing is exported",
            remedy="Unset OTEL_SDK_DISABLED.",
        )
    file = environ.get(_FILE)
    if file:
        return _configuration(file)
    return Result(subject="SDK", verdict=Verdict.OK, found="configured by environment variables")


def _configuration(file: str) -> Result:
    """Whether the SDK would read the file that is to configure it; if not, the launcher loads nothing at all."""
    refused = _refused(file)
    if refused is not None:
        why, remedy = refused
        found = f"{_FILE} names {file}, {why}: nothing is measured"
        return Result(subject="SDK", verdict=Verdict.FAILED, found=found, remedy=remedy)
    return Result(
        subject="SDK",
        verdict=Verdict.WARNING,
        found=f"{file} configures it: service, sampler and exporters are what it says, and are not looked at",
        remedy=f"Run this once without {_FILE} and with variables that say the same.",
    )


def _refused(file: str) -> tuple[str, str] | None:
    """Why a file cannot be read, and what to do; `None` if it can."""
    if not Path(file).is_file():
        return "which is not there", "Give the path of the file, or unset the variable."
    try:
        configuration = importlib.import_module("opentelemetry.configuration")
    except ImportError:
        return "and opentelemetry-configuration is not installed", "pip install opentelemetry-configuration"
    try:
        configuration.load_config_file(file)
    except Exception as error:  # noqa: BLE001 - whatever a wrong file does to it
        return f"which cannot be read ({next(iter(str(error).splitlines()), '')})", "Correct the file."
    return None


def _launcher(environ: Mapping[str, str]) -> Result:
    """Whether `opentelemetry-instrument` would find what makes the providers: a configurator, which the distro brings."""
    known = [point.name for point in importlib.metadata.entry_points(group=_CONFIGURATORS)]
    wanted = environ.get(_CONFIGURATOR)
    if known and wanted in {None, *known}:
        found = f"opentelemetry-instrument sets the providers, by {wanted or known[0]}"
        return Result(subject="launcher", verdict=Verdict.OK, found=found)
    if known:
        why, remedy = f"{_CONFIGURATOR}={wanted} is unknown", f"Set it to {' or '.join(known)}, or unset it"
    else:
        why, remedy = "opentelemetry-distro is not installed", "pip install opentelemetry-distro"
    return Result(
        subject="launcher",
        verdict=Verdict.WARNING,
        found=f"{why}: under opentelemetry-instrument nothing is exported at all",
        remedy=f"{remedy}, or have the program set its providers itself.",
    )


def _options(environ: Mapping[str, str]) -> list[Result]:
    """One result for each option that the package would warn of."""
    with heard("otel_inference") as said:
        config = Config.from_env(environ)
    said += [*_unknown_engines(config), *_unknown_actions(config)]
    if not said:
        count = sum(name.startswith(semconv.ENV_PREFIX) for name in environ)
        return [
            Result(subject="options", verdict=Verdict.OK, found=f"{count} {semconv.ENV_PREFIX}* set, all understood")
        ]
    return [
        Result(subject="options", verdict=Verdict.FAILED, found=text, remedy="Correct the variable, or unset it.")
        for text in said
    ]


def _unknown_engines(config: Config) -> list[str]:
    known = engines.names()
    listed = f" (known are {', '.join(known)})"
    unknown = [name for name in config.engines or () if name not in known]
    return [
        f"{semconv.ENV_ENGINES} names {name}, which is no engine{hint(name, known) or listed}: it is passed over"
        for name in unknown
    ]


def _unknown_actions(config: Config) -> list[str]:
    try:
        builtin(config.actions)
    except ConfigError as error:
        return [f"{semconv.ENV_ACTIONS}: {error}; no built-in action is enabled"]
    return []


def _journal(environ: Mapping[str, str]) -> list[Result]:
    """Whether maintenance could write down what it does, where a file for it is named."""
    with heard("otel_inference"):  # what is wrong with the options has been said
        name = Config.from_env(environ).journal
    if name is None:
        return []
    why = _unwritable(Path(name))
    if why is None:
        return [Result(subject="journal", verdict=Verdict.OK, found=f"can be written to {name}")]
    found = f"{semconv.ENV_JOURNAL}={name}: {why}, so that no action is written down"
    remedy = "Name a file in a folder that is there and that the server may write to."
    return [Result(subject="journal", verdict=Verdict.FAILED, found=found, remedy=remedy)]


def _unwritable(file: Path) -> str | None:
    """Why nothing can be appended to a file, which need not be there yet; `None` if it can."""
    if file.is_dir():
        return "it is a folder"
    if not file.parent.is_dir():
        return f"the folder {file.parent} is not there"
    if not os.access(file if file.exists() else file.parent, os.W_OK):
        return "this user may not write there"
    return None


def left_to_file(subject: str, environ: Mapping[str, str]) -> Result | None:
    """What there is to say of a subject whose variables do not apply, as a file configures the SDK; else `None`."""
    if not environ.get(_FILE):
        return None
    return Result(subject=subject, verdict=Verdict.SKIPPED, found=f"what {_FILE} says, which is not looked at")


def _service(environ: Mapping[str, str]) -> Result:
    by_file = left_to_file("service", environ)
    if by_file is not None:
        return by_file
    attributes = dict(
        pair.partition("=")[::2] for pair in environ.get("OTEL_RESOURCE_ATTRIBUTES", "").split(",") if "=" in pair
    )
    name = environ.get("OTEL_SERVICE_NAME") or attributes.get("service.name")
    if name:
        return Result(subject="service", verdict=Verdict.OK, found=name)
    return Result(
        subject="service",
        verdict=Verdict.WARNING,
        found="it has no name: all such programs are shown as one, unknown_service",
        remedy="Set OTEL_SERVICE_NAME.",
    )


def _sampler(environ: Mapping[str, str]) -> Result:
    by_file = left_to_file("sampler", environ)
    if by_file is not None:
        return by_file
    name = environ.get("OTEL_TRACES_SAMPLER", "").strip()
    argument = environ.get("OTEL_TRACES_SAMPLER_ARG", "").strip()
    own = [point.name for point in importlib.metadata.entry_points(group="opentelemetry_traces_sampler")]
    known = (*_SAMPLERS, *own)
    if not name:
        return Result(
            subject="sampler",
            verdict=Verdict.WARNING,
            found="none chosen: every call is a span that is exported",
            remedy=f"Under load set OTEL_TRACES_SAMPLER={HEALTH_SAMPLER} and OTEL_TRACES_SAMPLER_ARG=0.01.",
        )
    if name not in known:
        meant = nearest(name, known)
        return Result(
            subject="sampler",
            verdict=Verdict.FAILED,
            found=f"OTEL_TRACES_SAMPLER={name} is unknown: the SDK takes its default, which keeps everything",
            remedy=f"Did you mean {meant}?" if meant else f"Known are {', '.join(known)}.",
        )
    if name.endswith("always_off"):
        remedy = f"Set OTEL_TRACES_SAMPLER={HEALTH_SAMPLER}."
        return Result(subject="sampler", verdict=Verdict.WARNING, found=f"{name}: no traces at all", remedy=remedy)
    return _sampler_argument(name, argument)


def _sampler_argument(name: str, argument: str) -> Result:
    takes_ratio = name == HEALTH_SAMPLER or name.endswith("ratio")
    if takes_ratio and argument and not _is_ratio(argument):
        return Result(
            subject="sampler",
            verdict=Verdict.FAILED,
            found=f"OTEL_TRACES_SAMPLER_ARG={argument} is not a number from 0 to 1: {name} takes its default",
            remedy="Set OTEL_TRACES_SAMPLER_ARG=0.01 for one call in a hundred.",
        )
    return Result(subject="sampler", verdict=Verdict.OK, found=f"{name} {argument}".strip())


def _is_ratio(text: str) -> bool:
    try:
        return 0.0 <= float(text) <= 1.0
    except ValueError:
        return False


def _engines(environ: Mapping[str, str]) -> list[Result]:
    """Which engines are there, and which of them the server would leave out or miss."""
    with heard("otel_inference"):  # what is wrong with the options has been said
        wanted = Config.from_env(environ).engines
    known = engines.names()
    there = [name for name in known if importlib.util.find_spec(name) is not None]
    if not there:
        remedy = f"Run this where the server runs. Without {', '.join(known)} only observe() counts calls."
        return [Result(subject="engines", verdict=Verdict.WARNING, found="none is installed here", remedy=remedy)]
    disabled = _names(environ.get(_DISABLED))
    shut = [name for name in there if f"inference_{name}" in disabled or "*" in disabled]
    left_out = [name for name in there if wanted is not None and name not in wanted]
    missing = [name for name in wanted or () if name in known and name not in there]
    measured = [name for name in there if name not in shut and name not in left_out]
    results = [Result(subject="engines", verdict=Verdict.OK, found=", ".join(measured))] if measured else []
    for names, what, remedy in (
        (shut, f"not instrumented, by {_DISABLED}", f"Unset {_DISABLED}."),
        (left_out, f"installed and left out by {semconv.ENV_ENGINES}", "Add them there, if their calls are to count."),
        (
            missing,
            f"in {semconv.ENV_ENGINES} and not installed here",
            "Install them, or run this where the server runs.",
        ),
    ):
        if names:
            text = f"{', '.join(names)}: {what}"
            results.append(Result(subject="engines", verdict=Verdict.WARNING, found=text, remedy=remedy))
    return results


def _duplicates(environ: Mapping[str, str]) -> list[Result]:
    """Other instrumentations of the same libraries, which would count each call a second time."""
    disabled = _names(environ.get(_DISABLED))
    others = [
        point.name
        for point in importlib.metadata.entry_points(group=_INSTRUMENTORS)
        if point.name in engines.names() and point.name not in disabled and "*" not in disabled
    ]
    results = [
        Result(
            subject="duplicates",
            verdict=Verdict.WARNING,
            found=f"another instrumentation of {name} is installed: a call would be two spans",
            remedy=f"Add {name} to {_DISABLED}, or uninstall it.",
        )
        for name in sorted(set(others))
    ]
    for name in _PATCHING_BY_THEMSELVES:
        if _is_installed(name):
            found = f"{name} is installed, which instruments the same libraries once it is started"
            remedy = f"Start one of the two, or switch its instrumentation of {', '.join(engines.names())} off."
            results.append(Result(subject="duplicates", verdict=Verdict.WARNING, found=found, remedy=remedy))
    return results or [
        Result(subject="duplicates", verdict=Verdict.OK, found="no other instrumentation of the engines")
    ]


def _names(text: str | None) -> set[str]:
    return {name.strip() for name in (text or "").split(",") if name.strip()}


def _is_installed(distribution: str) -> bool:
    try:
        importlib.metadata.distribution(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
