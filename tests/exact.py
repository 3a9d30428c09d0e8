"""Statistics in rational arithmetic of the values as they are stored. No tests."""

import math
from fractions import Fraction

import numpy as np
from table import Case

CASES = [
    Case("batch", (4, 3, 500)),
    Case("batch", (4, 500, 3), (-1,)),
    Case("batch", (2, 13, 7, 9)),
    Case("batch", (700, 5)),
    Case("instance", (4, 3, 500)),
    Case("instance", (4, 500, 3), (-1,)),
    Case("group", (4, 6, 7, 9), groups=2),
    Case("group", (4, 7, 9, 6), (-1,), groups=2),
    Case("layer", (70, 70), (-1,)),
]
"""Few enough values to be compared with exact arithmetic."""


def exact_moments(values):
    """Return the mean and the sum of squared deviations as fractions."""
    ratios = [float(v).as_integer_ratio() for v in values.ravel()]
    scale, n = max(d for _, d in ratios), len(ratios)
    whole = [p * (scale // d) for p, d in ratios]
    first, second = sum(whole), sum(v * v for v in whole)
    return Fraction(first, n * scale), Fraction(n * second - first * first, n * scale * scale)


def channel_moments(x, axis):
    """Return the exact mean and m2 of every channel."""
    return zip(*(exact_moments(channel) for channel in np.moveaxis(x, axis, 0)), strict=True)


def relative_error(got, want):
    """Return the largest relative error of floats against fractions."""
    pairs = zip(np.ravel(got), want, strict=True)
    return max(float(abs(Fraction(float(g)) - w) / abs(w)) for g, w in pairs)


def labels(case: Case):
    """Number the sets that share their statistics, and give each value the number of its own."""
    index = np.indices(case.shape)
    if case.norm in ("layer", "rms"):
        return np.ravel_multi_index(index[:-1], case.shape[:-1])
    (axis,) = case.own
    channels = case.shape[axis]
    if case.norm in ("batch", "frozen"):
        return index[axis]
    groups = case.groups or channels
    return index[0] * groups + index[axis] * groups // channels


def exact_norm(case: Case, x, eps):
    """Return the mean and variance of each value's set, and y, each rounded once or twice."""
    belongs, eps = labels(case), Fraction(eps)
    mean, var, y = np.empty((3, *x.shape))
    for label in np.unique(belongs):
        at = belongs == label
        center, m2 = exact_moments(x[at])
        spread = m2 / int(at.sum())
        if case.norm == "rms":
            center, spread = Fraction(0), spread + center**2
        scale = float(spread + eps) ** 0.5
        y[at] = [float(Fraction(float(v)) - center) / scale for v in x[at]]
        mean[at], var[at] = float(center), float(spread)
    return mean, var, y


def rounded(q):
    """The float64 nearest to a fraction."""
    try:
        return q.numerator / q.denominator
    except OverflowError:
        return math.inf


def rounded_moments(values):
    """Return count, mean and m2 of finite values, each rounded once."""
    whole = [Fraction(int(v)) if values.dtype.kind in "iu" else Fraction(float(v)) for v in values]
    if not whole:
        return 0, math.nan, 0.0
    n, total = len(whole), sum(whole)
    return n, rounded(total / n), rounded(sum(v * v for v in whole) - total * total / n)


def assert_exact(found, x, axis, where=None):
    """See that statistics are those of x, to the last bit."""
    keep = np.ones(x.shape, bool) if where is None else np.broadcast_to(where, x.shape)
    channels = zip(np.moveaxis(x, axis, 0), np.moveaxis(keep, axis, 0), strict=True)
    want = [rounded_moments(values[kept]) for values, kept in channels]
    np.testing.assert_array_equal(np.stack([found.count, found.mean, found.m2]).T, want)
