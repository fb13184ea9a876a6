"""Command line: reads arguments, runs a command, says what went wrong."""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from otel_inference.cli import reading, report
from otel_inference.errors import OtelInferenceError

if TYPE_CHECKING:
    from collections.abc import Sequence

_PROGRAM: Final = "otel-inference"

DONE: Final = 0
NOTHING_FOUND: Final = 1
WRONG_USE: Final = 2
UNREAD: Final = 141
"""What a shell says of a program that SIGPIPE ended: 128 + 13."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that `arguments` name.

    Args:
        arguments: Default: those of the process.

    Returns:
        The exit code: 0; 1 if there was nothing to report or a check failed; 2 if the command cannot be run as given;
        141 if nobody reads what it prints any more, as with `| head`.
    """
    options = _parser().parse_args(arguments)
    try:
        code = int(options.run(options))
        sys.stdout.flush()
    except BrokenPipeError:
        _discard_output()
        return UNREAD
    except OtelInferenceError as error:
        _say(str(error))
        return WRONG_USE
    return code


def _discard_output() -> None:
    """Have what is still to be written go nowhere: Python would complain when it flushes it at the end."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=_PROGRAM, description="OpenTelemetry for model inference.")
    parser.add_argument("--version", action="version", version=importlib.metadata.version(_PROGRAM))
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_report(commands)
    _add_check(commands)
    return parser


def _add_report(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser(
        "report",
        help="figures per model from spans in files",
        description="Print calls, errors, throughput, latency and tokens per model from files of OTLP JSON.",
        epilog=(
            "Latency is that of all calls, failed and first ones included; quantiles are exact. "
            "calls/s is taken from the first start to the last end of a line's calls, tokens/s over the duration "
            "of the calls that gave tokens; 1st token is the median. Where traces were sampled, each span counts for "
            "the calls that it stands for (its adjusted count, else its threshold ot=th:): figures are estimates."
        ),
    )
    command.add_argument(
        "paths",
        nargs="+",
        type=Path,
        metavar="PATH",
        help="file with one OTLP JSON export request per line, or folder of .jsonl and .json files",
    )
    command.set_defaults(run=lambda options: _report(options.paths))


def _add_check(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser(
        "check",
        help="whether telemetry of this environment would arrive",
        description=(
            "Check a set-up from the environment that the server would get: launcher, options, sampler, other "
            "instrumentations, whether the endpoint of each signal takes an empty request, and the clock."
        ),
        epilog="Run it as the server runs: same machine, same user, same variables. Exit code 1 if something failed.",
    )
    command.add_argument(
        "--timeout", type=float, default=5.0, metavar="SECONDS", help="for each connection and answer; default: 5"
    )
    command.set_defaults(run=lambda options: _check(options.timeout))


def _check(timeout_s: float) -> int:
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # its own log would stand between the lines
    from otel_inference.cli import check, checklist, reachability  # noqa: PLC0415 - they import the SDK

    results = [*check.of_environment(os.environ), *reachability.of_endpoints(os.environ, timeout_s)]
    checklist.show(results)
    return check.exit_code(results)


def _report(paths: Sequence[Path]) -> int:
    if importlib.util.find_spec("rich") is None:
        _say(f"the report needs rich, which is not installed; pip install '{_PROGRAM}[report]'")
        return WRONG_USE
    from otel_inference.cli import table  # noqa: PLC0415 - needs rich, which is an extra

    found = reading.read(paths)
    for file, count in found.broken_lines.items():
        _say(f"{file}: passed over {count} line{'s' * (count > 1)}; expected one OTLP JSON export request per line")
    if not any(span.weight for span in found.spans):
        _say(_nothing_in(found, paths))
        return NOTHING_FOUND
    table.show(report.figures(found.spans))
    return DONE


def _nothing_in(found: reading.Reading, paths: Sequence[Path]) -> str:
    where = ", ".join(map(str, paths))
    return (
        f"no call of a model in {where} ({found.files} files read, {found.other_spans} other spans); "
        "expected spans that otel-inference wrote: is the program instrumented, and are its traces sampled?"
    )


def _say(message: str) -> None:
    sys.stderr.write(f"{_PROGRAM}: {message}\n")


if __name__ == "__main__":
    sys.exit(main())
