"""Count, mean and sum of squared deviations per channel, and how those of two sets merge."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from numba_bn._arrays import Array, as_array, result_dtype

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


@dataclass(slots=True, eq=False)
class Moments:
    """float64 arrays of one shape; the mean is held in two, so that merging costs no digits.

    Nobody changes one. Frozen, it would take three times as long to make.
    """

    count: Array
    mean: Array
    low: Array
    """What the mean lost to rounding."""
    m2: Array

    @property
    def moments(self) -> Moments:
        """Return self, as exact sums return theirs."""
        return self

    @np.errstate(over="ignore", invalid="ignore")  # not a with: Ctrl-C at its start would keep it
    def merge(self, other: Moments) -> Moments:
        """Merge two sets by Chan's formula, with the difference of the means in full."""
        n0, n1 = self.count, other.count
        count = n0 + n1
        both = (n0 > 0) & (n1 > 0)
        share = np.divide(n1, count, out=np.zeros_like(count), where=both)
        apart, rest = _two_sum(other.mean, -self.mean)
        delta = np.where(both, apart + (rest + (other.low - self.low)), 0.0)
        mean, lost = _two_sum(self.mean, delta * share)
        mean, low = _two_sum(mean, lost + self.low)
        m2 = self.m2 + other.m2 + delta**2 * n0 * share
        of_one = np.where(n0 > 0, (self.mean, self.low), (other.mean, other.low))
        mean, low = np.where(both, (mean, low), of_one)
        return Moments(count, mean, np.where(np.isfinite(mean), low, 0.0), m2)

    def arrays(self) -> dict[str, Array]:
        """Return all there is to keep, by name; first what files need not have.

        A damaged directory of a file loses what comes last.
        """
        return {"mean_low": self.low, "count": self.count, "mean": self.mean, "m2": self.m2}


def moments_of(
    count: ArrayLike, mean: ArrayLike, m2: ArrayLike, mean_low: ArrayLike | None = None
) -> Moments:
    """Return copies of arrays of one shape; older files have no ``mean_low``."""
    named = {"count": count, "mean": mean, "m2": m2, "mean_low": mean_low}
    arrays = [_float64("ChannelStats", k, v) for k, v in named.items() if v is not None]
    if len({a.shape for a in arrays}) > 1:
        shapes = ", ".join(str(a.shape) for a in arrays)
        raise ValueError(f"ChannelStats: count, mean and m2 must have one shape, got {shapes}")
    n, high, squares, *low = arrays
    return Moments(n, high, low[0] if low else np.zeros(n.shape), squares)


def variance(count: Array, m2: Array, correction: float) -> Array:
    """Return ``m2 / (count - correction)``, and NaN where that many values were not seen."""
    result = np.full(count.shape, np.nan)
    np.divide(m2, count - correction, out=result, where=count > correction)
    return result


def _float64(call: str, name: str, value: object) -> Array:
    """Return a copy of an array argument as float64."""
    array = as_array(call, name, value)
    result_dtype(call, name, array.dtype)
    return array.astype(np.float64)


def _two_sum(a: Array, b: Array) -> tuple[Array, Array]:
    """Return a + b, and what it lost to rounding."""
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)
