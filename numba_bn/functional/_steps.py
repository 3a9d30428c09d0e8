"""The training step of batch norm and its backward, by one process or by several together.

Several exchange what each of them has, once a step. Whatever can fail comes before that, so that
a rank which fails still takes part and none waits for it: checks, memory, copies, sums.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from operator import add
from typing import Any

import numpy as np

from numba_bn import _validate as check
from numba_bn._arrays import Array, empty_like_view, five_axes, kind, order_of, result_dtype
from numba_bn._call import Gradients, Output, parameter_gradient, per_channel, real_array
from numba_bn._dispatch import backend
from numba_bn._mpi import Facts, Ranks, checksum
from numba_bn._validate import Vector
from numba_bn._view import Axes, View, batch_view
from numba_bn.stats import ChannelStats
from numba_bn.stats.device import DeviceChannelStats

Forward = tuple[Array, Axes, View, Vector, Vector, float, Array | None, Array | None, bool, Output]
"""x, channel axes, view, gamma, beta, eps, where and residual as five axes, ReLU or not, y."""

Known = tuple[Array, Array, Array | None, Array]
"""Mean, variance, None, or of a training step mean, m2, count, and what the mean lost to rounding:
each (1, channels)."""

Backward = tuple[
    Array, Axes, View, Vector, float, bool, Known, Array, Array | None, Output, Array | None
]
"""x, channel axes, view, gamma, eps, ReLU or not, statistics, dy and where as five axes, dx,
dresidual."""


def batch_call(call: str, x: object, channel_axis: int | Sequence[int]) -> tuple[Array, Axes, View]:
    """Return x as an array, its channel axes, and its view with the batch sharing statistics."""
    a = real_array(call, x)
    axes = check.axis_tuple(call, "channel_axis", channel_axis, a.shape)
    return a, axes, batch_view(a.shape, order_of(a), axes)


def train(call: str, *given: Any, out: object, keep: bool = True) -> tuple[Any, Any]:
    """Run a training forward; ``given`` are the arguments of `batch_norm_train`, in order.

    Statistics that are not to ``keep`` are None.
    """
    a, _, view, g, b, eps, w5, r5, relu, y = _prepared_forward(call, *given, out=out, alone=True)
    if not a.size:
        return y.done(out), ChannelStats(*np.zeros((3, *view.channels)))
    a5 = five_axes(a, view)
    forward = backend(kind(a)).forward
    given5 = {"where5": w5, "residual5": r5}
    moments = forward(a5, g, b, eps, y.five_axes, **given5, relu=relu, keep=keep)
    return y.done(out), ChannelStats._of(moments, view) if keep else None


def train_together(
    ranks: Ranks, call: str, *given: Any, out: object, least: int = 1
) -> tuple[Any, ChannelStats]:
    """Run a training forward by the statistics of all ranks, of ``least`` values a channel."""
    with ranks:
        a, axes, view, g, b, eps, w5, r5, relu, y = _prepared_forward(
            call, *given, out=out, alone=False
        )
        a5 = five_axes(a, view)
        own = ChannelStats(*np.zeros((3, *view.channels)))
        if a.size:
            own = ChannelStats._of(backend().moments(a5, w5), view)
        facts = _facts(a, axes, view, eps, relu, gamma=g, beta=b)
    stats = reduce(add, ranks.gather(call, facts, own))
    few = stats.count[stats.count < least]
    if few.size:
        raise ValueError(
            f"{call}: expected at least {least} value{'s' * (least > 1)} per channel in training, "
            f"on all ranks together, got {few[0]:g}, with x of shape {a.shape} on this one"
        )
    if a.size:
        mean, var, _, low = _by_variance(statistics(call, stats, None, None, view, a))
        backend().normalize(a5, mean, var, g, b, eps, y.five_axes, r5, relu, low)
    return y.done(out), stats


def _prepared_forward(
    call: str,
    x: object,
    gamma: object,
    beta: object,
    channel_axis: int | Sequence[int],
    eps: float,
    where: object,
    residual: object,
    activation: str | None,
    *,
    out: object,
    alone: bool,
) -> Forward:
    """Check the arguments of a training forward, and make what its kernels need."""
    a, axes, view = batch_call(call, x, channel_axis)
    eps = check.epsilon(call, eps)
    g = check.parameter(call, "gamma", gamma, view, a.shape, 1.0)
    b = check.parameter(call, "beta", beta, view, a.shape, 0.0)
    w = check.mask(call, where, a)
    if alone:
        check.some_values(call, a, w, axes)
    else:
        check.in_host_memory(call, "comm", a)
    relu = check.activation(call, activation)
    r = None if residual is None else check.like(call, "residual", residual, a)
    y = Output(call, out, a, view, (gamma, beta, w, r))
    w5 = None if w is None else five_axes(w, view)
    r5 = None if r is None else five_axes(r, view)
    return a, axes, view, g, b, eps, w5, r5, relu, y


def backward(
    call: str, dy: object, x: object, gamma: object, *given: Any, out: object
) -> Gradients:
    """Run a backward; ``given`` are the other arguments of `batch_norm_backward`, in order."""
    a, _, view, g, eps, _, known, d5, w5, dx, dresidual = _prepared_backward(
        call, dy, x, gamma, *given, out=out
    )
    if a.size:
        a5 = five_axes(a, view)
        dgamma, dbeta = backend(kind(a)).backward(d5, a5, g, eps, dx.five_axes, known, w5)
    else:
        dgamma, dbeta = np.zeros((2, g.size))
    return Gradients(
        dx.done(out),
        parameter_gradient(dgamma, gamma, a, view),
        parameter_gradient(dbeta, gamma, a, view),
        dresidual,
    )


def backward_together(
    ranks: Ranks, call: str, dy: object, x: object, gamma: object, *given: Any, out: object
) -> Gradients:
    """Run a backward by the sums over all ranks."""
    with ranks:
        a, axes, view, g, eps, relu, known, d5, w5, dx, dresidual = _prepared_backward(
            call, dy, x, gamma, *given, out=out
        )
        check.in_host_memory(call, "comm", a)
        mean, var, count, low = _by_variance(known)
        n = np.ones_like(mean) if count is None else count
        a5 = five_axes(a, view)
        own = np.zeros((2, *view.channels))
        if a.size:
            sums = backend().gradient_sums(d5, a5, mean, var, eps, w5, low)
            own = np.stack([per_channel(v, view) for v in sums])
        facts = {"what is given": "mean and var" if count is None else "stats"}
        facts |= _facts(a, axes, view, eps, relu, gamma=g, mean=mean, var=var, count=n)
    total = reduce(add, ranks.gather(call, facts, own))
    dbeta, dgamma = (check.parameter(call, "sums", v, view, a.shape) for v in total)
    if a.size:
        shared = None if count is None else (dbeta, dgamma)
        backend().input_gradient(d5, a5, mean, var, g, shared, n, eps, dx.five_axes, w5, low)
    return Gradients(
        dx.done(out),
        parameter_gradient(dgamma, gamma, a, view),
        parameter_gradient(dbeta, gamma, a, view),
        dresidual,
    )


def _prepared_backward(
    call: str,
    dy: object,
    x: object,
    gamma: object,
    stats: object,
    mean: object,
    var: object,
    channel_axis: int | Sequence[int],
    eps: float,
    where: object,
    activation: str | None,
    y: object,
    *,
    out: object,
) -> Backward:
    """Check the arguments of a backward, and make what its kernels need."""
    a, axes, view = batch_call(call, x, channel_axis)
    eps = check.epsilon(call, eps)
    g = check.parameter(call, "gamma", gamma, view, a.shape, 1.0)
    known = statistics(call, stats, mean, var, view, a)
    d = check.like(call, "dy", dy, a)
    w = check.mask(call, where, a)
    activated = None
    relu = check.activation(call, activation)
    if relu:
        if y is None:
            raise ValueError(f"{call}: activation={activation!r} needs y, the forward's output")
        activated = check.like(call, "y", y, a)
    dx = Output(call, out, a, view, (d, gamma, mean, var, w, activated))
    d5 = five_axes(d, view)
    dresidual = None
    if activated is not None:
        d5, dresidual = _through_relu(call, d5, five_axes(activated, view), a, view)
    w5 = None if w is None else five_axes(w, view)
    return a, axes, view, g, eps, relu, known, d5, w5, dx, dresidual


def _through_relu(call: str, d5: Array, y5: Array, x: Array, view: View) -> tuple[Array, Array]:
    """Return dy where the ReLU let y through, else 0: in full, and as the residual's gradient.

    They are two arrays only if the dtype of x's result does not hold all that dy may be.
    """
    dtypes = [result_dtype(call, "x", x.dtype)]
    if not np.can_cast(d5.dtype, dtypes[0]):
        dtypes.append(result_dtype(call, "dy", d5.dtype))
    made = [empty_like_view(x, dtype, view) for dtype in dtypes]
    five = [five_axes(a, view) for a in made]
    if x.size:
        for a5 in five:
            backend(kind(x)).relu_gradient(d5, y5, a5)
    return five[-1], made[0]


def statistics(call: str, stats: object, mean: object, var: object, view: View, x: Array) -> Known:
    """Return what is known of the channels, checked."""
    if stats is None and mean is not None and var is not None:
        m = check.parameter(call, "mean", mean, view, x.shape)
        v = check.parameter(call, "var", var, view, x.shape)
        return m.reshape(1, -1), v.reshape(1, -1), None, np.zeros((1, m.size))
    if stats is None or mean is not None or var is not None:
        raise ValueError(f"{call}: give either stats (training) or both mean and var (test time)")
    if isinstance(stats, DeviceChannelStats):
        if kind(x) != "cuda":
            raise TypeError(
                f"{call}: stats must be where x is, in the CPU's memory, got DeviceChannelStats "
                f"on cuda:{stats.ordinal}; pass stats.get()"
            )
        return stats.given(call, view, x.shape)
    if not isinstance(stats, ChannelStats):
        raise check.no_stats(call, "stats", stats)
    own = stats._moments
    named = (("mean", own.mean), ("m2", own.m2), ("count", own.count), ("mean", own.low))
    m, m2, n, low = (
        check.parameter(call, f"stats.{name}", v, view, x.shape).reshape(1, -1) for name, v in named
    )
    if x.size and not n.all():
        raise ValueError(
            f"{call}: stats must have counted values in every channel, got {n.ravel()}"
        )
    return m, m2, n, low


@np.errstate(all="ignore")
def _by_variance(known: Known) -> Known:
    """Return mean, variance, count and what the mean lost to rounding."""
    mean, spread, count, low = known
    return mean, spread if count is None else spread / np.maximum(count, 1.0), count, low


def _facts(a: Array, axes: Axes, view: View, eps: float, relu: bool, **vectors: Array) -> Facts:
    """Return what all ranks must have in common: the array's kind, the options, parameters."""
    ordered = {name: per_channel(v.reshape(-1), view) for name, v in vectors.items()}
    return {
        "the number of dimensions of x": a.ndim,
        "channel_axis": axes if len(axes) > 1 else axes[0],
        "the shape of the channels": view.channels,
        "the dtype of x": a.dtype.name,
        "eps": eps,
        "activation": "relu" if relu else None,
        **{name: checksum(v) for name, v in ordered.items()},
    }
