"""The backend functions on a device: allocate by the caller's library, plan, launch, return.

Arrays are `DeviceArray`. Parameters that were not given come as NumPy vectors of ones and zeros,
and are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from numba_bn._device import COUNT, LOW, M2, MEAN, DeviceArray, DeviceMoments, name_of
from numba_bn._kernels.cuda import driver, plan
from numba_bn._kernels.cuda.launch import Prepared, prepare, run
from numba_bn._kernels.cuda.plan import Call
from numba_bn._kernels.cuda.trace import Trace

Given = tuple[Any, Any, Any, Any]
"""mean, variance, None and zeros at test time; of a training step mean, m2, count and low."""

_FLOAT64 = np.dtype(np.float64)
_PARAMETERS = frozenset((np.dtype(np.float32), _FLOAT64))
_ROWS = {"count": COUNT, "mean": MEAN, "low": LOW, "m2": M2}


@lru_cache(maxsize=4096)
def prepared(function: str, ordinal: int, about: tuple[Any, ...], options: Any) -> Prepared:
    """Return the launches of a backend function, compiled and loaded for a device."""
    make = getattr(plan, function)
    if function == "update_running":  # the same for all devices
        return prepare(make(*about), ordinal)
    return prepare(make(*about, driver.driver().traits(ordinal).device, *options), ordinal)


def _run(
    function: str, buffers: dict[str, Any], *about: Any, options: tuple[bool, ...] = ()
) -> None:
    """Launch a backend function on the stream that the caller's library works on, or say so."""
    x = buffers["x"]
    at = {
        name: value.pointer if isinstance(value, DeviceArray) else value
        for name, value in buffers.items()
        if value is not None
    }
    launches = prepared(function, x.ordinal, about, options)
    if isinstance(x.library, Trace):
        x.library.launch(launches, at)
    else:
        run(launches, at, x.library.stream(x))


def _readable(*vectors: Any) -> list[DeviceArray | None]:
    """Return vectors in one dtype that kernels read, None for those that were not given."""
    arrays = [v if isinstance(v, DeviceArray) else None for v in vectors]
    dtypes = {v.dtype for v in arrays if v is not None}
    if len(dtypes) > 1 or not dtypes <= _PARAMETERS:
        return [None if v is None else v.astype(_FLOAT64, copy=False) for v in arrays]
    return arrays


def _name(*vectors: DeviceArray | None) -> str:
    """Return the dtype of the vectors that there are."""
    return next((name_of(v.dtype) for v in vectors if v is not None), "float32")


def _call(x5: DeviceArray, *others: DeviceArray | None, **about: Any) -> Call:
    """Return what a plan is to know of x and the other large arrays."""
    aligned = all(a is None or a.pointer % 16 == 0 for a in (x5, *others))
    shape: Any = x5.shape
    return Call(shape, name_of(x5.dtype), aligned=aligned, **about)


def _vectors(*parameters: DeviceArray | None) -> bool:
    """Tell whether kernels may load parameters as vectors of 16 bytes."""
    return all(v is None or v.pointer % 16 == 0 for v in parameters)


def _rows(x5: DeviceArray) -> tuple[DeviceArray, dict[str, int]]:
    """Return a new matrix for moments, and the addresses of its rows."""
    items = x5.shape[0] * x5.shape[2]
    rows = x5.empty((len(_ROWS), items), _FLOAT64)
    return rows, _addresses(rows)


def _addresses(rows: DeviceArray) -> dict[str, int]:
    return {name: rows.pointer + rows.strides[0] * i for name, i in _ROWS.items()}


def _kept(x5: DeviceArray, rows: DeviceArray, where5: DeviceArray | None) -> DeviceMoments:
    _, outer, _, size, inner = x5.shape
    return DeviceMoments(rows, outer * size * inner if where5 is None else None)


def moments(x5: DeviceArray, where5: DeviceArray | None = None) -> DeviceMoments:
    """x (five axes) → count, mean, what it lost to rounding, m2: (4, batch · groups)."""
    rows, results = _rows(x5)
    call = _call(x5, where5, masked=where5 is not None)
    _run("moments", {"x": x5, "where": where5, **results}, call)
    return _kept(x5, rows, where5)


def normalize(
    x5: DeviceArray,
    mean: DeviceArray,
    var: DeviceArray,
    gamma: Any,
    beta: Any,
    eps: float,
    y5: DeviceArray,
    residual5: DeviceArray | None = None,
    relu: bool = False,
) -> None:
    """x, mean, var → y5 = (x - mean)·gamma/√(var + eps) + beta [+ residual], [ReLU]."""
    gamma, beta = _readable(gamma, beta)
    mean, var = _readable(mean, var)  # type: ignore[assignment]
    call = _call(x5, y5, residual5, **_forward_of(y5, gamma, beta, residual5, relu))
    call = call._replace(given=_name(mean))
    buffers = {"x": x5, "gamma": gamma, "beta": beta, "residual": residual5, "y": y5}
    _run("normalize", {**buffers, "mean": mean, "var": var}, call, eps)


def _forward_of(
    y5: DeviceArray, gamma: Any, beta: Any, residual5: DeviceArray | None, relu: bool
) -> dict[str, Any]:
    """Return what a plan of a forward is to know beside x."""
    return {
        "y": name_of(y5.dtype),
        "parameter": _name(gamma, beta),
        "gamma": gamma is not None,
        "beta": beta is not None,
        "vectors": _vectors(gamma, beta),
        "residual": residual5 is not None,
        "relu": relu,
    }


def forward(
    x5: DeviceArray,
    gamma: Any,
    beta: Any,
    eps: float,
    y5: DeviceArray,
    where5: DeviceArray | None = None,
    residual5: DeviceArray | None = None,
    relu: bool = False,
    centred: bool = True,
    keep: bool = True,
) -> DeviceMoments | None:
    """x → y5 by its own statistics, which are returned if they are to be kept."""
    gamma, beta = _readable(gamma, beta)
    about = _forward_of(y5, gamma, beta, residual5, relu)
    call = _call(x5, y5, residual5, where5, masked=where5 is not None, **about)
    buffers = {"x": x5, "gamma": gamma, "beta": beta, "residual": residual5, "y": y5}
    buffers["where"] = where5
    options = centred, keep
    if not keep:
        _run("forward", buffers, call, eps, options=options)
        return None
    rows, results = _rows(x5)
    _run("forward", {**buffers, **results}, call, eps, options=options)
    return _kept(x5, rows, where5)


def gradient_sums(
    dy5: DeviceArray,
    x5: DeviceArray,
    mean: DeviceArray,
    var: DeviceArray,
    eps: float,
    where5: DeviceArray | None = None,
) -> tuple[DeviceArray, DeviceArray]:
    """dy, x (batch of one) → Σdy, Σdy·x̂ (channels,)."""
    call = _backward_call(dy5, x5, where5)._replace(given=_name(mean))
    sums = _channels(x5)
    dbeta, dgamma = sums.row(0), sums.row(1)
    buffers = {"x": x5, "dy": dy5, "mean": mean, "var": var, "where": where5}
    _run("gradient_sums", {**buffers, "dbeta": dbeta, "dgamma": dgamma}, call, eps)
    return dbeta, dgamma


def input_gradient(
    dy5: DeviceArray,
    x5: DeviceArray,
    mean: DeviceArray,
    var: DeviceArray,
    gamma: Any,
    sums: tuple[DeviceArray, DeviceArray] | None,
    count: DeviceArray,
    eps: float,
    dx5: DeviceArray,
    where5: DeviceArray | None = None,
) -> None:
    """dy, x (batch of one), sums (channels,) → dx5; without sums the statistics are constant."""
    (gamma,) = _readable(gamma)
    call = _backward_call(dy5, x5, where5, dx5, gamma)._replace(given=_name(mean))
    buffers = {"x": x5, "dy": dy5, "mean": mean, "var": var, "gamma": gamma, "dx": dx5}
    buffers["where"] = where5
    if sums is not None:
        buffers.update(dbeta=sums[0], dgamma=sums[1], count=count)
    _run("input_gradient", buffers, call, eps, options=(sums is not None,))


def backward(
    dy5: DeviceArray,
    x5: DeviceArray,
    gamma: Any,
    eps: float,
    dx5: DeviceArray,
    given: Given | None = None,
    where5: DeviceArray | None = None,
    centred: bool = True,
) -> tuple[DeviceArray, DeviceArray]:
    """dy, x → dx5, and dgamma, dbeta (channels,); without ``given`` by x's own statistics."""
    (gamma,) = _readable(gamma)
    call = _backward_call(dy5, x5, where5, dx5, gamma)
    sums = _channels(x5)
    dgamma, dbeta = sums.row(0), sums.row(1)
    buffers = {"x": x5, "dy": dy5, "dx": dx5, "gamma": gamma, "dgamma": dgamma, "dbeta": dbeta}
    if given is None:
        call = call._replace(in_place=dx5.overlaps(x5) or dx5.overlaps(dy5))
        _run("backward_own", buffers, call, eps, options=(centred,))
        return dgamma, dbeta
    if given[2] is None:
        mean, spread = _readable(*(x5.beside(vector) for vector in given[:2]))
        call = call._replace(given=_name(mean))
        buffers.update(mean=mean, var=spread)
    else:
        call = call._replace(stats=True)
        names = "mean", "m2", "count", "low"
        buffers.update(zip(names, (x5.beside(vector) for vector in given), strict=True))
    options = (given[2] is not None,)
    _run("backward", {**buffers, "where": where5}, call, eps, options=options)
    return dgamma, dbeta


def _backward_call(
    dy5: DeviceArray,
    x5: DeviceArray,
    where5: DeviceArray | None,
    dx5: DeviceArray | None = None,
    gamma: DeviceArray | None = None,
) -> Call:
    about: dict[str, Any] = {"y": name_of(dy5.dtype), "masked": where5 is not None}
    about.update(parameter=_name(gamma), gamma=gamma is not None, vectors=_vectors(gamma))
    return _call(x5, dy5, where5, dx5, **about)


def _channels(x5: DeviceArray) -> DeviceArray:
    """Return two new rows for sums of channels."""
    return x5.empty((2, x5.shape[2] * x5.shape[3]), _FLOAT64)


def relu_gradient(dy5: DeviceArray, y5: DeviceArray, out5: DeviceArray) -> None:
    """dy, y → dy where the ReLU let y through, else 0."""
    call = _call(y5, dy5, out5, y=name_of(y5.dtype))
    # on the stream of what it makes: y may be said to be made on another
    _run("relu_gradient", {"x": out5, "dy": dy5, "y": y5, "dx": out5}, call)


def update_running(
    rows: DeviceArray,
    running: Sequence[DeviceArray],
    new: Sequence[DeviceArray],
    momentum: float,
    correction: float,
) -> None:
    """count, mean, m2 (rows of moments), running mean and variance → new ones."""
    mean, var = running
    # both are attributes that a caller may set; an int would reach the kernel as one
    about = mean.size, name_of(mean.dtype), float(momentum), float(correction)
    buffers = {"x": rows, "running_mean": mean, "running_var": var, **_addresses(rows)}
    _run("update_running", {**buffers, "new_mean": new[0], "new_var": new[1]}, *about)
