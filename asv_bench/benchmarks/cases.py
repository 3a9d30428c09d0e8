"""The shapes that are measured, by asv and by peers.py."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import ml_dtypes
import numpy as np

Shape = tuple[int, ...]


class Case(NamedTuple):
    """An array to normalize, written as "32x64x56x56 first float32"."""

    shape: Shape
    """Samples, channels, and what else there is, whatever the order in memory."""
    layout: str = "first"
    """Where the channels are in memory: "first" (after the samples) or "last"."""
    dtype: str = "float32"

    def __str__(self) -> str:
        return f"{'x'.join(map(str, self.shape))} {self.layout} {self.dtype}"

    @classmethod
    def parse(cls, text: str) -> Case:
        """Read what `str` writes."""
        shape, layout, dtype = text.split()
        return cls(tuple(map(int, shape.split("x"))), layout, dtype)

    @property
    def channels(self) -> int:
        return self.shape[1]

    @property
    def groups(self) -> int:
        """The groups of its group norm."""
        return math.gcd(32, self.channels)

    @property
    def axis(self) -> int:
        """The channels' axis of the stored array."""
        return 1 if self.layout == "first" else -1

    @property
    def stored(self) -> Shape:
        """The shape of the array as it lies in memory."""
        if self.layout == "first":
            return self.shape
        return (self.shape[0], *self.shape[2:], self.channels)

    @property
    def numpy_dtype(self) -> np.dtype:
        return np.dtype(ml_dtypes.bfloat16 if self.dtype == "bfloat16" else self.dtype)

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.numpy_dtype.itemsize

    @property
    def channel_bytes(self) -> int:
        return self.nbytes // self.channels


def _resnet(batch: int, planes: list[tuple[int, int]]) -> list[Shape]:
    return [(batch, channels, side, side) for channels, side in planes]


_RESNET = [
    (64, 112),
    (64, 56),
    (256, 56),
    (128, 28),
    (512, 28),
    (256, 14),
    (1024, 14),
    (512, 7),
    (2048, 7),
]
_ODD = [(256, 1, 31, 33), (256, 37, 31, 33), (256, 3, 7, 7), (256, 63, 7, 7)]
_VOLUMES = [(2, 32, 64, 64, 64)]
_LARGE = [(64, 64, 112, 112), (128, 512, 28, 28), (8, 4, 1024, 1024)]

SCIKIT_SHAPE = (1_000_000, 30)
"""The table that scikit-learn's StandardScaler and NumPy standardize too."""

_TABLES = [(256, 512), (65536, 64), SCIKIT_SHAPE, (2_000_000, 30)]
_ROWS = [(8192, 1024), (65536, 1024)]
SMALL = [Case(shape) for shape in ((32, 64), (64, 128), (8, 16, 100))]
"""Calls whose time is that of the call, not of the data."""

DTYPES = ("float16", "bfloat16", "uint8")


def _both(shapes: Sequence[Shape], dtype: str = "float32") -> list[Case]:
    return [Case(shape, layout, dtype) for shape in shapes for layout in ("first", "last")]


PEERS = [
    *SMALL,
    *_both(_resnet(32, _RESNET)),
    *map(Case, _TABLES),
    *_both([(16, 3, 512, 512)]),
    *_both([(16, 3, 512, 512)], "uint8"),
    *_both([(1, 8, 4096, 4096)], "uint16"),
    *_both(_VOLUMES),
    *map(Case, _ROWS),
    *_both(_ODD),
    *_both(_LARGE),
    *(case for dtype in DTYPES for case in _both([(32, 64, 56, 56)], dtype)),
    *(Case((65536, 64), "first", dtype) for dtype in DTYPES),
]
"""What peers.py measures."""

SCALED = [
    *_both([(32, 64, 56, 56), (64, 64, 112, 112)]),
    Case((65536, 64)),
    Case((8192, 1024)),
]
"""Those of them that one thread is timed on too: one of each kind, large enough for two to pay."""

CURVES = [
    Case((64, 64, 112, 112)),
    *_both([(32, 64, 56, 56)]),
    Case((32, 64, 56, 56), "first", "bfloat16"),
    Case((32, 2048, 7, 7)),
    Case((16, 3, 512, 512), "last", "uint8"),
    Case((65536, 64)),
    Case((8192, 1024)),
]
"""What asv follows from commit to commit: one of each kind."""

RATIOS = [Case((32, 64, 56, 56)), Case((32, 64, 56, 56), "last"), Case((8192, 1024))]
"""Those of them whose ratios are followed too."""
