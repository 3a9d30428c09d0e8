"""Every norm by the textbook, axis by axis, in extended precision; and how near is near. No tests.

Nothing here knows of five axes: a batch norm averages over all axes but the channels', an instance
norm over all but the channels' and the first, a layer norm over the axes it is given.
"""

from typing import Any, NamedTuple

import numpy as np
from table import EPS, HALVES, Case, Data, result_dtype

WIDE = np.longdouble
Array = np.ndarray


class Expected(NamedTuple):
    """A value, and the size of the terms it was added up from."""

    value: Array
    size: Array


class ExpectedGradients(NamedTuple):
    dx: Expected
    dgamma: Expected
    dbeta: Expected


def wide(a: Any) -> Array:
    return np.asarray(a).astype(np.float64).astype(WIDE)


def spread(case: Case, parameter: Array) -> Array:
    """Return gamma's like, with x's axes."""
    others = tuple(a for a in range(len(case.shape)) if a not in case.own)
    return np.expand_dims(wide(parameter), others)


def total(case: Case, v: Array) -> Array:
    """Sum over the values that share their statistics; keeps the axes."""
    ndim = len(case.shape)
    if case.norm in ("layer", "rms"):
        return v.sum(case.own, keepdims=True)
    if case.norm in ("batch", "frozen"):
        return v.sum(tuple(a for a in range(ndim) if a not in case.own), keepdims=True)
    if case.norm == "instance":
        return v.sum(tuple(a for a in range(1, ndim) if a not in case.own), keepdims=True)
    front = tuple(range(1, len(case.own) + 1))
    channels = case.parameter_shape
    samples = np.moveaxis(v, case.own, front).reshape(case.shape[0], case.groups, -1)
    each = np.repeat(samples.sum(-1), np.prod(channels) // case.groups, axis=1)
    ones = (1,) * (ndim - 1 - len(channels))
    return np.moveaxis(each.reshape(case.shape[0], *channels, *ones), front, case.own)


def moments(case: Case, x: Array, where: Array | None = None) -> tuple[Array, Array, Array]:
    """Return count, mean and sum of squared deviations of each value's own set."""
    keep = np.ones(case.shape, bool) if where is None else np.broadcast_to(where, case.shape)
    x = np.where(keep, wide(x), 0)
    count = total(case, keep.astype(WIDE))
    mean = total(case, x) / count
    return count, mean, total(case, np.where(keep, apart(case, x, keep, mean), 0) ** 2)


def apart(case: Case, x: Array, keep: Array, mean: Array) -> Array:
    """x less its mean, in full: what the sum of the rest is tells what a mean lost to rounding."""
    rest = wide(x) - mean
    return rest - total(case, np.where(keep, rest, 0)) / total(case, keep.astype(WIDE))


def statistics(case: Case, d: Data, where: Array | None = None) -> tuple[Array, Array, Array]:
    """Return count, and the mean and variance the case normalizes by."""
    if case.norm == "frozen":
        return WIDE(1), spread(case, d.mean), spread(case, d.var)
    if case.norm == "rms":
        count = total(case, np.ones(case.shape, WIDE))
        return count, WIDE(0), total(case, wide(d.x) ** 2) / count
    count, mean, m2 = moments(case, d.x, where)
    return count, mean, m2 / count


def forward(
    case: Case,
    d: Data,
    where: Array | None = None,
    residual: Array | None = None,
    activation: str | None = None,
) -> Expected:
    _, mean, var = statistics(case, d, where)
    scaled = (wide(d.x) - mean) / np.sqrt(var + EPS) * spread(case, d.gamma)
    shift = WIDE(0) if case.norm == "rms" else spread(case, d.beta)
    added = WIDE(0) if residual is None else wide(residual)
    y = scaled + shift + added
    size = np.abs(scaled) + np.abs(shift) + np.abs(added)
    if result_dtype(d.x.dtype) == np.float64:  # the mean itself is rounded to float64
        size = size + np.abs(mean) / np.sqrt(var + EPS) * np.abs(spread(case, d.gamma))
    return Expected(np.maximum(y, 0) if activation else y, np.maximum(size, 1))


def backward(case: Case, d: Data, where: Array | None = None) -> ExpectedGradients:
    """Return the derivatives of sum(dy * y), where y has the excluded values too."""
    keep = np.ones(case.shape, bool) if where is None else np.broadcast_to(where, case.shape)
    count, mean, var = statistics(case, d, where)
    rstd, gamma = 1 / np.sqrt(var + EPS), spread(case, d.gamma)
    given = case.norm in ("rms", "frozen")
    x = wide(d.x) - mean if given else apart(case, d.x, keep, mean)
    xhat, dy = x * rstd, wide(d.dy)
    counted = keep | np.isfinite(xhat * dy)
    known, dknown = np.where(counted, xhat, 0), np.where(counted, dy, 0)
    direct = gamma * dy
    shares = [gamma * dknown, gamma * dknown * known]
    first, second = (total(case, s) / count for s in shares)
    sizes = [total(case, np.abs(s)) / count for s in shares]
    if given:
        first, sizes[0] = WIDE(0), WIDE(0)
    if case.norm == "frozen":
        second, sizes[1] = WIDE(0), WIDE(0)
    dx = rstd * (direct - np.where(keep, first + known * second, 0))
    around = np.abs(known) + 1
    size = rstd * (np.abs(direct) + sizes[0] + around * sizes[1])
    over = tuple(a for a in range(len(case.shape)) if a not in case.own)
    dgamma = (dknown * known).sum(over), (np.abs(dknown) * around).sum(over)
    dbeta = dknown.sum(over), np.abs(dknown).sum(over)
    return ExpectedGradients(Expected(dx, size), Expected(*dgamma), Expected(*dbeta))


def precision(dtype: np.dtype) -> float:
    """The unit in the last place of one."""
    return {"float16": 2.0**-10, "bfloat16": 2.0**-7, "float32": 2.0**-23}.get(dtype.name, 2.0**-52)


def assert_near(got: Array, want: Expected, room: float | None = None) -> None:
    """Compare within the rounding of the result, and of a few operations on its terms."""
    unit = precision(got.dtype)
    working = 2.0**-23 if got.dtype in HALVES else unit
    room = room or (32 if got.dtype == np.float64 else 4)
    assert got.shape == np.shape(want.value)
    error = np.abs(wide(got) - want.value)
    bound = unit * np.abs(want.value) + room * working * want.size
    bound = bound + (2.0**-24 if got.dtype == np.float16 else 1e-45)  # subnormal numbers
    np.testing.assert_array_equal(np.isnan(error), np.isnan(want.value))
    worst = np.nanmax(error / bound, initial=0)
    assert worst <= 1, f"{worst:.3g} times the bound"
