"""The one table of norms × shapes × layouts × dtypes, and the data to fill it. No tests."""

from collections.abc import Iterable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import pytest

import numba_bn as nbn

try:
    from ml_dtypes import bfloat16
except ImportError:  # the tests of a device do without
    bfloat16 = None

EPS = 1e-3
"""Not the default: a call that loses it is seen."""

HALVES = [np.dtype(t) for t in (np.float16, bfloat16) if t is not None]
FLOATS = [*HALVES, np.dtype(np.float32), np.dtype(np.float64)]
INTEGERS = [np.dtype(t) for t in (np.uint8, np.uint16, np.int32)]
"""Of each size that is computed in a way of its own; the same few in all tests."""
DTYPES = [*FLOATS, *INTEGERS]
COMMON = [*FLOATS, *INTEGERS[:1]]
"""Those that kernels are compiled for the most."""
RARE = [np.dtype(t) for t in (np.int8, np.int16, np.uint32, np.int64, np.uint64)]
"""Few tests take these too: each compiles kernels that no other test needs."""


class Case(NamedTuple):
    """A norm over a shape; ``frozen`` is batch norm at test time."""

    norm: str
    shape: tuple[int, ...]
    axes: tuple[int, ...] = (1,)
    """Axes of the channels; of layer and rms, the normalized ones."""
    groups: int = 0

    @property
    def id(self) -> str:
        axes = "".join(map(str, self.axes))
        groups = f"-g{self.groups}" if self.groups else ""
        return f"{self.norm}-{'x'.join(map(str, self.shape))}-axis{axes}{groups}"

    @property
    def own(self) -> tuple[int, ...]:
        """The axes of gamma and beta, counted from the front."""
        return tuple(sorted(a % len(self.shape) for a in self.axes))

    @property
    def parameter_shape(self) -> tuple[int, ...]:
        return tuple(self.shape[a] for a in self.own)

    @property
    def options(self) -> dict[str, Any]:
        """The keywords of the public function that say what to normalize over."""
        key = "axis" if self.norm in ("layer", "rms") else "channel_axis"
        return {key: self.axes if len(self.axes) > 1 else self.axes[0]}


class Data(NamedTuple):
    """The arrays of one call."""

    x: np.ndarray
    dy: np.ndarray
    gamma: np.ndarray
    beta: np.ndarray
    mean: np.ndarray
    var: np.ndarray


_BATCH = [
    Case("batch", (5, 3)),
    Case("batch", (1, 3)),
    Case("batch", (7,), (0,)),
    Case("batch", (64, 37)),
    Case("batch", (10_000, 3)),
    Case("batch", (40_000, 5)),
    Case("batch", (4, 5, 6)),
    Case("batch", (2, 3, 5001)),
    Case("batch", (2, 3, 70_000)),
    Case("batch", (1, 1, 9001)),
    Case("batch", (2, 63, 7, 7)),
    Case("batch", (33, 130, 3, 3)),
    Case("batch", (3, 37, 31, 33)),
    Case("batch", (600, 3, 8, 9)),
    Case("batch", (140, 4100)),
    Case("batch", (3000, 7)),
    Case("batch", (3, 9, 9, 64), (-1,)),
    Case("batch", (2, 7, 7, 63), (-1,)),
    Case("batch", (2, 31, 33, 37), (-1,)),
    Case("batch", (5, 3, 300), (-1,)),
    Case("batch", (3, 1, 8, 9)),
    Case("batch", (3, 8, 9, 1), (-1,)),
    Case("batch", (2, 3, 4, 5, 3)),
    Case("batch", (2, 4, 5, 3, 3), (-1,)),
    Case("batch", (3, 4, 5), (0,)),
    Case("batch", (4, 3, 5, 6), (1, 2)),
    Case("batch", (4, 3, 5, 6), (1, -1)),
]
_INSTANCE = [
    Case("instance", (4, 3)),
    Case("instance", (4, 3, 7, 7)),
    Case("instance", (2, 63, 7, 7)),
    Case("instance", (2, 7, 7, 63), (-1,)),
    Case("instance", (90, 7, 7, 3), (-1,)),
    Case("instance", (3, 37, 31, 33)),
    Case("instance", (2, 31, 33, 37), (-1,)),
    Case("instance", (2, 3, 5001)),
    Case("instance", (2, 2, 70_000)),
    Case("instance", (2, 20_000, 3), (-1,)),
    Case("instance", (2, 1, 9)),
    Case("instance", (3000, 5, 3)),
    Case("instance", (2, 3, 4, 5, 3)),
    Case("instance", (3, 4, 5, 6), (1, 2)),
    Case("instance", (3, 4, 5, 6), (1, -1)),
]
_GROUP = [
    Case("group", (3, 3), groups=3),
    Case("group", (3, 6), groups=3),
    Case("group", (4, 6, 7, 7), groups=2),
    Case("group", (2, 63, 7, 7), groups=9),
    Case("group", (2, 63, 7, 7), groups=1),
    Case("group", (2, 7, 7, 63), (-1,), groups=7),
    Case("group", (90, 5, 5, 6), (-1,), groups=2),
    Case("group", (2, 6, 31, 33), groups=3),
    Case("group", (2, 31, 33, 6), (-1,), groups=3),
    Case("group", (2, 4, 5001), groups=2),
    Case("group", (2, 4, 35_000), groups=2),
    Case("group", (2, 20_000, 4), (-1,), groups=2),
    Case("group", (2, 4, 3, 5, 3), groups=2),
    Case("group", (3, 4, 6, 5), (1, 2), groups=8),
    Case("group", (3, 4, 5, 6), (1, -1), groups=8),
]
_ROWS = [
    ((1,), (0,)),
    ((6,), (0,)),
    ((7, 1), (-1,)),
    ((7, 5), (-1,)),
    ((5000, 7), (-1,)),
    ((60, 128), (-1,)),
    ((5, 1000), (-1,)),
    ((3, 20_000), (1,)),
    ((1, 70_000), (-1,)),
    ((4, 6, 5), (-1,)),
    ((4, 6, 5), (1, 2)),
    ((2, 3, 4, 5, 6), (-2, -1)),
    ((2, 3, 4, 5), (0, 1, 2, 3)),
]
_LAYER = [Case("layer", shape, axes) for shape, axes in _ROWS]
_RMS = [Case("rms", shape, axes) for shape, axes in _ROWS]
_FROZEN = [case._replace(norm="frozen") for case in _BATCH]

CASES = [*_BATCH, *_FROZEN, *_INSTANCE, *_GROUP, *_LAYER, *_RMS]
NORMS = ["batch", "frozen", "instance", "group", "layer", "rms"]

MEDIUM = [
    Case("batch", (3, 37, 31, 33)),
    Case("batch", (2, 63, 7, 7)),
    Case("batch", (300, 5)),
    Case("frozen", (2, 63, 7, 7)),
    Case("frozen", (2, 7, 7, 63), (-1,)),
    Case("instance", (2, 5, 31, 33)),
    Case("instance", (2, 7, 7, 63), (-1,)),
    Case("group", (2, 6, 31, 33), groups=3),
    Case("group", (2, 7, 7, 63), (-1,), groups=9),
    Case("layer", (60, 128), (-1,)),
    Case("layer", (5000, 7)),
    Case("rms", (60, 128)),
]
"""A few of every norm, large enough for every loop: crossed with all dtypes."""

SMALL = [
    Case("batch", (3, 4, 5, 6)),
    Case("batch", (3, 5, 6, 4), (-1,)),
    Case("batch", (9, 5)),
    Case("batch", (3, 4, 5, 6), (1, 2)),
    Case("frozen", (3, 4, 5, 6)),
    Case("frozen", (3, 5, 6, 4), (-1,)),
    Case("instance", (3, 4, 5, 6)),
    Case("instance", (3, 5, 6, 4), (-1,)),
    Case("group", (3, 4, 5, 6), groups=2),
    Case("group", (3, 5, 6, 4), (-1,), groups=2),
    Case("layer", (3, 4, 5, 6), (-1,)),
    Case("layer", (3, 4, 5, 6), (-2, -1)),
    Case("rms", (3, 4, 5, 6), (-1,)),
    Case("rms", (3, 4, 5, 6), (-2, -1)),
]
"""Small ones of every norm: crossed with all layouts, and differentiated numerically."""


def quickly(quick: list[Any], *slow: Any) -> list[Any]:
    """Return values to parametrize over: the quick ones always, the others with --slow."""
    return [*quick, *(pytest.param(value, marks=pytest.mark.slow) for value in slow)]


def quickly_pairs(quick: Iterable[Any], slow: Iterable[Any]) -> list[Any]:
    """Return pairs of values likewise."""
    return [*quick, *(pytest.param(*pair, marks=pytest.mark.slow) for pair in slow)]


def name(value: Any) -> str | None:
    """Name cases and dtypes in pytest's ids."""
    return value.id if isinstance(value, Case) else str(value)


def _transposed(a):
    """NCHW seen through NHWC, and the other way round."""
    at = 1 if a.ndim > 1 else 0
    return np.moveaxis(np.ascontiguousarray(np.moveaxis(a, at, -1)), -1, at)


def _reversed_axes(a):
    """Memory in an order that has nothing to do with the axes."""
    order = [*range(1, a.ndim, 2), *range(0, a.ndim, 2)]
    return np.ascontiguousarray(a.transpose(order)).transpose(np.argsort(order))


def _strided(a):
    """Every second element, the first axis backwards."""
    return np.repeat(a[::-1], 2, axis=-1)[::-1, ..., ::2]


def _readonly(a):
    a = a.copy()
    a.flags.writeable = False
    return a


def _misaligned(a):
    room = np.empty(a.nbytes + 1, np.uint8)
    b = room[1:].view(a.dtype).reshape(a.shape)
    b[...] = a
    return b


LAYOUTS = {
    "C": np.ascontiguousarray,
    "F": np.asfortranarray,
    "transposed": _transposed,
    "interleaved": _reversed_axes,
    "strided": _strided,
    "readonly": _readonly,
    "misaligned": _misaligned,
}


def result_dtype(dtype: np.dtype) -> np.dtype:
    """The dtype a norm returns, by the rule users are told."""
    if dtype in FLOATS:
        return dtype
    return np.dtype(np.float32 if np.dtype(dtype).itemsize < 4 else np.float64)


@lru_cache(maxsize=64)
def _drawn(case: Case, dtype: np.dtype, seed: int) -> Data:
    rng = np.random.default_rng([seed, *case.shape])
    x = rng.normal(3.0, 2.0, case.shape)
    if dtype.kind in "iu":
        low, high = (0, 255) if dtype == np.uint8 else (-128, 127) if dtype == np.int8 else (0, 999)
        x = np.clip(np.rint(20 * x + 40), low, high)
    result = result_dtype(dtype)
    parameter = result if result.itemsize > 2 else np.dtype(np.float32)
    vectors = rng.normal(size=(3, *case.parameter_shape)), rng.uniform(2, 6, case.parameter_shape)
    gamma, beta, mean = vectors[0].astype(parameter)
    dy = rng.normal(size=case.shape).astype(result)
    return Data(x.astype(dtype), dy, gamma, beta, mean + 3, vectors[1].astype(parameter))


def data(case: Case, dtype: Any = np.float64, layout: str = "C", seed: int = 0) -> Data:
    """Return the arrays of a case; x and dy in ``layout``, and the caller's to change."""
    d = _drawn(case, np.dtype(dtype), seed)
    return d._replace(x=LAYOUTS[layout](d.x.copy()), dy=LAYOUTS[layout](d.dy.copy()))


def some_mask(case: Case, seed: int = 0) -> np.ndarray:
    """Return a mask that leaves about two thirds, and the whole first sample."""
    mask = np.random.default_rng(seed).random(case.shape) < 0.65
    mask[0] = True
    return mask


def forward(case: Case, d: Data, **options: Any) -> Any:
    """Call the public forward of a case."""
    options = {"eps": EPS, **case.options, **options}
    if case.norm == "rms":
        return nbn.rms_norm(d.x, d.gamma, **options)
    if case.norm == "group":
        return nbn.group_norm(d.x, case.groups, d.gamma, d.beta, **options)
    if case.norm == "frozen":
        return nbn.batch_norm(d.x, d.gamma, d.beta, mean=d.mean, var=d.var, **options)
    return getattr(nbn, f"{case.norm}_norm")(d.x, d.gamma, d.beta, **options)


def backward(case: Case, d: Data, **options: Any) -> nbn.Gradients:
    """Call the public backward of a case; batch norm's with the statistics of its forward."""
    options = {"eps": EPS, **case.options, **options}
    if case.norm == "group":
        return nbn.group_norm_backward(d.dy, d.x, case.groups, d.gamma, **options)
    if case.norm == "frozen":
        options.update(mean=d.mean, var=d.var)
    if case.norm == "batch":
        where = options.get("where")
        options["stats"] = nbn.batch_norm_train(d.x, where=where, **case.options)[1]
    norm = "batch" if case.norm == "frozen" else case.norm
    return getattr(nbn, f"{norm}_norm_backward")(d.dy, d.x, d.gamma, **options)
