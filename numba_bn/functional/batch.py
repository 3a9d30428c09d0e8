"""Batch norm: statistics shared by the batch, per channel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from numba_bn import _validate as check
from numba_bn._adapters import adapted
from numba_bn._arrays import Array, five_axes, kind
from numba_bn._call import Gradients, Output
from numba_bn._dispatch import backend
from numba_bn._mpi import Ranks
from numba_bn.functional import _plain
from numba_bn.functional import _steps as steps
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
    plain = where is residual is activation is None
    if mean is None:
        if plain and (done := _plain.trained(call, x, gamma, beta, channel_axis, eps, out)):
            return done[0]
        given = (x, gamma, beta, channel_axis, eps, where, residual, activation)
        return steps.train(call, *given, out=out, keep=False)[0]
    if plain:
        y = _plain.normalized(call, x, gamma, beta, mean, var, channel_axis, eps, out)
        if y is not None:
            return y
    a, _, view = steps.batch_call(call, x, channel_axis)
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
    comm: Any = None,
    out: Array | None = None,
) -> tuple[Any, ChannelStats]:
    """Normalize each channel by the batch's own statistics, and return them too.

    ``y = (x - mean) / sqrt(var + eps) * gamma + beta``, then ``+ residual``, then the activation;
    `mean` and the biased `var` are those of the channel in this batch.

    Parameters
    ----------
    x, gamma, beta, channel_axis, eps, where, residual, activation, out
        As for `batch_norm`.
    comm : mpi4py.MPI.Intracomm, optional
        The batch is that of all its ranks, each with a part along any axis but the channels', of
        any size, 0 too. All of them make this call, with the same parameters and options. An error
        after their exchange, which only a lack of memory or an interrupt can bring, is not heard of
        by the others, which wait for the rank at their next call: ``python -m mpi4py`` ends them.

    Returns
    -------
    y : ndarray, shape of x
        As for `batch_norm`.
    stats : ChannelStats
        For `RunningStats.update` and `batch_norm_backward`; the same bits on all ranks.

    Raises
    ------
    TypeError, ValueError, AxisError
        If an argument does not fit, a channel has no values, or ranks disagree.
    RuntimeError
        If another rank raised an error of its own.

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
    given = (x, gamma, beta, channel_axis, eps, where, residual, activation)
    if comm is not None and (ranks := Ranks.of(call, comm)):
        return steps.train_together(ranks, call, *given, out=out)
    if where is residual is activation is None:
        done = _plain.trained(call, x, gamma, beta, channel_axis, eps, out)
        if done is not None:
            return done
    return steps.train(call, *given, out=out)


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
    comm: Any = None,
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
    comm : mpi4py.MPI.Intracomm, optional
        As in the forward: ``dgamma`` and ``dbeta`` are then sums over all ranks, the same bits on
        each, and `dx` is the gradient of what all ranks' losses add up to.
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
        If an argument does not fit, or ranks disagree, before anything is computed.
    RuntimeError
        If another rank raised an error of its own.

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
    given = (dy, x, gamma, stats, mean, var, channel_axis, eps, where, activation, y)
    if comm is not None and (ranks := Ranks.of(call, comm)):
        return steps.backward_together(ranks, call, *given, out=out)
    if mean is var is where is activation is None:
        done = _plain.gradients(call, dy, x, gamma, stats, channel_axis, eps, out)
        if done is not None:
            return done
    return steps.backward(call, *given, out=out)
