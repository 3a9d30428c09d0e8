"""The whole of instance, group, layer and RMS norm: by own statistics, which nobody keeps."""

from __future__ import annotations

from typing import Any

import numpy as np

from numba_bn import _validate as check
from numba_bn._arrays import five_axes, kind, order_of
from numba_bn._call import Gradients, Output, parameter_gradient, real_array
from numba_bn._dispatch import backend
from numba_bn.functional import _plain
from numba_bn.functional._norms import Axis, Norm


def forward(
    call: str,
    norm: Norm,
    x: object,
    axis: Axis,
    gamma: object,
    beta: object,
    eps: float,
    out: object,
    groups: int = 1,
) -> Any:
    """Normalize x."""
    done = _plain.own(call, norm, x, axis, groups, gamma, beta, eps, out)
    if done is not None:
        return done[0]
    a = real_array(call, x)
    view = norm.view(call, a.shape, order_of(a), axis, groups)
    eps = check.epsilon(call, eps)
    g = check.parameter(call, "gamma", gamma, view, a.shape, 1.0, norm.axis)
    b = check.parameter(call, "beta", beta, view, a.shape, 0.0, norm.axis)
    y = Output(call, out, a, view, (gamma, beta))
    if a.size:
        a5 = five_axes(a, view)
        backend(kind(a)).forward(a5, g, b, eps, y.five_axes, centred=norm.centred, keep=False)
    return y.done(out)


def backward(
    call: str,
    norm: Norm,
    dy: object,
    x: object,
    axis: Axis,
    gamma: object,
    eps: float,
    out: object,
    groups: int = 1,
) -> Gradients:
    """Return the gradients of ``forward``; no saved state is needed."""
    done = _plain.own_gradients(call, norm, dy, x, axis, groups, gamma, eps, out)
    if done is not None:
        return done
    a = real_array(call, x)
    view = norm.view(call, a.shape, order_of(a), axis, groups)
    eps = check.epsilon(call, eps)
    g = check.parameter(call, "gamma", gamma, view, a.shape, 1.0, norm.axis)
    d = check.like(call, "dy", dy, a)
    dx = Output(call, out, a, view, (d, gamma))
    dgamma, dbeta = (np.zeros(g.size), np.zeros(g.size))
    if a.size:
        dgamma, dbeta = backend(kind(a)).backward(
            five_axes(d, view), five_axes(a, view), g, eps, dx.five_axes, centred=norm.centred
        )
    return Gradients(
        dx.done(out),
        parameter_gradient(dgamma, gamma, a, view),
        parameter_gradient(dbeta, gamma, a, view) if norm.centred else None,
    )
