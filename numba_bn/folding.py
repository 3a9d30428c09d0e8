"""Batch norm at test time is linear: fold it into the layer before it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from numba_bn import _validate as check
from numba_bn._adapters import adapted
from numba_bn._arrays import Array, as_array, order_of, result_dtype
from numba_bn._device import DeviceArray
from numba_bn._dispatch import backend
from numba_bn._view import View, batch_view

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


@adapted
def fold_batch_norm(
    weight: ArrayLike,
    bias: ArrayLike | None,
    gamma: ArrayLike | None,
    beta: ArrayLike | None,
    mean: ArrayLike,
    var: ArrayLike,
    *,
    eps: float = 1e-5,
    output_axis: int = 0,
) -> tuple[Array, Array]:
    """Return weight and bias of a linear layer or convolution with its batch norm absorbed.

    ``weight * a`` and ``(bias - mean) * a + beta`` with ``a = gamma / sqrt(var + eps)`` along
    `output_axis`: the folded layer gives what the layer and the batch norm at test time gave.

    Parameters
    ----------
    weight : array_like, any shape
        Weight of the linear layer or convolution.
    bias : array_like, shape (C,), or None
        Its bias; None means 0.
    gamma, beta : array_like, shape (C,), or None
        Of the batch norm; None means 1 and 0.
    mean, var : array_like, shape (C,)
        Running statistics of the batch norm.
    eps : float, default 1e-5
        Of the batch norm.
    output_axis : int, default 0
        The axis of `weight` with the C output channels: 0 for weights (out, in, ...), as PyTorch
        keeps them, -1 for (..., in, out), as Keras does.

    Returns
    -------
    weight : ndarray, shape of weight
        In the weight's dtype.
    bias : ndarray, shape (C,)
        In the weight's dtype.

    Raises
    ------
    TypeError, ValueError, AxisError
        If an argument does not fit.

    References
    ----------
    B. Jacob et al., "Quantization and Training of Neural Networks for Efficient
    Integer-Arithmetic-Only Inference", CVPR 2018, section 3.2.

    Examples
    --------
    >>> import numpy as np
    >>> import numba_bn as nbn
    >>> nbn.fold_batch_norm(np.array([[2.0, 4.0]]), None, None, None, [3.0], [4.0], eps=0.0)
    (array([[1., 2.]]), array([-1.5]))
    """
    call = "fold_batch_norm"
    w = as_array(call, "weight", weight)
    dtype = result_dtype(call, "weight", w.dtype)
    axes = check.axis_tuple(
        call, "output_axis", check.integer(call, "output_axis", output_axis), w.shape, "weight"
    )
    eps = check.epsilon(call, eps)
    view = batch_view(w.shape, order_of(w), axes)
    given = {"bias": bias, "gamma": gamma, "beta": beta, "mean": mean, "var": var}
    defaults = {"bias": 0.0, "gamma": 1.0, "beta": 0.0}
    for name in ("mean", "var"):
        if given[name] is None:
            raise TypeError(f"{call}: {name} must be an array of shape {view.channels}, got None")
    b, g, shift, m, v = (
        check.parameter(call, name, value, view, w.shape, defaults.get(name, 0.0), "output_axis")
        for name, value in given.items()
    )
    if isinstance(w, DeviceArray):
        return _folded_on_device(w, dtype, view, b, g, shift, m, v, eps)
    root = np.sqrt(v + eps)
    # as at test time: a channel without spread is mapped to beta
    scale = np.divide(g, root, out=np.zeros_like(root), where=root != 0.0)
    along = scale.reshape([-1 if a in axes else 1 for a in range(w.ndim)])
    folded = (w.astype(np.float64) * along).astype(dtype)
    return folded, ((b - m) * scale + shift).astype(dtype)


def _folded_on_device(
    w: DeviceArray,
    dtype: np.dtype[Any],
    view: View,
    bias: Any,
    gamma: Any,
    beta: Any,
    mean: Any,
    var: Any,
    eps: float,
) -> Any:
    """Return the same by batch norm itself: of the weight without means, and of the bias."""
    channels = view.channels[0]
    normalize = backend("cuda").normalize
    folded = w.empty_like_view(dtype, view)
    no_mean = w.beside(np.zeros(channels, var.dtype))
    if w.size:
        w5, y5 = w.five_axes(view), folded.five_axes(view)
        normalize(w5, no_mean, var, gamma, None, eps, y5)
    wide = np.dtype(np.float64) if w.library.CONVERTS else dtype
    if isinstance(bias, np.ndarray):  # there is none: zeros, on the host
        bias = w.beside(bias.astype(wide))
    elif w.library.CONVERTS:
        bias = bias.astype(wide, copy=False)
    moved = w.empty((channels,), bias.dtype)
    if channels:
        of_bias = (1, 1, channels, 1, 1)
        b5, y5 = bias.reshape(of_bias), moved.reshape(of_bias)
        normalize(b5, mean, var, gamma, beta, eps, y5)
    return folded, moved.astype(dtype, copy=False)
