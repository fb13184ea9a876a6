"""How long a call of a given size is expected to be worked on, by the calls there have been."""

from __future__ import annotations

import math
from itertools import combinations
from operator import mul
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from otel_inference.health.stretch import SizeKey

_LINE_CALLS: Final = 3.0
"""The line counts for as much as so many calls of a class."""
_MOST_CALLS: Final = 100.0
"""A class counts for at most so many calls in the line, as no line is true enough to be bent to one class."""
_PRIOR: Final = (1.0, 0.1, 0.01)
"""Reluctance to explain time by what each call costs, its input and its output, in calls: where all calls are of one
size, time is taken to grow with size, first of all with that of the output."""
_LINE_ERROR: Final = 0.1
"""Relative error of the line for a class that there was no call of."""
_ROUNDS: Final = 20
_CLOSE: Final = 1e-3


class Totals(Protocol):
    """Sums over the calls of one class, as in `health.stretch.SizeTotals`, which may be weighted ones."""

    @property
    def calls(self) -> float:
        """How many."""
        ...

    @property
    def service_s(self) -> float:
        """Time they were worked on."""
        ...

    @property
    def log_service(self) -> float:
        """Sum of the natural logarithms of it."""
        ...

    @property
    def log_square(self) -> float:
        """Sum of the squares of the logarithms."""
        ...


class Expectation:
    """Expected ln(service) by size.

    For a class of sizes it is the mean of its own calls, drawn towards a line, cost = a + b input + c output, none
    of the three negative, with the weight of three calls. So a class that was never seen is judged by the line
    alone, and a model whose calls cost the same per token does not look slower when inputs get longer.

    Args:
        base: What to learn from; at least one call in all.
    """

    def __init__(self, base: Mapping[SizeKey, Totals]) -> None:
        self._base = base
        self._mean = sum(each.log_service for each in base.values()) / sum(each.calls for each in base.values())
        families: dict[tuple[bool, bool], list[SizeKey]] = {}
        for key in base:
            families.setdefault(_family(key), []).append(key)
        self._lines = {family: _line([(key, base[key]) for key in keys]) for family, keys in families.items()}
        self.variance = variance_within(base)
        """Of ln(service) among calls of one class."""

    def of(self, key: SizeKey) -> float:
        """Expected ln(service) of a call of this class."""
        line = self._by_line(key)
        own = self._base.get(key)
        return line if own is None else (own.log_service + _LINE_CALLS * line) / (own.calls + _LINE_CALLS)

    def error(self, key: SizeKey) -> tuple[float, float]:
        """Standard errors of what is expected: of the class's own calls, and of the line, which classes share."""
        own = self._base.get(key)
        calls = 0.0 if own is None else own.calls
        return math.sqrt(self.variance / (calls + _LINE_CALLS)), _LINE_ERROR * _LINE_CALLS / (calls + _LINE_CALLS)

    def elasticity(self, key: SizeKey) -> tuple[float, float]:
        """By how many percent such a call's cost grows when its input, and its output, grow by one."""
        line, sizes = self._lines.get(_family(key)), _sizes(key)
        if line is None or _family(key) == (False, False):
            return 0.0, 0.0
        cost = sum(map(mul, line, sizes))
        return line[1] * sizes[1] / cost, line[2] * sizes[2] / cost

    def _by_line(self, key: SizeKey) -> float:
        line = self._lines.get(_family(key))
        if line is None or _family(key) == (False, False):
            return self._mean
        return math.log(sum(map(mul, line, _sizes(key))))


def variance_within(totals: Mapping[SizeKey, Totals]) -> float:
    """Variance of ln(service) among calls of one class, pooled over classes; 0 where no class has two calls."""
    several = [each for each in totals.values() if each.calls > 1]
    degrees = sum(each.calls - 1 for each in several)
    squares = sum(max(0.0, each.log_square - each.log_service**2 / each.calls) for each in several)
    return squares / degrees if degrees else 0.0


def lower_bound(size_class: int) -> float:
    """Smallest size of a class; see `health.stretch.size_class`."""
    return 2.0 ** (size_class / 2) if size_class > 0 else 0.0


def octaves(key: SizeKey) -> float:
    """Width of a class: half an octave, or a whole one where the output's size is known; see `SizeKey`."""
    return 0.5 if key.output_class < 0 else 1.0


def _family(key: SizeKey) -> tuple[bool, bool]:
    """Which sizes are known; lines are for calls of which the same is known."""
    return key.input_class >= 0, key.output_class >= 0


def _sizes(key: SizeKey) -> tuple[float, float, float]:
    """1 for the call itself, and its sizes: the middle of their class, 0 where unknown."""
    half_width = octaves(key) / 2
    read, written = (math.pow(2.0, each / 2 + half_width) if each >= 0 else 0.0 for each in key)
    return 1.0, read, written


def _line(cells: Sequence[tuple[SizeKey, Totals]]) -> list[float]:
    """Costs per call and per unit of input and output, none negative, by least squares of logarithms.

    Gauss-Newton: each round is a linear least-squares problem around the costs of the round before.
    """
    known = [i for i in range(3) if i == 0 or cells[0][0][i - 1] >= 0]
    points = [
        ([_sizes(key)[i] for i in known], each.log_service / each.calls, min(each.calls, _MOST_CALLS))
        for key, each in cells
    ]
    calls = sum(weight for _, _, weight in points)
    mean = math.exp(sum(log * weight for _, log, weight in points) / calls)
    # Costs are solved for as shares of the mean, so that reluctance means the same whatever the units.
    units = [mean * calls / sum(sizes[i] * weight for sizes, _, weight in points) for i in range(len(known))]
    rows = [([unit * size for unit, size in zip(units, sizes, strict=True)], log, w) for sizes, log, w in points]
    shares = [1.0 / len(known)] * len(known)
    for _ in range(_ROUNDS):
        before, shares = shares, _step(rows, shares, [_PRIOR[i] for i in known])
        if max(abs(one - other) for one, other in zip(before, shares, strict=True)) < _CLOSE:
            break
    costs = [0.0, 0.0, 0.0]
    for i, share, unit in zip(known, shares, units, strict=True):
        costs[i] = share * unit
    return costs


def _step(
    rows: Sequence[tuple[Sequence[float], float, float]], shares: Sequence[float], prior: Sequence[float]
) -> list[float]:
    """Shares that fit the logarithms best, linearised around these."""
    parts = range(len(shares))
    matrix = [[prior[i] if i == j else 0.0 for j in parts] for i in parts]
    target = [0.0] * len(shares)
    for row, log, weight in rows:
        cost = sum(map(mul, shares, row))
        wanted = weight / cost * (1.0 + max(-1.0, min(1.0, log - math.log(cost))))
        square = weight / (cost * cost)
        for i in parts:
            target[i] += wanted * row[i]
            for j in parts:
                matrix[i][j] += square * row[i] * row[j]
    return _non_negative(matrix, target)


def _non_negative(matrix: Sequence[Sequence[float]], target: Sequence[float]) -> list[float]:
    """The x without negative parts that minimises x'Mx / 2 - t'x, for a positive definite M.

    It is the best of the minima over some of the parts with the others left at 0, where those are not negative.

    >>> [round(each, 6) for each in _non_negative([[2.0, 1.0], [1.0, 2.0]], [3.0, 0.0])]
    [1.5, 0.0]
    """
    parts = range(len(target))
    best, best_gain = [0.0] * len(target), 0.0
    for some in (some for count in reversed(parts) for some in combinations(parts, count + 1)):
        found = _solved([[matrix[i][j] for j in some] for i in some], [target[i] for i in some])
        # At such a minimum, what is gained is half of t'x.
        gain = sum(target[i] * each for i, each in zip(some, found, strict=True))
        if min(found) >= 0.0 and gain > best_gain:
            best, best_gain = [0.0] * len(target), gain
            for i, each in zip(some, found, strict=True):
                best[i] = each
            if len(some) == len(target):
                break
    return best


def _solved(matrix: list[list[float]], target: list[float]) -> list[float]:
    """The x for which Mx = t, by elimination; M is positive definite, so that it needs no pivots.

    No eigenvalue of it is less than the least reluctance, hence no element of the diagonal is while it is eliminated,
    but for rounding, where sizes are many powers of ten apart.
    """
    size = len(target)
    for i in range(size):
        matrix[i][i] = max(matrix[i][i], _PRIOR[-1])
        for below in range(i + 1, size):
            factor = matrix[below][i] / matrix[i][i]
            target[below] -= factor * target[i]
            for j in range(i, size):
                matrix[below][j] -= factor * matrix[i][j]
    found = [0.0] * size
    for i in reversed(range(size)):
        rest = sum(matrix[i][j] * found[j] for j in range(i + 1, size))
        found[i] = (target[i] - rest) / matrix[i][i]
    return found
