"""Arrays and options of every sort, right and wrong, out of a row of small choices. No tests.

Hypothesis makes the choices in `test_fuzz`, bytes make them in `fuzz/run.py`; zero is always the
plainest choice.
"""

import datetime
import decimal
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import ml_dtypes
import numpy as np
from hypothesis import strategies as st
from table import LAYOUTS

Array = np.ndarray


class Choices:
    """Choices between n things, each of which ``below(n)`` makes."""

    def __init__(
        self, below: Callable[[int], int], dtypes: Sequence[Any], mixed: bool = False
    ) -> None:
        self.below = below
        self.dtypes = [np.dtype(t) for t in dtypes]
        self.mixed = mixed
        """Whether arrays of a call are of unlike dtypes, which compiles more kernels."""

    def pick(self, options: Sequence[Any]) -> Any:
        return options[self.below(len(options))]

    def one_in(self, n: int) -> bool:
        return self.below(n) == n - 1


def from_bytes(data: bytes, dtypes: Sequence[Any]) -> Choices:
    """Make choices byte by byte; all zero once there are no more."""
    rest = iter(data)
    return Choices(lambda n: next(rest, 0) % n, dtypes)


@st.composite
def drawn(draw: Any, dtypes: Sequence[Any], mixed: bool = False) -> Choices:
    """Let Hypothesis make the choices, as they are asked for."""
    data = draw(st.data())
    return Choices(lambda n: data.draw(st.integers(0, n - 1)), dtypes, mixed)


# ---- values ----


def values(choose: Choices, shape: tuple[int, ...], dtype: Any = None) -> Array:
    """Return an array with a C memory order: some ordinary values, or some of the hard ones."""
    dtype = np.dtype(dtype or choose.pick(choose.dtypes))
    rng = np.random.default_rng(choose.below(8))
    kind = choose.pick(["normal", "large mean", "constant", "huge", "tiny", "special"])
    normal = rng.normal(size=shape)
    if dtype.kind in "iu":
        low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
        if kind in ("huge", "special"):
            return rng.choice(np.array([low, 0, high], dtype), shape)
        return np.clip(np.rint(20 * normal + 40), max(low, -128), min(high, 127)).astype(dtype)
    if kind == "large mean":
        return (normal + 1000).astype(dtype)
    if kind == "constant":
        return np.full(shape, choose.pick([0.0, 0.1, -3e4]), dtype)
    if kind in ("huge", "tiny"):
        return (normal.clip(-3, 3) * _scale(dtype, kind)).astype(dtype)
    if kind == "special":
        some = rng.random(shape) < 0.1
        normal[some] = choose.pick([np.nan, np.inf, -np.inf, -0.0])
    return normal.astype(dtype)


def _scale(dtype: np.dtype, kind: str) -> float:
    """Nearly the largest values, or numbers below the normal ones.

    But products of four, such as x²·dy·gamma, must fit float64.
    """
    info = ml_dtypes.finfo(dtype)
    if kind == "huge":
        return min(float(info.max) / 4, 1e70)
    return max(float(info.smallest_subnormal) * 4, 1e-70)


# ---- kinds of arrays that are taken ----


def _memmap(a: Array) -> Array:
    with tempfile.TemporaryFile() as file:
        file.write(a.tobytes() or b"\0" * 8)
        file.flush()
        return np.memmap(file, a.dtype, "r", shape=a.shape)


def _broadcast(a: Array) -> Array:
    return np.broadcast_to(a[:1], a.shape) if a.ndim else a


def _reversed(a: Array) -> Array:
    return a[(slice(None, None, -1),) * a.ndim]


TAKEN = {
    **{name: make for name, make in LAYOUTS.items() if name not in ("transposed", "strided")},
    "strided": lambda a: np.repeat(a, 2, axis=-1)[..., ::2] if a.ndim else a,
    "swapped": lambda a: a if a.dtype.kind == "V" else a.astype(a.dtype.newbyteorder()),
    "broadcast": _broadcast,
    "reversed": _reversed,
    "memmap": _memmap,
    "list": lambda a: a.tolist() if a.size and a.dtype.kind != "V" else a,
    "tuple": lambda a: tuple(a.tolist()) if a.size and a.ndim and a.dtype.kind != "V" else a,
}


def taken(choose: Choices, a: Array) -> Any:
    """Return an array as one of the kinds that are taken, of nearly the same values."""
    return TAKEN[choose.pick(list(TAKEN))](a)


# ---- and those that are not ----


class Subclass(np.ndarray):
    """An array that might mean something else."""


class Stranger:
    """An array of some other library."""

    def __init__(self, a: Array) -> None:
        self.shape, self.dtype, self._a = a.shape, a.dtype, a

    def __array__(self, *_: Any, **__: Any) -> Array:
        raise AssertionError("a stranger was converted")


REFUSED: dict[str, Callable[[Array], Any]] = {
    "shorter": lambda a: a[1:] if a.ndim else a[None],
    "deeper": lambda a: a[None],
    "empty": lambda a: a[:0] if a.size else np.zeros((1, *a.shape)),
    "no axis": lambda a: np.float32(1) if a.ndim else a[None],
    "masked": np.ma.masked_array,
    "matrix": lambda a: np.ones((2, 2)).view(np.matrix),
    "subclass": lambda a: a.view(Subclass),
    "record": lambda a: np.zeros(a.shape, "f4,f4"),
    "recarray": lambda a: np.zeros(a.shape, "f4,f4").view(np.recarray),
    "stranger": Stranger,
    "object": lambda a: np.full(a.shape, None),
    "string": lambda a: np.full(a.shape, "1"),
    "strings": lambda a: np.full(a.shape, "1", np.dtypes.StringDType()),
    "bytes": lambda a: np.full(a.shape, b"1"),
    "complex": lambda a: np.ones(a.shape, complex),
    "long": lambda a: np.ones(a.shape, np.longdouble),
    "swapped long": lambda a: np.ones(a.shape, np.dtype(np.longdouble).newbyteorder()),
    "bool": lambda a: np.ones(a.shape, bool),
    "date": lambda a: np.zeros(a.shape, "M8[s]"),
    "span": lambda a: np.zeros(a.shape, "m8[s]"),
    "float8": lambda a: np.zeros(a.shape, ml_dtypes.float8_e5m2),
    "int4": lambda a: np.zeros(a.shape, ml_dtypes.int4),
    "ragged": lambda a: [[1.0], [1.0, 2.0]],
    "big integers": lambda a: [10**400, 1.0],
    "list of strangers": lambda a: [Stranger(a)],
    "list of itself": lambda a: (b := [], b.append(b), b)[-1],
    "text": lambda a: "1 2 3",
    "set": lambda a: {1.0},
    "dict": lambda a: {0: 1.0},
    "range": lambda a: range(3),
    "iterator": lambda a: iter([1.0]),
    "buffer": lambda a: bytearray(8),
    "class": lambda a: np.ndarray,
    "complex number": lambda a: 1j,
    "truth": lambda a: True,
}

# ---- options ----

EPSILONS = [1e-5, 0.0, 1, np.float32(1e-3), np.int8(1), 1e-30, 1e30]
BAD_EPSILONS = [
    *(-1.0, -5e-324, np.nan, np.inf, -np.inf, np.float16(np.nan), 10**400, -(10**400)),
    *(None, True, np.True_, "1e-5", b"1", 1j, np.complex64(1), [1e-5], np.array(1e-5), ()),
    *(decimal.Decimal("1e-5"), datetime.timedelta(1), np.datetime64(1, "s"), object(), float),
]
BAD_INTEGERS = [
    *(7, -7, 10**30, 1.0, np.float64(1), np.nan, "1", None, True, np.False_, 1j),
    *(b"", [], (), {1}, (1, 1), (1, 1.0), ((1,),), ("1",), (None,), (True,), (0, -1, 9)),
    *(np.array([1, 2]), np.array(1.5), np.array([]), range(2), slice(1), Ellipsis, int),
]
BAD_NAMES = [
    *("tanh", "RELU", "", b"relu", 0, 1, True, [], ["relu"], ("relu",), {"relu": 1}, 1.5),
    *(np.array(["relu", "raise"]), np.array("relu"), np.ones(3), np.maximum, object(), None),
]
BAD_STATISTICS = [(1.0, 2.0), np.ones((3, 2)), "stats", 3, {"count": 1}, object(), []]
