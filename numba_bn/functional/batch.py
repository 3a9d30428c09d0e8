"""Batch norm: statistics shared by the batch, per channel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from numba_bn import _validate as check
from numba_bn._adapters import adapted
from numba_bn._arrays import Array, empty_like_view, five_axes, kind, order_of, result_dtype
from numba_bn._call import (
    Gradients,
    Output,
    parameter_gradient,
    real_array,
)
from numba_bn._dispatch import backend
from numba_bn._view import View, batch_view
from numba_bn.stats import ChannelStats
from numba_bn.stats.device import DeviceChannelStats

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


@adapted
def batch_norm(
    x: ArrayLike,
    gamma: ArrayLike | None = None,
    beta: ArrayLike | None = None,
    *,
    mean: ArrayLike | None = None,
    var: ArrayLike | None = None,
    channel_axis: int | Sequence[int] = 1,
    eps: float = 1e-5,
    where: ArrayLike | None = None,
    residual: ArrayLike | None = None,
    activation: str | None = None,
    out: Array | None = None,
) -> Any:
    """Normalize each channel, by given statistics or by the batch's own.

    ``y = (x - mean) / sqrt(var + eps) * gamma + beta``, then ``+ residual``, then the activation.
    With `mean` and `var` this is batch norm at test time; without them the batch's own mean and
    biased variance are used.

    Parameters
    ----------
    x : array_like, any shape
        float16, bfloat16, float32, float64, or integers.
    gamma, beta : array_like, shape of x's channel axes, optional
        Scale and shift; 1 and 0 by default.
    mean, var : array_like, shape of x's channel axes, optional
        Statistics to normalize by, both or neither; `var` in the squared unit of x.
    channel_axis : int or tuple of int, default 1
        The axis, or axes, that hold the channels.
    eps : float, default 1e-5
        Added to the variance; at least 0.
    where : array_like of bool, broadcasts to x, optional
        False keeps a value out of the batch's own statistics; it is still normalized.
    residual : array_like, shape of x, optional
        Added before the activation.
    activation : {None, "relu"}
        Applied last.
    out : ndarray, shape of x, optional
        Receives the result; may be `x` itself.

    Returns
    -------
    y : ndarray, shape of x
        x's dtype; float32 for integers of up to 16 bits, float64 for wider ones.

    Raises
    ------
    TypeError, ValueError, AxisError
        If an argument does not fit, before anything is computed.

    References
    ----------
    S. Ioffe, C. Szegedy, "Batch Normalization", ICML 2015, algorithms 1 and 2.

    Examples
    --------
    >>> import numpy as np
    >>> import numba_bn as nbn
    >>> x = np.array([[1.0, 10.0], [3.0, 30.0]])
    >>> nbn.batch_norm(x, eps=0.0)
    array([[-1., -1.],
           [ 1.,  1.]])
    >>> nbn.batch_norm(x, mean=[1.0, 10.0], var=[4.0, 100.0], eps=0.0)
    array([[0., 0.],
           [1., 2.]])
    """
    call = "batch_norm"
    if (mean is None) != (var is None):
        raise ValueError(f"{call}: mean and var must be given together, or neither")
    if mean is None:
        train = (x, gamma, beta, channel_axis, eps, where, residual, activation, out)
        return _train(call, *train)[0]
    a, view = _batch_call(call, x, channel_axis)
    eps = check.epsilon(call, eps)
    g = check.parameter(call, "gamma", gamma, view, a.shape, 1.0)
    b = check.parameter(call, "beta", beta, view, a.shape, 0.0)
    m = check.parameter(call, "mean", mean, view, a.shape)
    v = check.parameter(call, "var", var, view, a.shape)
    check.mask(call, where, a)
    relu = check.activation(call, activation)
    r = None if residual is None else check.like(call, "residual", residual, a)
    y = Output(call, out, a, view, (gamma, beta, mean, var, r))
    if a.size:
        r5 = None if r is None else five_axes(r, view)
        m, v = m.reshape(1, -1), v.reshape(1, -1)
        backend(kind(a)).normalize(five_axes(a, view), m, v, g, b, eps, y.five_axes, r5, relu)
    return y.done(out)


@adapted
def batch_norm_train(
    x: ArrayLike,
    gamma: ArrayLike | None = None,
    beta: ArrayLike | None = None,
    *,
    channel_axis: int | Sequence[int] = 1,
    eps: float = 1e-5,
    where: ArrayLike | None = None,
    residual: ArrayLike | None = None,
    activation: str | None = None,
    out: Array | None = None,
) -> tuple[Any, ChannelStats]:
    """Normalize each channel by the batch's own statistics, and return them too.

    ``y = (x - mean) / sqrt(var + eps) * gamma + beta``, then ``+ residual``, then the activation;
    `mean` and the biased `var` are those of the channel in this batch.

    Parameters
    ----------
    x, gamma, beta, channel_axis, eps, where, residual, activation, out
        As for `batch_norm`.

    Returns
    -------
    y : ndarray, shape of x
        As for `batch_norm`.
    stats : ChannelStats
        For `RunningStats.update` and `batch_norm_backward`.

    Raises
    ------
    TypeError, ValueError, AxisError
        If an argument does not fit, or a channel has no values.

    References
    ----------
    S. Ioffe, C. Szegedy, "Batch Normalization", ICML 2015, algorithm 1.

    Examples
    --------
    >>> import numpy as np
    >>> import numba_bn as nbn
    >>> y, stats = nbn.batch_norm_train(np.array([[1.0], [3.0], [5.0]]))
    >>> stats.mean, stats.var()
    (array([3.]), array([2.66666667]))
    """
    call = "batch_norm_train"
    return _train(call, x, gamma, beta, channel_axis, eps, where, residual, activation, out)


def _train(
    call: str,
    x: object,
    gamma: object,
    beta: object,
    channel_axis: int | Sequence[int],
    eps: float,
    where: object,
    residual: object,
    activation: str | None,
    out: object,
) -> tuple[Any, ChannelStats]:
    """Run a training forward: checks, kernel, statistics."""
    a, view = _batch_call(call, x, channel_axis)
    eps = check.epsilon(call, eps)
    g = check.parameter(call, "gamma", gamma, view, a.shape, 1.0)
    b = check.parameter(call, "beta", beta, view, a.shape, 0.0)
    w = check.mask(call, where, a)
    check.some_values(call, a, w, check.axis_tuple(call, "channel_axis", channel_axis, a.shape))
    relu = check.activation(call, activation)
    r = None if residual is None else check.like(call, "residual", residual, a)
    y = Output(call, out, a, view, (gamma, beta, w, r))
    if not a.size:
        return y.done(out), ChannelStats(*np.zeros((3, *view.channels)))
    moments = backend(kind(a)).forward(
        five_axes(a, view),
        g,
        b,
        eps,
        y.five_axes,
        where5=None if w is None else five_axes(w, view),
        residual5=None if r is None else five_axes(r, view),
        relu=relu,
    )
    return y.done(out), ChannelStats._of(moments, view)


@adapted
def batch_norm_backward(
    dy: ArrayLike,
    x: ArrayLike,
    gamma: ArrayLike | None = None,
    *,
    stats: ChannelStats | DeviceChannelStats | None = None,
    mean: ArrayLike | None = None,
    var: ArrayLike | None = None,
    channel_axis: int | Sequence[int] = 1,
    eps: float = 1e-5,
    where: ArrayLike | None = None,
    activation: str | None = None,
    y: ArrayLike | None = None,
    out: Array | None = None,
) -> Gradients:
    """Return the gradients of a batch norm, of a training step or at test time.

    With ``xhat = (x - mean) / sqrt(var + eps)`` and n values per channel:
    ``dbeta = sum(dy)``, ``dgamma = sum(dy * xhat)``, and
    ``dx = gamma / sqrt(var + eps) * (dy - dbeta / n - xhat * dgamma / n)`` of a training step,
    ``dx = gamma / sqrt(var + eps) * dy`` at test time.

    Parameters
    ----------
    dy : array_like, shape of x
        Gradient into the forward's output.
    x, gamma, channel_axis, eps, where
        As they were given to the forward.
    stats : ChannelStats, optional
        The statistics `batch_norm_train` returned: gradients of that training step.
    mean, var : array_like, shape of x's channel axes, optional
        Constant statistics, instead of `stats`: gradients of a test-time step.
    activation : {None, "relu"}
        As in the forward; needs `y`.
    y : array_like, shape of x, optional
        The forward's output, to see where the activation let values through.
    out : ndarray, shape of x, optional
        Receives dx; may be `dy` or `x` itself.

    Returns
    -------
    Gradients
        ``dx`` in the dtype of the forward's result; ``dgamma`` and ``dbeta`` in gamma's dtype, at
        least float32; ``dresidual``, the gradient into the residual, with an activation
        (without one it is `dy`, and None here).

    Raises
    ------
    TypeError, ValueError, AxisError
        If an argument does not fit, before anything is computed.

    References
    ----------
    S. Ioffe, C. Szegedy, "Batch Normalization", ICML 2015, section 3.

    Examples
    --------
    >>> import numpy as np
    >>> import numba_bn as nbn
    >>> x = np.array([[1.0], [2.0], [6.0]])
    >>> y, stats = nbn.batch_norm_train(x)
    >>> gradients = nbn.batch_norm_backward(np.array([[1.0], [0.0], [0.0]]), x, stats=stats)
    >>> gradients.dbeta
    array([1.])
    """
    call = "batch_norm_backward"
    a, view = _batch_call(call, x, channel_axis)
    eps = check.epsilon(call, eps)
    g = check.parameter(call, "gamma", gamma, view, a.shape, 1.0)
    given = _statistics(call, stats, mean, var, view, a)
    d = check.like(call, "dy", dy, a)
    w = check.mask(call, where, a)
    activated = None
    if check.activation(call, activation):
        if y is None:
            raise ValueError(f"{call}: activation={activation!r} needs y, the forward's output")
        activated = check.like(call, "y", y, a)
    dx = Output(call, out, a, view, (d, gamma, mean, var, w, activated))
    d5 = five_axes(d, view)
    dresidual = None
    if activated is not None:
        dresidual = empty_like_view(a, result_dtype(call, "x", a.dtype), view)
        r5 = five_axes(dresidual, view)
        backend(kind(a)).relu_gradient(d5, five_axes(activated, view), r5)
        d5 = r5
    if not a.size:
        dgamma, dbeta = np.zeros((2, g.size))
    else:
        w5 = None if w is None else five_axes(w, view)
        a5 = five_axes(a, view)
        dgamma, dbeta = backend(kind(a)).backward(d5, a5, g, eps, dx.five_axes, given, w5)
    return Gradients(
        dx.done(out),
        parameter_gradient(dgamma, gamma, a, view),
        parameter_gradient(dbeta, gamma, a, view),
        dresidual,
    )


def _batch_call(call: str, x: object, channel_axis: int | Sequence[int]) -> tuple[Array, View]:
    """Return x as an array, and its view with the statistics shared by the batch."""
    a = real_array(call, x)
    axes = check.axis_tuple(call, "channel_axis", channel_axis, a.shape)
    return a, batch_view(a.shape, order_of(a), axes)


def _statistics(call: str, stats: object, mean: object, var: object, view: View, x: Array) -> Any:
    """Return mean, var and, of a training step, count, as (1, channels)."""
    if stats is None and mean is not None and var is not None:
        m = check.parameter(call, "mean", mean, view, x.shape)
        v = check.parameter(call, "var", var, view, x.shape)
        return m.reshape(1, -1), v.reshape(1, -1), None
    if stats is None or mean is not None or var is not None:
        raise ValueError(f"{call}: give either stats (training) or both mean and var (test time)")
    if isinstance(stats, DeviceChannelStats):
        return stats.given(call, view, x.shape)
    if not isinstance(stats, ChannelStats):
        raise TypeError(f"{call}: stats must be a ChannelStats, got {type(stats).__name__}")
    named = (("stats.mean", stats.mean), ("stats.m2", stats.m2), ("stats.count", stats.count))
    m, m2, n = (check.parameter(call, name, v, view, x.shape).reshape(1, -1) for name, v in named)
    if x.size and not n.all():
        raise ValueError(
            f"{call}: stats must have counted values in every channel, got {n.ravel()}"
        )
    # a device divides for itself
    return m, m2 if kind(x) == "cuda" else m2 / np.maximum(n, 1.0), n
