"""How soon what is found, and how often nothing: `python -m benchmarks.detection`, about six minutes, one with `--quick`.

All streams are simulated and seeded; they are those of tests/diagnosis/simulation.py.
"""

from __future__ import annotations

import argparse
from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console
from rich.table import Table
from tests.diagnosis import simulation
from tests.diagnosis.simulation import DAY, NEVER, Traffic

from otel_inference.diagnosis.slo import Tier

if TYPE_CHECKING:
    from collections.abc import Iterable

SIGMAS = (0.3, 0.5, 1.0)
RIGHT_TARGET = 0.95
FALSE_TARGET = 1.0
EARLY_TARGET = 0.03
EARLY = 90
"""Stretches in a quarter of an hour."""


def main() -> None:
    """Run everything and print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.detection", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a minute, for a first look")
    quick = parser.parse_args().quick
    console = Console(width=140, highlight=False)
    console.print(step_table(seeds=40 if quick else 100))
    console.print(early_step_table(seeds=40 if quick else 200))
    console.print(closing_table(seeds=30 if quick else 100))
    console.print(spike_table(seeds=40 if quick else 100))
    console.print(rate_table(seeds=10 if quick else 30))
    console.print(mix_table(seeds=30 if quick else 200))
    console.print(outage_table(seeds=5 if quick else 20))
    console.print(budget_table(days=3 if quick else 30))
    console.print(early_table(seeds=40 if quick else 300))
    console.print(false_table(seeds=1 if quick else 12, windows=DAY // 4 if quick else DAY))


def step_table(seeds: int) -> Table:
    """Steps of latency, by the noise of the stretches' means."""
    table = _table(
        "Windows of 10 s until a step of latency is found (best: the most powerful sequential test of one false alarm a day, which "
        "knows what is usual and how large the step is)",
        "noise", "calls", "autocorrelation", "step", "found within", "best", "median", "p90",
    )  # fmt: skip
    for sigma in SIGMAS:
        for calls in (20, 200):
            for autocorrelation in (0.0, 0.5):
                for ratio, within in ((1.5, 3), (1.2, 10)):
                    case = {"ratio": ratio, "calls": calls, "sigma": sigma, "autocorrelation": autocorrelation}
                    delays = [simulation.step_delay([seed, calls], **case) for seed in range(seeds)]
                    delays = [each for each in delays if each]  # 0: found too early, which is counted elsewhere
                    share = np.mean([each <= within for each in delays])
                    table.add_row(
                        f"{sigma}", f"{calls}", f"{autocorrelation}", f"x {ratio}", f"{share:.0%} in {within}",
                        f"{simulation.best_share(within, **case):.0%}", *_quantiles(delays),
                    )  # fmt: skip
    return table


def early_step_table(seeds: int) -> Table:
    """Large steps where a process has just begun and knows little."""
    table = _table(
        "Windows of 10 s until a step of latency is found, by the windows there were before (noise 0.3, 20 calls)",
        "before", "autocorrelation", "step", "found within 3", "median", "p90",
    )  # fmt: skip
    for before in (24, 30, 42, 60):
        for autocorrelation in (0.0, 0.5):
            for ratio in (1.5, 2.0, 4.0):
                case = {"calls": 20, "sigma": 0.3, "autocorrelation": autocorrelation, "before": before}
                delays = [simulation.step_delay([seed, before], ratio=ratio, **case) for seed in range(seeds)]
                table.add_row(
                    f"{before}", f"{autocorrelation}", f"x {ratio}", f"{np.mean([0 < each <= 3 for each in delays]):.0%}",
                    *_quantiles(delays),
                )  # fmt: skip
    return table


def closing_table(seeds: int) -> Table:
    """Slowdowns that end."""
    table = _table(
        "Windows of 10 s after its end until a slowdown closes, and how often it opened (20 calls a window)",
        "noise", "autocorrelation", "slower", "lasts", "found", "closes: median", "p90", "openings",
    )  # fmt: skip
    for sigma in SIGMAS:
        for autocorrelation in (0.0, 0.5):
            for ratio, lasts in ((1.5, 3), (1.2, 60), (1.5, 60)):
                case = {"ratio": ratio, "calls": 20, "sigma": sigma, "autocorrelation": autocorrelation}
                seen = [simulation.closing_delay([seed, 9], lasts=lasts, **case) for seed in range(seeds)]
                found = [(openings, closed) for openings, closed in seen if openings and closed]
                if found:
                    table.add_row(
                        f"{sigma}", f"{autocorrelation}", f"x {ratio}", f"{lasts}", f"{len(found) / seeds:.0%}",
                        *_quantiles([closed for _, closed in found]), f"{np.mean([each for each, _ in found]):.2f}",
                    )  # fmt: skip
    return table


def early_table(seeds: int) -> Table:
    """Findings where a process has just begun."""
    title = (
        f"Healthy processes of {seeds} with a finding of latency in their first 15 minutes (target {EARLY_TARGET:.0%})"
    )
    table = _table(title, "noise", "calls", "autocorrelation 0", "autocorrelation 0.5")
    for sigma in SIGMAS:
        for calls in (5, 20, 200):
            shares = (
                np.mean([_finds_early([seed, calls, round(10 * sigma)], calls, sigma, r) for seed in range(seeds)])
                for r in (0.0, 0.5)
            )
            table.add_row(f"{sigma}", f"{calls}", *(f"{share:.1%}" for share in shares))
    return table


def _finds_early(seed: list[int], calls: int, sigma: float, autocorrelation: float) -> bool:
    traffic = Traffic(calls=calls, sigma=sigma, autocorrelation=autocorrelation)
    return simulation.false_findings(seed, traffic, EARLY)["latency"] > 0


def spike_table(seeds: int) -> Table:
    """One slow window."""
    table = _table("One window that is slower: taken for a shift", "noise", "calls", "x 3", "x 20")
    for sigma in SIGMAS:
        for calls in (5, 20, 200):
            shares = (
                np.mean([simulation.spike_is_found(seed, ratio=r, calls=calls, sigma=sigma) for seed in range(seeds)])
                for r in (3, 20)
            )
            table.add_row(f"{sigma}", f"{calls}", *(f"{share:.1%}" for share in shares))
    return table


def rate_table(seeds: int) -> Table:
    """Errors and missing calls."""
    table = _table(
        "Windows of 10 s until it is found that ...", "calls", "what", "found within 30 min", "median", "p90"
    )
    for calls in (0.2, 1, 5, 20, 200):
        for failing in (0.1, 0.3, 1.0):
            found = [simulation.burst_delay(seed, calls=calls, usual=0.01, failing=failing) for seed in range(seeds)]
            _add_delays(table, calls, f"{failing:.0%} of the calls fail, usually 1 %", found)
        for left in (0.4, 0.0):
            found = [simulation.drop_delay(seed, calls=calls, left=left) for seed in range(seeds)]
            _add_delays(table, calls, f"{left:.0%} of the calls come", found)
    return table


def mix_table(seeds: int) -> Table:
    """Inputs told apart from slowness."""
    cases = {
        "neither": (1.0, 1.0),
        "inputs x 1.5": (1.5, 1.0),
        "inputs x 2": (2.0, 1.0),
        "inputs x 4": (4.0, 1.0),
        "slower x 1.3": (1.0, 1.3),
        "slower x 2": (1.0, 2.0),
        "both x 1.5, x 1.3": (1.5, 1.3),
        "both x 2, x 2": (2.0, 2.0),
    }
    title = (
        f"Inputs told apart from slowness by 100 calls (target {RIGHT_TARGET:.0%}; best: of slower x 1.3 and not slower, "
        "were it known how time depends on size)"
    )
    table = _table(title, "sizes", "calls before", "noise", *cases, "best")
    for generates in (False, True):
        for base_calls in (100, 1000):
            for sigma in (0.3, 0.5):
                model = {"generates": generates, "base_calls": base_calls, "sigma": sigma}
                shares = (
                    np.mean([simulation.mix_is_right(s, longer=longer, slower=slower, **model) for s in range(seeds)])
                    for longer, slower in cases.values()
                )
                sizes = "input, output" if generates else "input"
                best = simulation.best_mix_share(slower=1.3, base_calls=base_calls, sigma=sigma)
                table.add_row(sizes, f"{base_calls}", f"{sigma}", *(f"{share:.0%}" for share in shares), f"{best:.0%}")
    return table


def outage_table(seeds: int) -> Table:
    """Burns after a day at half the budget."""
    table = _table(
        "Minutes until a burn is found, of any tier (a total outage at 5 calls a minute: within two windows and 2 minutes)",
        "objective", "calls/min", "all bad: median", "max", "page: median", "20 % bad: median", "page: median",
    )  # fmt: skip
    for objective in (0.999, 0.99, 0.95):
        for calls_per_minute in (0.5, 5, 50):
            row: list[str] = []
            for bad_ratio in (1.0, 0.2):
                any_tier, page = _outages(seeds, objective, calls_per_minute, bad_ratio)
                row += [_minutes(np.median(any_tier)), *([_minutes(max(any_tier))] if bad_ratio == 1.0 else [])]
                row.append(_minutes(np.median(page)))
            table.add_row(f"{objective}", f"{calls_per_minute}", *row)
    return table


def _outages(seeds: int, objective: float, calls_per_minute: float, bad_ratio: float) -> tuple[list[int], list[int]]:
    bad_ratios = np.full(DAY + 1080, (1 - objective) / 2)
    bad_ratios[DAY:] = bad_ratio
    any_tier, page = [], []
    for seed in range(seeds):
        opened = simulation.burns(seed, objective=objective, calls_per_minute=calls_per_minute, bad_ratios=bad_ratios)
        pages, controls = ([at - DAY + 1 for at in opened[tier] if at >= DAY] for tier in (Tier.PAGE, Tier.CONTROL))
        any_tier.append(min([*pages, *controls], default=NEVER))
        page.append(min(pages, default=NEVER))
    return any_tier, page


def budget_table(days: int) -> Table:
    """Burns where there are none."""
    table = _table(
        f"Burns found in {days} days with errors at exactly the budget (target: no page)",
        "objective", "calls/min", "page", "control",
    )  # fmt: skip
    for objective in (0.999, 0.99, 0.95):
        for calls_per_minute in (0.5, 5, 50):
            opened = simulation.burns(
                1, objective=objective, calls_per_minute=calls_per_minute,
                bad_ratios=np.full(days * DAY, 1 - objective),
            )  # fmt: skip
            table.add_row(f"{objective}", f"{calls_per_minute}", *(f"{len(opened[tier])}" for tier in Tier))
    return table


def false_table(seeds: int, windows: int) -> Table:
    """Findings where there is nothing to find."""
    title = (
        f"Findings in a healthy day, mean of {seeds} (target {FALSE_TARGET:.0f}): cycles of 40 % in traffic and latency, "
        "autocorrelation 0.5, inputs x 2 a day, 1 % errors"
    )
    table = _table(title, "noise", "calls", "latency", "errors", "throughput", "all", "most in one", "")
    for sigma in SIGMAS:
        for calls in (5, 20, 200):
            days = [
                Counter(
                    simulation.false_findings(
                        [seed, calls, round(10 * sigma)], Traffic(calls=calls, sigma=sigma), windows
                    )
                )
                for seed in range(seeds)
            ]
            total = sum(days, Counter())
            per_day = {name: total[name] * DAY / windows / seeds for name in ("latency", "errors", "throughput")}
            mean = sum(per_day.values())
            cells = (*(f"{each:.2f}" for each in per_day.values()), f"{mean:.2f}")
            most = max(sum(day.values()) for day in days)
            table.add_row(f"{sigma}", f"{calls}", *cells, f"{most}", "ok" if mean <= FALSE_TARGET else "miss")
    return table


def _add_delays(table: Table, calls: float, what: str, delays: list[int]) -> None:
    found = np.mean([each < NEVER for each in delays])
    table.add_row(f"{calls}", what, f"{found:.0%}", *_quantiles(delays))


def _quantiles(delays: Iterable[int]) -> tuple[str, str]:
    middle, late = np.quantile(list(delays), (0.5, 0.9), method="higher")
    return _windows(middle), _windows(late)


def _windows(delay: float) -> str:
    return "-" if delay >= NEVER else f"{delay:.0f}"


def _minutes(windows: float) -> str:
    return "-" if windows >= NEVER else f"{int(windows) // 6}:{int(windows) % 6}0"


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, justify="right")
    return table


if __name__ == "__main__":
    main()
