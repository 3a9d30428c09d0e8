"""Plans of launches for the backend functions, from shapes, dtypes and the device's facts alone."""

from __future__ import annotations

from functools import lru_cache
from math import prod
from typing import NamedTuple

from numba_bn._kernels.cuda import layout
from numba_bn._kernels.cuda.kernel import THREADS, Device, Kernel, Plan, Step
from numba_bn._kernels.cuda.layout import Layout, Shape
from numba_bn._kernels.cuda.room import Room

_SIZES = {"bool": 1, "bfloat16": 2}

MOMENTS = Kernel("moments", "moments")
NORMALIZE, FORWARD = Kernel("normalize", "normalize"), Kernel("normalize", "forward")
GRADIENT_SUMS, SUMS_BY_ROW = (Kernel("gradients", n) for n in ("gradient_sums", "sums_by_row"))
INPUT_GRADIENT, BACKWARD = (Kernel("input_gradient", n) for n in ("input_gradient", "backward"))
FOLD, RELU_GRADIENT = Kernel("small", "fold"), Kernel("small", "relu_gradient")
UPDATE_RUNNING = Kernel("small", "update_running")

Names = tuple[str | int, ...]
Arguments = tuple[str | int | float, ...]
KEPT: Names = ("count", "mean", "low", "m2")
"""Moments, as buffers are named."""


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
    stats: bool = False
    """Whether what it is given is count, mean and m2 instead, in float64."""
    aligned: bool = True
    """Whether the address of every array of x's shape is a multiple of 16."""
    vectors: bool = True
    """Whether those of gamma and beta are, so that they may be loaded as vectors."""
    in_place: bool = False
    """Whether dx is written over x or dy."""


def itemsize(dtype: str) -> int:
    """Return the bytes of a value."""
    return _SIZES.get(dtype) or int(dtype.lstrip("abcdefghijklmnopqrstuvwxyz")) // 8


def _unroll(dtype: str, width: int, arrays: int = 1) -> int:
    """Return how many vectors a thread loads before it uses them: at least 64 bytes of all arrays.

    Beside bytes there are values of float32, which are wider. Parameters along a row are an array.
    """
    if width == 1:
        return 8
    if arrays == 1:
        return 64 // (width * itemsize(dtype))
    return max(min(4, 32 // width) // arrays, 1)


@lru_cache(maxsize=1024)
def moments(call: Call, device: Device) -> Plan:
    """x, where → count, mean, low, m2."""
    room = Room()
    return room.plan(_moments(call, device, KEPT, room))


def _moments(call: Call, device: Device, results: Names, room: Room) -> Step:
    at = layout.of_groups(call.shape, itemsize(call.x), call.aligned, device)
    variant = (call.x, at.width, _unroll(call.x, at.width), int(call.masked), int(at.columns))
    arrays = ("x", "where" if call.masked else 0)
    return _step(MOMENTS, variant, at, (*arrays, *results, room.parts(at)))


@lru_cache(maxsize=1024)
def normalize(call: Call, eps: float, device: Device) -> Plan:
    """x, mean, var, gamma, beta, residual → y."""
    return Plan((_normalize(call, eps, device, _given(call)),), 0)


def _given(call: Call) -> Names:
    """Name the statistics a norm is given: mean, low, var, count."""
    return ("mean", "low", "m2", "count") if call.stats else ("mean", 0, "var", 0)


def _normalize(
    call: Call,
    eps: float,
    device: Device,
    given: Names,
    centred: bool = True,
    arrays: Names | None = None,
) -> Step:
    at, mode = layout.of_values(call.shape, itemsize(call.x), call.aligned, device)
    variant = (
        call.x, call.y, call.parameter, call.given, at.width,
        _unroll(call.x, at.width, 1 + (call.residual or mode != "each")), int(at.columns),
        _by(call, mode), int(call.residual), int(call.relu), int(_streams(call, device)),
    )  # fmt: skip
    return _step(NORMALIZE, variant, at, (*(arrays or _arrays(call)), *given, eps, int(centred)))


def _arrays(call: Call) -> Names:
    """x, y, residual, gamma, beta, as far as they are there."""
    residual = "residual" if call.residual else 0
    return "x", "y", residual, "gamma" if call.gamma else 0, "beta" if call.beta else 0


def _by(call: Call, mode: str) -> str:
    """Return how parameters go with values: where no vector may be loaded, one by one."""
    return "spread" if mode == "along" and not call.vectors else mode


def _streams(call: Call, device: Device) -> bool:
    """Tell whether what is written would drive what is read out of the cache."""
    return prod(call.shape) * itemsize(call.y) > device.l2_bytes // 4


@lru_cache(maxsize=1024)
def forward(
    call: Call, eps: float, device: Device, centred: bool = True, keep: bool = True
) -> Plan:
    """x, where, gamma, beta, residual → y by its own statistics; count, mean, low, m2 if kept."""
    size = itemsize(call.x)
    own = layout.of_own(call.shape, size, size, call.aligned, device)
    if own:
        at, mode = own
        results: Names = KEPT if keep else (0, 0, 0, 0)
        variant = (
            call.x, call.y, call.parameter, at.width, _unroll(call.x, at.width),
            _unroll(call.x, at.width, 1 + (call.residual or mode != "each")), _by(call, mode),
            int(call.masked), int(call.residual), int(call.relu), int(_streams(call, device)),
        )  # fmt: skip
        arrays = (*_arrays(call), "where" if call.masked else 0)
        return Plan((_step(FORWARD, variant, at, (*arrays, *results, eps, int(centred))),), 0)
    room = Room()
    found = KEPT if keep else room.vectors(4, call.shape[0] * call.shape[2])
    count, mean, low, m2 = found
    first = _moments(call, device, found, room)
    given = (mean, low, m2, count)
    second = _normalize(call._replace(given="float64"), eps, device, given, centred)
    return room.plan(first, second)


@lru_cache(maxsize=1024)
def gradient_sums(call: Call, eps: float, device: Device) -> Plan:
    """dy, x, where, mean, var → dbeta, dgamma: Σdy and Σdy·x̂ of channels, for a batch of one."""
    room = Room()
    return room.plan(_sums(call, eps, device, _given(call), ("dbeta", "dgamma"), room))


def _sums(
    call: Call,
    eps: float,
    device: Device,
    given: Names,
    results: Names,
    room: Room,
    centred: bool = True,
) -> Step:
    at = layout.of_channels(call.shape, itemsize(call.x), call.aligned, device)
    variant = (
        call.x, call.y, "float64" if call.stats else call.given, at.width,
        _unroll(call.x, at.width, 2), int(at.columns), int(call.masked),
    )  # fmt: skip
    arrays = ("x", "dy", "where" if call.masked else 0)
    arguments = (*arrays, *given, eps, int(centred), *results, room.parts(at))
    return _step(GRADIENT_SUMS, variant, at, arguments)


@lru_cache(maxsize=1024)
def input_gradient(call: Call, eps: float, device: Device, training: bool = True) -> Plan:
    """dy, x, where, mean, var, gamma, dbeta, dgamma, count → dx; in a batch of one.

    Not in training the statistics are constants: dx is made of dy alone, whatever x and its mean.
    """
    given, sums = _given(call), ("dbeta", "dgamma", "count")
    if training:
        return Plan((_input_gradient(call, eps, device, given, sums, weighted=False),), 0)
    of_dy = call._replace(x=call.y, residual=False, relu=False, beta=False)
    arrays = ("dy", "dx", *_arrays(of_dy)[2:])
    return Plan((_normalize(of_dy, eps, device, (0, 0, *given[2:]), arrays=arrays),), 0)


def _input_gradient(
    call: Call,
    eps: float,
    device: Device,
    given: Names,
    sums: Names,
    weighted: bool,
    centred: bool = True,
) -> Step:
    at, mode = layout.of_values(call.shape, itemsize(call.x), call.aligned, device)
    masked = call.masked and sums[0] != 0
    variant = (
        call.x, call.y, call.parameter, "float64" if call.stats else call.given, at.width,
        _unroll(call.x, at.width, 2), int(at.columns), _by(call, mode), int(masked),
        int(_streams(call, device)),
    )  # fmt: skip
    arrays = _gradient_arrays(call, masked)
    arguments = (*arrays, *given, *sums, int(weighted), eps, int(centred))
    return _step(INPUT_GRADIENT, variant, at, arguments)


def _gradient_arrays(call: Call, masked: bool) -> Names:
    return "x", "dy", "dx", "where" if masked else 0, "gamma" if call.gamma else 0


@lru_cache(maxsize=1024)
def backward(call: Call, eps: float, device: Device, training: bool = True) -> Plan:
    """dy, x, where, mean, var, gamma, count → dbeta, dgamma, dx, in a batch of one."""
    sums = gradient_sums(call, eps, device)
    dx = input_gradient(call, eps, device, training)
    return Plan(sums.steps + dx.steps, sums.workspace)


@lru_cache(maxsize=1024)
def backward_own(call: Call, eps: float, device: Device, centred: bool = True) -> Plan:
    """dy, x, gamma → dbeta, dgamma, dx, by the statistics of x itself, which are taken anew."""
    size = itemsize(call.x)
    own = layout.of_own(call.shape, size + itemsize(call.y), size, call.aligned, device)
    if own:
        return _backward_own(call, eps, device, centred, *own)
    room, (batch, _, groups, channels) = Room(), call.shape[:4]
    found = room.vectors(4, batch * groups)
    sums = room.vectors(2, batch * groups * channels)
    weighted = room.vectors(2, batch * groups)
    count, mean, low, m2 = found
    given, inner = (mean, low, m2, count), call._replace(given="float64")
    return room.plan(
        _moments(call, device, found, room),
        _sums(inner, eps, device, given, sums, room, centred),
        _fold(call, sums, weighted),
        _input_gradient(inner, eps, device, given, (*weighted, count), True, centred),
    )


def _backward_own(
    call: Call, eps: float, device: Device, centred: bool, at: Layout, mode: str
) -> Plan:
    """Gradients of items that a team each takes in one go; parameters' gradients follow."""
    batch, _, groups = call.shape[:3]
    room = Room()
    mean, low, rstd, one, two = found = room.vectors(5, batch * groups)
    variant = (
        call.x, call.y, call.parameter, at.width, _unroll(call.x, at.width),
        _unroll(call.x, at.width, 2), _by(call, mode), int(_streams(call, device)),
    )  # fmt: skip
    x, dy, dx, *rest = _gradient_arrays(call, False)
    arguments = (*rest, *found, eps, int(centred))
    first = _step(BACKWARD, variant, at, (x, dy, dx, *arguments))
    if mode == "each":
        return room.plan(first, _fold(call, (one, two), (0, 0)))
    rows = layout.of_rows_channels(call.shape, itemsize(call.x), call.aligned, device)
    given = (mean, low, rstd, groups, eps, int(centred), "dbeta", "dgamma", room.parts(rows))
    by_row = (call.x, call.y, rows.width, _unroll(call.x, rows.width, 2), int(groups == 1))
    sums = _step(SUMS_BY_ROW, by_row, rows, ("x", "dy", 0, *given))
    if not call.in_place:
        return room.plan(first, sums)
    # the sums look at x and dy before dx is there; the statistics that they need come first
    return room.plan(_step(BACKWARD, variant, at, (x, dy, 0, *arguments)), sums, first)


def _fold(call: Call, sums: Names, weighted: Names) -> Step:
    """Sums of (batch, channels) → of channels, and weighted of (batch, groups)."""
    batch, _, groups, size, _ = call.shape
    gamma = "gamma" if call.gamma else 0
    arguments = (*sums, gamma, "dbeta", "dgamma", *weighted, batch, groups, size)
    return _flat(FOLD, (call.parameter,), max(groups * size, batch * groups), arguments)


def _flat(kernel: Kernel, variant: Names, threads: int, arguments: Arguments) -> Step:
    grid = (-(-threads // THREADS), 1, 1)
    return Step(kernel, variant, grid, (THREADS, 1, 1), arguments)


@lru_cache(maxsize=1024)
def relu_gradient(call: Call, device: Device) -> Plan:
    """dy, y → dx: dy where the ReLU let y through, else 0."""
    flat = (1, 1, 1, 1, prod(call.shape))
    at, _ = layout.of_rows(flat, layout.width_of(itemsize(call.y), call.aligned), device)
    variant = (call.y, at.width, _unroll(call.y, at.width, 2), int(_streams(call, device)))
    return Plan((_step(RELU_GRADIENT, variant, at, ("dy", "y", "dx")),), 0)


@lru_cache(maxsize=1024)
def update_running(channels: int, dtype: str, momentum: float, correction: float) -> Plan:
    """count, mean, m2, running_mean, running_var → new_mean, new_var."""
    arguments = (
        "running_mean", "running_var", "new_mean", "new_var", "count", "mean", "m2", momentum,
        correction, channels,
    )  # fmt: skip
    return Plan((_flat(UPDATE_RUNNING, (dtype,), channels, arguments),), 0)


def _step(kernel: Kernel, variant: Names, at: Layout, arguments: Arguments) -> Step:
    return Step(kernel, variant, at.grid, at.block, (*arguments, *at.geometry))
