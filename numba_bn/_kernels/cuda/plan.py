"""Plans of launches for the backend functions, from shapes, dtypes and the device's facts alone."""

from __future__ import annotations

from functools import lru_cache
from math import prod
from typing import NamedTuple

from numba_bn._kernels.cuda import layout
from numba_bn._kernels.cuda.kernel import COUNTERS, Device, Kernel, Plan, Step
from numba_bn._kernels.cuda.layout import Layout, Shape

_SIZES = {"bool": 1, "bfloat16": 2}

MOMENTS = Kernel("moments", "moments")
NORMALIZE, FORWARD = Kernel("normalize", "normalize"), Kernel("normalize", "forward")


class Call(NamedTuple):
    """What is computed on."""

    shape: Shape
    """The five axes, none of length zero."""
    x: str
    """dtype of x, by name."""
    y: str = "float32"
    """dtype of y, dy, dx and the residual."""
    parameter: str = "float32"
    """dtype of gamma and beta."""
    gamma: bool = True
    beta: bool = True
    masked: bool = False
    residual: bool = False
    relu: bool = False
    given: str = "float64"
    """dtype of the mean and variance that a norm is given."""
    aligned: bool = True
    """Whether the address of every array is a multiple of 16."""


def itemsize(dtype: str) -> int:
    """Return the bytes of a value."""
    return _SIZES.get(dtype) or int(dtype.lstrip("abcdefghijklmnopqrstuvwxyz")) // 8


def _unroll(width: int, arrays: int = 1) -> int:
    """Return how many vectors a thread loads before it uses them: 64 bytes."""
    return 8 if width == 1 else max(4 // arrays, 1)


@lru_cache(maxsize=1024)
def moments(call: Call, device: Device) -> Plan:
    """x, where → count, mean, low, m2."""
    step, parts = _moments(call, device, ("count", "mean", "low", "m2"))
    return Plan((step,), parts)


def _moments(call: Call, device: Device, results: tuple[str, ...]) -> tuple[Step, int]:
    at = layout.of_groups(call.shape, itemsize(call.x), call.aligned, device)
    variant = (call.x, at.width, _unroll(at.width), int(call.masked), int(at.columns))
    arrays = ("x", "where" if call.masked else 0)
    step = _step(MOMENTS, variant, at, (*arrays, *results, "workspace"))
    return step, at.parts


@lru_cache(maxsize=1024)
def normalize(call: Call, eps: float, device: Device) -> Plan:
    """x, mean, var, gamma, beta, residual → y."""
    return Plan((_normalize(call, eps, device, ("mean", 0, "var", 0)),), 0)


def _normalize(call: Call, eps: float, device: Device, given: tuple[str | int, ...],
               centred: bool = True) -> Step:  # fmt: skip
    at, mode = layout.of_values(call.shape, itemsize(call.x), call.aligned, device)
    variant = (
        call.x, call.y, call.parameter, call.given, at.width,
        _unroll(at.width, 1 + call.residual), int(at.columns), mode, int(call.residual),
        int(call.relu), int(_streams(call, device)),
    )  # fmt: skip
    return _step(NORMALIZE, variant, at, (*_arrays(call), *given, eps, int(centred)))


def _arrays(call: Call) -> tuple[str | int, ...]:
    """x, y, residual, gamma, beta, as far as they are there."""
    residual = "residual" if call.residual else 0
    return "x", "y", residual, "gamma" if call.gamma else 0, "beta" if call.beta else 0


def _streams(call: Call, device: Device) -> bool:
    """Tell whether what is written would drive what is read out of the cache."""
    return prod(call.shape) * itemsize(call.y) > device.l2_bytes // 4


@lru_cache(maxsize=1024)
def forward(
    call: Call, eps: float, device: Device, centred: bool = True, keep: bool = True
) -> Plan:
    """x, where, gamma, beta, residual → y by its own statistics; count, mean, low, m2 if kept."""
    batch, _, groups = call.shape[:3]
    results = ("count", "mean", "low", "m2") if keep else _vectors(0, 4, batch * groups)
    first, parts = _moments(call, device, results)
    used = parts
    if not keep:
        used = parts = max(parts, COUNTERS)
        results = _vectors(parts, 4, batch * groups)
        first = _moments(call, device, results)[0]
        used += 32 * batch * groups
    count, mean, low, m2 = results
    second = _normalize(call._replace(given="float64"), eps, device, (mean, low, m2, count), centred)
    return Plan((first, second), used)


def _vectors(start: int, number: int, length: int) -> tuple[str, ...]:
    """Name vectors of float64 in the work space."""
    return tuple(f"workspace+{start + 8 * length * k}" for k in range(number))


def _step(kernel: Kernel, variant: tuple[str | int, ...], at: Layout,
          arguments: tuple[str | int | float, ...]) -> Step:  # fmt: skip
    return Step(kernel, variant, at.grid, at.block, (*arguments, *at.geometry))
