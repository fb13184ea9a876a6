"""Measure and print: about four minutes, or half a minute with `--quick`."""

from __future__ import annotations

import argparse
import gc
import logging

from rich.console import Console

from benchmarks import judging, report, startup


def main() -> None:
    """Run everything and print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="half a minute, for a first look")
    parser.add_argument("--only", metavar="TEXT", help="only subjects whose title holds TEXT, and no start")
    options = parser.parse_args()
    console = Console(width=140, highlight=False)
    _calls(console, options.only, budget_s=1.6 if options.quick else 14.0)
    if options.only is None:
        _judging(console)
        _start(console, budget_s=3.0 if options.quick else 22.0)


def _calls(console: Console, only: str | None, budget_s: float) -> None:
    from benchmarks import subjects
    from benchmarks.timing import measure
    from benchmarks.variants import Switch, nested_variants, variants_of

    logging.disable(logging.WARNING)
    table, others = report.calls_table(), report.others_table("Nested modules")
    chosen = subjects.subjects()
    switch = Switch()  # after the subjects, which import what it switches
    for subject in chosen:
        if only is not None and only not in subject.title:
            continue
        console.print(f"measuring {subject.title} ...")
        variants, surplus = variants_of(subject, switch)
        if surplus:
            console.print(f"  only ours says: {', '.join(surplus)}")
        gc.collect()
        gc.freeze()  # a collection between rounds then looks at little
        report.add_calls(table, subject.title, measure(variants, budget_s=budget_s * subject.noise))
        if str(subjects.SUBMODULES) in subject.title:
            nested = measure(nested_variants(subject, switch), budget_s=budget_s, block_s=0.01)
            report.add_nested(others, nested, subjects.SUBMODULES)
        switch.turn(None)
    console.print(table)
    if others.rows:
        console.print(others)


def _judging(console: Console) -> None:
    console.print("measuring health ...")
    table = report.others_table("Health")
    judging.add_judging(table)
    console.print(table)


def _start(console: Console, budget_s: float) -> None:
    console.print("measuring imports and the launcher ...")
    table = report.others_table("Start")
    report.add_imports(table, startup.import_ms(budget_s / 2))
    report.add_launcher(table, *startup.launcher(budget_s))
    console.print(table)


if __name__ == "__main__":
    main()
