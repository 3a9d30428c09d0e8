"""Instance and group norm: statistics of each sample, per channel or per group of channels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from numba_bn._adapters import adapted
from numba_bn._arrays import Array
from numba_bn._call import Gradients
from numba_bn.functional import _own
from numba_bn.functional._norms import GROUP, INSTANCE

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


@adapted
def instance_norm(
    x: ArrayLike,
    gamma: ArrayLike | None = None,
    beta: ArrayLike | None = None,
    *,
    channel_axis: int | Sequence[int] = 1,
    eps: float = 1e-5,
    out: Array | None = None,
) -> Any:
    """Normalize each channel of each sample by its own mean and variance.

    ``y = (x - mean) / sqrt(var + eps) * gamma + beta`` with mean and biased variance over the axes
    that are neither the first (the samples) nor the channels'.

    Parameters
    ----------
    x : array_like, shape (N, ...)
        Samples along axis 0.
    gamma, beta : array_like, shape of x's channel axes, optional
        Scale and shift; 1 and 0 by default.
    channel_axis : int or tuple of int, default 1
        The axis, or axes, that hold the channels; not axis 0.
    eps : float, default 1e-5
        Added to the variance; at least 0.
    out : ndarray, shape of x, optional
        Receives the result; may be `x` itself.

    Returns
    -------
    y : ndarray, shape of x
        dtype as for `batch_norm`.

    Raises
    ------
    TypeError, ValueError, AxisError
        If an argument does not fit, before anything is computed.

    References
    ----------
    D. Ulyanov, A. Vedaldi, V. Lempitsky, "Instance Normalization", 2016.

    Examples
    --------
    >>> import numpy as np
    >>> import numba_bn as nbn
    >>> nbn.instance_norm(np.array([[[1.0, 3.0], [10.0, 30.0]]]), eps=0.0)
    array([[[-1.,  1.],
            [-1.,  1.]]])
    """
    return _own.forward("instance_norm", INSTANCE, x, channel_axis, gamma, beta, eps, out)


@adapted
def instance_norm_backward(
    dy: ArrayLike,
    x: ArrayLike,
    gamma: ArrayLike | None = None,
    *,
    channel_axis: int | Sequence[int] = 1,
    eps: float = 1e-5,
    out: Array | None = None,
) -> Gradients:
    """Return the gradients of `instance_norm` for the gradient `dy` into its output.

    The formula is that of `batch_norm_backward`, within each sample; dgamma and dbeta are summed
    over the samples.

    Parameters
    ----------
    dy : array_like, shape of x
        Gradient into the forward's output.
    x, gamma, channel_axis, eps
        As they were given to the forward.
    out : ndarray, shape of x, optional
        Receives dx; may be `dy` or `x` itself.

    Returns
    -------
    Gradients
        dx, dgamma, dbeta.

    Raises
    ------
    TypeError, ValueError, AxisError
        If an argument does not fit, before anything is computed.

    References
    ----------
    D. Ulyanov, A. Vedaldi, V. Lempitsky, "Instance Normalization", 2016.

    Examples
    --------
    >>> import numpy as np
    >>> import numba_bn as nbn
    >>> x = np.array([[[1.0, 3.0, 8.0]]])
    >>> nbn.instance_norm_backward(np.array([[[2.0, 0.0, 0.0]]]), x).dbeta
    array([2.])
    """
    return _own.backward("instance_norm_backward", INSTANCE, dy, x, channel_axis, gamma, eps, out)


@adapted
def group_norm(
    x: ArrayLike,
    num_groups: int,
    gamma: ArrayLike | None = None,
    beta: ArrayLike | None = None,
    *,
    channel_axis: int | Sequence[int] = 1,
    eps: float = 1e-5,
    out: Array | None = None,
) -> Any:
    """Normalize each group of neighbouring channels of each sample by its mean and variance.

    ``y = (x - mean) / sqrt(var + eps) * gamma + beta`` with mean and biased variance over the
    channels of a group and all axes but the first. One group is layer norm over the whole sample,
    as many groups as channels is `instance_norm`.

    Parameters
    ----------
    x : array_like, shape (N, ...)
        Samples along axis 0.
    num_groups : int
        Number of groups; divides the number of channels.
    gamma, beta : array_like, shape of x's channel axes, optional
        Scale and shift per channel; 1 and 0 by default.
    channel_axis : int or tuple of int, default 1
        The axis, or axes, that hold the channels; not axis 0.
    eps : float, default 1e-5
        Added to the variance; at least 0.
    out : ndarray, shape of x, optional
        Receives the result; may be `x` itself.

    Returns
    -------
    y : ndarray, shape of x
        dtype as for `batch_norm`.

    Raises
    ------
    TypeError, ValueError, AxisError
        If an argument does not fit, before anything is computed.

    References
    ----------
    Y. Wu, K. He, "Group Normalization", ECCV 2018.

    Examples
    --------
    >>> import numpy as np
    >>> import numba_bn as nbn
    >>> nbn.group_norm(np.array([[1.0, 3.0, 10.0, 30.0]]), 2, eps=0.0)
    array([[-1.,  1., -1.,  1.]])
    """
    given = (x, channel_axis, gamma, beta, eps, out, num_groups)
    return _own.forward("group_norm", GROUP, *given)


@adapted
def group_norm_backward(
    dy: ArrayLike,
    x: ArrayLike,
    num_groups: int,
    gamma: ArrayLike | None = None,
    *,
    channel_axis: int | Sequence[int] = 1,
    eps: float = 1e-5,
    out: Array | None = None,
) -> Gradients:
    """Return the gradients of `group_norm` for the gradient `dy` into its output.

    ``dx = (g - mean(g) - xhat * mean(g * xhat)) / sqrt(var + eps)`` with ``g = gamma * dy`` and
    means over the group; ``dgamma = sum(dy * xhat)``, ``dbeta = sum(dy)`` per channel.

    Parameters
    ----------
    dy : array_like, shape of x
        Gradient into the forward's output.
    x, num_groups, gamma, channel_axis, eps
        As they were given to the forward.
    out : ndarray, shape of x, optional
        Receives dx; may be `dy` or `x` itself.

    Returns
    -------
    Gradients
        dx, dgamma, dbeta.

    Raises
    ------
    TypeError, ValueError, AxisError
        If an argument does not fit, before anything is computed.

    References
    ----------
    Y. Wu, K. He, "Group Normalization", ECCV 2018.

    Examples
    --------
    >>> import numpy as np
    >>> import numba_bn as nbn
    >>> x = np.array([[1.0, 3.0, 10.0, 30.0]])
    >>> nbn.group_norm_backward(np.array([[2.0, 0.0, 0.0, 1.0]]), x, 2).dbeta
    array([2., 0., 0., 1.])
    """
    given = (dy, x, channel_axis, gamma, eps, out, num_groups)
    return _own.backward("group_norm_backward", GROUP, *given)
