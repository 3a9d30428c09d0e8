"""Plans of launches for the backend functions, from shapes, dtypes and the device's facts alone."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from numba_bn._kernels.cuda import layout
from numba_bn._kernels.cuda.kernel import Device, Kernel, Plan, Step
from numba_bn._kernels.cuda.layout import Layout, Shape

_SIZES = {"bool": 1, "bfloat16": 2}

MOMENTS = Kernel("moments", "moments")


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


def _step(kernel: Kernel, variant: tuple[str | int, ...], at: Layout,
          arguments: tuple[str | int | float, ...]) -> Step:  # fmt: skip
    return Step(kernel, variant, at.grid, at.block, (*arguments, *at.geometry))
