"""Layer and RMS norm: statistics of each row, over the trailing axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from numba_bn._adapters import adapted
from numba_bn._arrays import Array
from numba_bn._call import Gradients
from numba_bn.functional import _own
from numba_bn.functional._norms import LAYER, RMS

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


@adapted
def layer_norm(
    x: ArrayLike,
    gamma: ArrayLike | None = None,
    beta: ArrayLike | None = None,
    *,
    axis: int | Sequence[int] = -1,
    eps: float = 1e-5,
    out: Array | None = None,
) -> Any:
    """Normalize over the trailing axes, each row by its own mean and variance.

    ``y = (x - mean) / sqrt(var + eps) * gamma + beta`` with mean and biased variance over `axis`.

    Parameters
    ----------
    x : array_like, any shape
        float16, bfloat16, float32, float64, or integers.
    gamma, beta : array_like, shape of the normalized axes, optional
        Scale and shift; 1 and 0 by default.
    axis : int or tuple of int, default -1
        The last axis, or the trailing axes as a tuple.
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
    J. L. Ba, J. R. Kiros, G. E. Hinton, "Layer Normalization", 2016.

    Examples
    --------
    >>> import numpy as np
    >>> import numba_bn as nbn
    >>> nbn.layer_norm(np.array([[1.0, 3.0], [10.0, 30.0]]), eps=0.0)
    array([[-1.,  1.],
           [-1.,  1.]])
    """
    return _own.forward("layer_norm", LAYER, x, axis, gamma, beta, eps, out)


@adapted
def layer_norm_backward(
    dy: ArrayLike,
    x: ArrayLike,
    gamma: ArrayLike | None = None,
    *,
    axis: int | Sequence[int] = -1,
    eps: float = 1e-5,
    out: Array | None = None,
) -> Gradients:
    """Return the gradients of `layer_norm` for the gradient `dy` into its output.

    ``dx = (g - mean(g) - xhat * mean(g * xhat)) / sqrt(var + eps)`` with ``g = gamma * dy`` and
    means over `axis`; ``dgamma = sum(dy * xhat)``, ``dbeta = sum(dy)`` over the rows.

    Parameters
    ----------
    dy : array_like, shape of x
        Gradient into the forward's output.
    x, gamma, axis, eps
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
    J. L. Ba, J. R. Kiros, G. E. Hinton, "Layer Normalization", 2016.

    Examples
    --------
    >>> import numpy as np
    >>> import numba_bn as nbn
    >>> x = np.array([[1.0, 3.0], [10.0, 30.0]])
    >>> nbn.layer_norm_backward(np.array([[2.0, 0.0], [1.0, 5.0]]), x).dbeta
    array([3., 5.])
    """
    return _own.backward("layer_norm_backward", LAYER, dy, x, axis, gamma, eps, out)


@adapted
def rms_norm(
    x: ArrayLike,
    gamma: ArrayLike | None = None,
    *,
    axis: int | Sequence[int] = -1,
    eps: float = 1e-5,
    out: Array | None = None,
) -> Any:
    """Divide each row by its root mean square.

    ``y = x / sqrt(mean(x**2) + eps) * gamma`` with the mean over `axis`.

    Parameters
    ----------
    x, axis, eps, out
        As for `layer_norm`.
    gamma : array_like, shape of the normalized axes, optional
        Scale; 1 by default.

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
    B. Zhang, R. Sennrich, "Root Mean Square Layer Normalization", NeurIPS 2019.

    Examples
    --------
    >>> import numpy as np
    >>> import numba_bn as nbn
    >>> nbn.rms_norm(np.array([3.0, 4.0, 0.0, 0.0]), eps=0.0)
    array([1.2, 1.6, 0. , 0. ])
    """
    return _own.forward("rms_norm", RMS, x, axis, gamma, None, eps, out)


@adapted
def rms_norm_backward(
    dy: ArrayLike,
    x: ArrayLike,
    gamma: ArrayLike | None = None,
    *,
    axis: int | Sequence[int] = -1,
    eps: float = 1e-5,
    out: Array | None = None,
) -> Gradients:
    """Return the gradients of `rms_norm` for the gradient `dy` into its output.

    ``dx = (g - xhat * mean(g * xhat)) / sqrt(mean(x**2) + eps)`` with ``g = gamma * dy`` and means
    over `axis`; ``dgamma = sum(dy * xhat)`` over the rows.

    Parameters
    ----------
    dy, x, gamma, axis, eps, out
        As for `layer_norm_backward`.

    Returns
    -------
    Gradients
        dx and dgamma; ``dbeta`` is None.

    Raises
    ------
    TypeError, ValueError, AxisError
        If an argument does not fit, before anything is computed.

    References
    ----------
    B. Zhang, R. Sennrich, "Root Mean Square Layer Normalization", NeurIPS 2019.

    Examples
    --------
    >>> import numpy as np
    >>> import numba_bn as nbn
    >>> x = np.array([[3.0, 4.0], [6.0, 8.0]])
    >>> nbn.rms_norm_backward(np.ones((2, 2)), x, eps=0.0).dbeta is None
    True
    """
    return _own.backward("rms_norm_backward", RMS, dy, x, axis, gamma, eps, out)
