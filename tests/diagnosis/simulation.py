"""Simulated streams with a known truth, and what the detectors make of them: for tests and for benchmarks/detection.py."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from otel_inference.diagnosis.drift import ShiftDetector
from otel_inference.diagnosis.mix import compare, merged
from otel_inference.diagnosis.rate import RateDetector
from otel_inference.diagnosis.slo import BurnWatch, Tier
from otel_inference.diagnosis.work import Work
from otel_inference.health.stretch import STRETCH_S, SizeKey, SizeTotals, Stretch

DAY = 8640
"""Stretches of ten seconds in a day."""
BEFORE = 200
"""Healthy windows before a step."""
NEVER = 10**6


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """A healthy model: what varies although nothing is wrong."""

    calls: float = 20.0
    """Mean number in a stretch."""
    sigma: float = 0.3
    """Standard deviation of ln(service) among calls of one size."""
    autocorrelation: float = 0.5
    """Of the mean logarithms of stretches, whose variance is sigma² over the number of calls."""
    cycle: float = 0.4
    """Relative amplitude of the daily cycles of traffic and of latency, each of its own phase."""
    growth: float = 2.0
    """Factor by which inputs grow in a day."""
    failing: float = 0.01


def autoregressive(rng, windows, autocorrelation):
    """A process of first order of variance 1."""
    noise = rng.standard_normal(windows) * math.sqrt(1 - autocorrelation**2)
    values = np.empty(windows)
    value = rng.standard_normal()
    for index in range(windows):
        value = autocorrelation * value + noise[index]
        values[index] = value
    return values


def cycle(rng, windows, amplitude):
    """A daily cycle around 1, of random phase."""
    return 1 + amplitude * np.sin(2 * math.pi * (np.arange(windows) / DAY + rng.random()))


def healthy_stretches(rng, traffic, windows):
    """Per stretch: the number of calls, of failed ones, and the totals of the others by size."""
    counts = rng.poisson(traffic.calls * cycle(rng, windows, traffic.cycle))
    failed = rng.binomial(counts, traffic.failing)
    good = counts - failed
    window = np.repeat(np.arange(windows), good)
    sizes = 200 * traffic.growth ** (window / DAY) * np.exp(0.6 * rng.standard_normal(len(window)))
    scatter = rng.standard_normal(len(window))
    sums = np.bincount(window, scatter, windows)
    means = np.divide(sums, good, out=np.zeros(windows), where=good > 0)
    wanted = autoregressive(rng, windows, traffic.autocorrelation) / np.sqrt(np.maximum(good, 1))
    level = np.log(cycle(rng, windows, traffic.cycle)) + traffic.sigma * (wanted - means)
    logs = np.log(0.02 + 1e-4 * sizes) + level[window] + traffic.sigma * scatter
    cells, inverse = np.unique(window * 64 + (2 * np.log2(sizes)).astype(int), return_inverse=True)
    columns = [np.bincount(inverse, each).tolist() for each in (np.ones(len(logs)), np.exp(logs), logs, logs**2)]
    by_size = [{} for _ in range(windows)]
    for cell, calls, service_s, log_service, log_square in zip(cells.tolist(), *columns, strict=True):
        totals = SizeTotals(int(calls), service_s, log_service, log_square)
        by_size[cell // 64][SizeKey(cell % 64, -1)] = totals
    return zip(counts.tolist(), failed.tolist(), by_size, strict=True)


def false_findings(seed, traffic, windows=DAY):
    """How many findings each detector opens on healthy traffic, fed as the rules feed them."""
    rng = np.random.default_rng(seed)
    work, errors, throughput = Work(), RateDetector(min_excess=0.01), RateDetector(direction=-1)
    opened = {"latency": 0, "errors": 0, "throughput": 0}
    was = dict.fromkeys(opened, False)
    for index, (calls, failed, by_size) in enumerate(healthy_stretches(rng, traffic, windows), 1):
        at_s = index * STRETCH_S
        stretch = Stretch(at_s - STRETCH_S, at_s)
        stretch.calls, stretch.errors, stretch.by_size = calls, failed, by_size
        work.add(stretch)
        if calls:
            errors.update(failed, calls, at_s)
        throughput.update(calls, STRETCH_S, at_s)
        shifted = {"latency": work.is_slow, "errors": errors.shifted, "throughput": throughput.shifted}
        for name, is_shifted in shifted.items():
            opened[name] += is_shifted and not was[name]
        was = shifted
    return opened


def mean_logs(rng, windows, *, calls, sigma, autocorrelation):
    """Mean ln(service) of healthy windows around 0, and the calls behind each."""
    counts = np.maximum(rng.poisson(calls, windows), 1)
    return autoregressive(rng, windows, autocorrelation) * sigma / np.sqrt(counts), counts


def step_delay(seed, *, ratio, calls, sigma, autocorrelation=0.0, within=60, before=BEFORE):
    """Windows until a lasting step is found; `NEVER` if it is not, 0 if something was found before it."""
    rng = np.random.default_rng(seed)
    values, counts = mean_logs(rng, before + within, calls=calls, sigma=sigma, autocorrelation=autocorrelation)
    values[before:] += math.log(ratio)
    detector = ShiftDetector()
    for index, (value, count) in enumerate(zip(values.tolist(), counts.tolist(), strict=True)):
        detector.update(value, index * STRETCH_S, weight=count, error=sigma / math.sqrt(count))
        if detector.shifted:
            return max(0, index - before + 1)
    return NEVER


def spike_is_found(seed, *, ratio, calls, sigma, autocorrelation=0.5):
    """Whether one window that is `ratio` times as slow is taken for a shift within the ten after it."""
    rng = np.random.default_rng(seed)
    values, counts = mean_logs(rng, BEFORE + 11, calls=calls, sigma=sigma, autocorrelation=autocorrelation)
    values[BEFORE] += math.log(ratio)
    detector, without = ShiftDetector(), ShiftDetector()
    for index, (value, count) in enumerate(zip(values.tolist(), counts.tolist(), strict=True)):
        detector.update(value, index * STRETCH_S, weight=count)
        if index < BEFORE:
            without.update(value, index * STRETCH_S, weight=count)
    return detector.shifted and not without.shifted


def best_share(windows, *, ratio, calls, sigma, autocorrelation, streams=4000):
    """Share of steps that the most powerful sequential test finds in so many windows, at one false alarm a day.

    That is CUSUM: the likelihood ratio of a step at the likeliest time before (Page, Biometrika 41, 1954; optimal by
    Moustakides, Ann. Stat. 14, 1986). Unlike a detector it knows level, noise, autocorrelation and the step's size;
    it is tuned to this one step. Simulated; the threshold is that which a tenth of a day crosses once in ten times.
    """
    step = math.log(ratio) * math.sqrt(calls / (1 - autocorrelation**2)) / sigma  # in units of the innovations
    later = step * (1 - autocorrelation)
    rng = np.random.default_rng(0)

    def highest(quiet, shifted):
        score, high = np.full(streams, -np.inf), np.full(streams, -np.inf)
        for index in range(quiet + shifted):
            surprise = rng.standard_normal(streams)
            if index >= quiet:
                surprise += step if index == quiet else later
            score = np.maximum(score + later * (surprise - later / 2), step * (surprise - step / 2))
            high = np.maximum(high, score) if index >= (quiet if shifted else 0) else high
        return high

    threshold = np.quantile(highest(DAY // 10, 0), math.exp(-0.1))
    return float(np.mean(highest(100, windows) >= threshold))


def best_mix_share(*, slower, base_calls, calls=100, sigma=0.3):
    """Share of comparisons that can be right of "slower" and of "not slower", were size's part in the time known."""
    error = sigma * math.sqrt(1 / base_calls + 1 / calls)
    return NormalDist().cdf(math.log(slower) / 2 / error)


def closing_delay(seed, *, ratio, calls, sigma, lasts, autocorrelation=0.0):
    """How often a step that `lasts` so many windows opens, and how many windows after its end it closes.

    The latter is 0 if it was not found, and `NEVER` if it was still open after sixty windows.
    """
    rng = np.random.default_rng(seed)
    values, counts = mean_logs(rng, BEFORE + lasts + 60, calls=calls, sigma=sigma, autocorrelation=autocorrelation)
    values[BEFORE : BEFORE + lasts] += math.log(ratio)
    detector, openings, closed = ShiftDetector(), 0, 0
    for index, (value, count) in enumerate(zip(values.tolist(), counts.tolist(), strict=True)):
        was = detector.shifted
        detector.update(value, index * STRETCH_S, weight=count)
        if index >= BEFORE:
            openings += detector.shifted and not was
        if index >= BEFORE + lasts and was and not detector.shifted:
            closed = closed or index - (BEFORE + lasts) + 1
    return openings, NEVER if detector.shifted and not closed else closed


class Calls:
    """Counts over horizons, as `HorizonCounts` gives them, of a whole simulated run."""

    def __init__(self, rng, *, calls_per_minute, bad_ratios):
        calls = rng.poisson(calls_per_minute / 6, len(bad_ratios))
        self.bad = rng.binomial(calls, bad_ratios)
        self._calls_before = np.concatenate([[0], np.cumsum(calls)]).tolist()
        self._bad_before = np.concatenate([[0], np.cumsum(self.bad)]).tolist()
        self.now = 0

    def counts(self, horizon_s):
        """Calls and bad ones up to and with stretch `now`; longer horizons begin with a whole minute."""
        end = self.now + 1
        begin = end - round(horizon_s / 10) if horizon_s <= 300 else (self.now // 6 + 1) * 6 - round(horizon_s / 10)
        begin = max(0, begin)
        return self._calls_before[end] - self._calls_before[begin], self._bad_before[end] - self._bad_before[begin]


def burns(seed, *, objective, calls_per_minute, bad_ratios):
    """When burns open, by tier: indices of stretches."""
    calls = Calls(np.random.default_rng(seed), calls_per_minute=calls_per_minute, bad_ratios=bad_ratios)
    watch, was, opened = BurnWatch(objective), None, {Tier.PAGE: [], Tier.CONTROL: []}
    for calls.now in range(len(bad_ratios)):
        burn = watch.update(calls.counts, (calls.now + 1) * STRETCH_S)
        tier = None if burn is None else burn.tier
        if tier is not None and tier is not was:
            opened[tier].append(calls.now)
        was = tier
    return opened


def sized_calls(rng, count, *, longer=1.0, slower=1.0, sigma=0.3, generates=False):
    """Totals by size of `count` calls in stretches of twenty, with inputs and time changed by these factors."""
    stretches = []
    for first in range(0, count, 20):
        stretch, calls = Stretch(0.0, STRETCH_S), min(20, count - first)
        inputs, outputs = (median * longer * np.exp(0.6 * rng.standard_normal(calls)) for median in (200, 100))
        seconds = (1e-4 * inputs + 2e-3 * outputs * generates) * slower * np.exp(sigma * rng.standard_normal(calls))
        for size, tokens, duration_s in zip(inputs.tolist(), outputs.tolist(), seconds.tolist(), strict=True):
            stretch.add(duration_s, input_size=int(size), output_tokens=int(tokens) if generates else None)
        stretches.append(stretch.by_size)
    return merged(stretches)


def mix_is_right(seed, *, longer, slower, base_calls=1000, calls=100, sigma=0.3, generates=False):
    """Whether inputs and slowness are told apart."""
    rng = np.random.default_rng(seed)
    base = sized_calls(rng, base_calls, sigma=sigma, generates=generates)
    now = sized_calls(rng, calls, longer=longer, slower=slower, sigma=sigma, generates=generates)
    found = compare(base, now)
    return (found.inputs_grew, found.slowed) == (longer > 1, slower > 1)


def burst_delay(seed, *, calls, usual, failing):
    """Windows until a burst of errors is found."""
    rng = np.random.default_rng(seed)
    counts = rng.poisson(calls, 300 + 180)
    failed = rng.binomial(counts, np.where(np.arange(480) < 300, usual, failing))
    detector = RateDetector(min_excess=0.01)
    for index, (bad, count) in enumerate(zip(failed.tolist(), counts.tolist(), strict=True)):
        if count:
            detector.update(bad, count, index * STRETCH_S)
        if detector.shifted:
            return max(0, index - 300 + 1)
    return NEVER


def drop_delay(seed, *, calls, left):
    """Windows until it is found that only the share `left` of the calls comes."""
    rng = np.random.default_rng(seed)
    counts = rng.poisson(calls * np.where(np.arange(380) < BEFORE, 1.0, left))
    detector = RateDetector(direction=-1)
    for index, count in enumerate(counts.tolist()):
        detector.update(count, STRETCH_S, index * STRETCH_S)
        if detector.shifted:
            return max(0, index - BEFORE + 1)
    return NEVER
