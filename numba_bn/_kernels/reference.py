"""The backend functions in plain NumPy and float64: oracle, baseline, specification."""

from __future__ import annotations

from typing import Any

import numpy as np

from numba_bn import _words
from numba_bn._words import BITS, ExactSums

Array = np.ndarray[Any, np.dtype[Any]]
Moments = tuple[Array, Array, Array, Array]
REDUCED = (1, 3, 4)


def _stat(v: Array) -> Array:
    """(batch, groups) → broadcasts over five axes."""
    return v[:, None, :, None, None]


def _param(p: Array, x5: Array) -> Array:
    """(channels,) → broadcasts over five axes."""
    return p.reshape(1, 1, *x5.shape[2:4], 1)


def moments(x5: Array, where5: Array | None = None) -> Moments:
    """x (five axes) → count, mean, what the mean lost to rounding, m2 (batch, groups)."""
    keep = np.ones(x5.shape, bool) if where5 is None else where5
    x = np.where(keep, x5.astype(np.float64), 0.0)
    count = keep.sum(REDUCED).astype(np.float64)
    mean = np.full(count.shape, np.nan)
    np.divide(x.sum(REDUCED), count, out=mean, where=count > 0)
    # a second look at the mean removes the rounding of the first sum, a third tells what is left
    mean += np.where(keep, x - _stat(mean), 0.0).sum(REDUCED) / np.maximum(count, 1.0)
    apart = np.where(keep, x - _stat(mean), 0.0)
    low = apart.sum(REDUCED) / np.maximum(count, 1.0)
    m2 = (np.where(keep, apart - _stat(low), 0.0) ** 2).sum(REDUCED)
    mean[np.isnan(m2)] = np.nan
    low[~np.isfinite(mean)] = 0.0
    return count, mean, low, m2


def _rstd(var: Array, eps: float) -> Array:
    """1/√(var + eps), and 0 where that is 1/0: a constant group is normalized to zero."""
    v = np.asarray(var + eps)
    return np.divide(1.0, np.sqrt(v), out=np.zeros_like(v), where=v != 0.0)


def _raw(m: Moments, centred: bool) -> tuple[Array, Array, Array]:
    """Mean, low and variance to normalize with; RMS norm holds the mean at zero."""
    count, mean, low, m2 = m
    var, zero = m2 / count, np.zeros_like(mean)
    return (mean, low, var) if centred else (zero, zero, var + mean**2)


def _less(x5: Array, mean: Array, low: Array | None) -> Array:
    """x - mean, less what the mean lost to rounding."""
    rest = x5.astype(np.float64) - _stat(mean)
    return rest if low is None else rest - _stat(low)


def normalize(
    x5: Array,
    mean: Array,
    var: Array,
    gamma: Array,
    beta: Array,
    eps: float,
    y5: Array,
    residual5: Array | None = None,
    relu: bool = False,
    low: Array | None = None,
) -> None:
    """x, mean, var → y5 = (x - mean)·gamma/√(var + eps) + beta [+ residual], [ReLU].

    ``low`` is what the mean lost to rounding.
    """
    rstd = _rstd(var, eps)
    y = _less(x5, mean, low) * _stat(rstd) * _param(gamma, x5) + _param(beta, x5)
    if residual5 is not None:
        y += residual5.astype(np.float64)
    y5[...] = np.where(y < 0.0, 0.0, y) if relu else y


def forward(
    x5: Array,
    gamma: Array,
    beta: Array,
    eps: float,
    y5: Array,
    where5: Array | None = None,
    residual5: Array | None = None,
    relu: bool = False,
    centred: bool = True,
    keep: bool = True,
) -> Moments:
    """x → y5 by its own statistics, which are returned, whether they are to be kept or not."""
    result = moments(x5, where5)
    mean, low, var = _raw(result, centred)
    normalize(x5, mean, var, gamma, beta, eps, y5, residual5, relu, low)
    return result


def _terms(
    dy5: Array,
    x5: Array,
    mean: Array,
    low: Array | None,
    var: Array,
    eps: float,
    where5: Array | None,
) -> Any:
    """dy and x̂; what is excluded counts only where it is finite."""
    dy = dy5.astype(np.float64)
    xhat = _less(x5, mean, low) * _stat(_rstd(var, eps))
    if where5 is not None:
        usable = where5 | np.isfinite(dy * xhat)
        dy, xhat = np.where(usable, dy, 0.0), np.where(usable, xhat, 0.0)
    return dy, xhat


def gradient_sums(
    dy5: Array,
    x5: Array,
    mean: Array,
    var: Array,
    eps: float,
    where5: Array | None = None,
    low: Array | None = None,
) -> tuple[Array, Array]:
    """dy, x (batch of one) → Σdy, Σdy·x̂ (channels,)."""
    dy, xhat = _terms(dy5, x5, mean, low, var, eps, where5)
    return dy.sum((0, 1, 4)).ravel(), (dy * xhat).sum((0, 1, 4)).ravel()


def input_gradient(
    dy5: Array,
    x5: Array,
    mean: Array,
    var: Array,
    gamma: Array,
    sums: tuple[Array, Array] | None,
    count: Array,
    eps: float,
    dx5: Array,
    where5: Array | None = None,
    low: Array | None = None,
) -> None:
    """dy, x (batch of one), sums (channels,) → dx5; without sums the statistics are constant."""
    rstd = _stat(_rstd(var, eps))
    dx = dy5.astype(np.float64) * _param(gamma, x5) * rstd
    if sums is not None:
        xhat = _less(x5, mean, low) * rstd
        share = (_param(sums[0], x5) + xhat * _param(sums[1], x5)) / _stat(count)
        share = share * _param(gamma, x5) * rstd
        dx -= share if where5 is None else np.where(where5, share, 0.0)
    dx5[...] = dx


def backward(
    dy5: Array,
    x5: Array,
    gamma: Array,
    eps: float,
    dx5: Array,
    given: tuple[Array, Array, Array | None, Array] | None = None,
    where5: Array | None = None,
    centred: bool = True,
) -> tuple[Array, Array]:
    """dy, x → dx5, and dgamma, dbeta (channels,).

    ``given`` is (mean, m2, count, low) of a training step, or (mean, var, None, low), which are
    constant, low being what the mean lost to rounding; no ``given`` at all means the statistics of
    x itself.
    """
    if given is None:
        own = moments(x5)
        mean, low, var = _raw(own, centred)
        count: Array | None = own[0]
    else:
        mean, spread, count, low = given
        var = spread if count is None else spread / np.maximum(count, 1.0)
    dy, xhat = _terms(dy5, x5, mean, low, var, eps, where5)
    dgamma, dbeta = (dy * xhat).sum((0, 1, 4)).ravel(), dy.sum((0, 1, 4)).ravel()
    if given is not None:
        sums = None if count is None else (dbeta, dgamma)
        n = np.ones_like(mean) if count is None else count
        input_gradient(dy5, x5, mean, var, gamma, sums, n, eps, dx5, where5, low)
        return dgamma, dbeta
    assert count is not None
    weighted = dy * _param(gamma, x5)
    first = weighted.sum(REDUCED) if centred else np.zeros_like(mean)
    second = (weighted * xhat).sum(REDUCED)
    rstd = _rstd(var, eps)
    dx5[...] = _stat(rstd) * (weighted - (_stat(first) + xhat * _stat(second)) / _stat(count))
    return dgamma, dbeta


def relu_gradient(dy5: Array, y5: Array, out5: Array) -> None:
    """dy, y → dy where the ReLU let y through, else 0."""
    out5[...] = np.where(y5 <= 0.0, 0.0, dy5.astype(np.float64))


def exact_sums(x5: Array, where5: Array | None = None) -> ExactSums:
    """x (five axes, batch of one) → exact Σx and Σx², NaN and infinities apart (groups,)."""
    integer = x5.dtype.kind in "iu"
    keep = np.ones(x5.shape, bool) if where5 is None else where5
    usable = keep if integer else keep & np.isfinite(x5.astype(np.float64))
    first, second = [], []
    for g in range(x5.shape[2]):
        values = x5[:, :, g][usable[:, :, g]]
        # floats are integers of 2^-1088
        numbers = [int(v) << 34 * BITS for v in values] if integer else _whole(values, 34 * BITS)
        first.append(sum(numbers))
        second.append(sum(n * n for n in numbers))
    shape = x5.shape[2:3]
    count = keep.sum(REDUCED, dtype=np.int64)[0]
    odd = count - usable.sum(REDUCED, dtype=np.int64)[0]
    return ExactSums(
        count, odd, _words.words_of(first, -34, shape), _words.words_of(second, -68, shape)
    )


def _whole(values: Array, bits: int) -> list[int]:
    """Floats → integers in units of 2^-bits."""
    ratios = [float(v).as_integer_ratio() for v in values]
    return [(n << bits) // d for n, d in ratios]


def launches(shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    """Return what a backend keeps for plain arrays of a shape: nothing here."""


def own_launches(shape: tuple[int, ...], dtype: np.dtype[Any], centred: bool) -> None:
    """Return the same of a norm by own statistics."""
