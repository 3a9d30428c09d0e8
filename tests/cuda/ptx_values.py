"""The types of PTX as NumPy knows them, and its arithmetic. No tests."""

from collections.abc import Callable

import numpy as np
from ptx_program import PtxError

Array = np.ndarray
NUMPY = {
    f"{kind}{size}": np.dtype(f"{letter}{size // 8}")
    for size in (8, 16, 32, 64)
    for kind, letter in zip("bus", "uui", strict=True)
}
NUMPY |= {f"f{size}": np.dtype(f"f{size // 8}") for size in (16, 32, 64)}
RAW = {size: np.dtype(f"u{size}") for size in (1, 2, 4, 8)}
_WIDER = {"s32": "s64", "u32": "u64", "s16": "s32", "u16": "u32"}
_UNSIGNED = {"lo": "lt", "ls": "le", "hi": "gt", "hs": "ge"}
_COMPARE = {
    "eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal, "gt": np.greater,
    "ge": np.greater_equal,
}  # fmt: skip


def size_of(kind: str) -> int:
    """Return the bytes of a type."""
    return NUMPY[kind].itemsize


def quotient(a: Array, b: Array) -> Array:
    """Divide integers towards zero."""
    if a.dtype.kind == "u":
        return a // np.maximum(b, 1)
    q = np.abs(a) // np.maximum(np.abs(b), 1)
    return np.where((a < 0) != (b < 0), -q, q)


def _multiply(name: tuple[str, ...], a: Array, b: Array) -> Array:
    if "hi" not in name:
        return a * b
    if a.dtype.itemsize == 4:
        wide = np.int64 if a.dtype.kind == "i" else np.uint64
        return (a.astype(wide) * b.astype(wide) >> 32).astype(a.dtype)
    product = a.astype(object) * b.astype(object)
    return np.array([int(p) >> 64 for p in product], object).astype(a.dtype)


def _fused(a: Array, b: Array, c: Array) -> Array:
    """a·b + c, rounded once (of float64: nearly so)."""
    if a.dtype.kind != "f":
        return a * b + c
    wide = np.float64 if a.dtype == np.float32 else np.longdouble
    return a.astype(wide) * b.astype(wide) + c.astype(wide)


BINARY: dict[str, Callable[[Array, Array], Array]] = {
    "add": np.add, "sub": np.subtract, "and": np.bitwise_and, "or": np.bitwise_or,
    "xor": np.bitwise_xor,
}  # fmt: skip


def binary(name: tuple[str, ...], a: Array, b: Array) -> Array:
    """Compute an instruction of two operands of one type."""
    op, real = name[0], a.dtype.kind == "f"
    if op in BINARY:
        return BINARY[op](a, b)
    if op == "mul":
        return _multiply(name, a, b)
    if op == "div":
        return a / b if real else quotient(a, b)
    if op == "rem":
        return a - quotient(a, b) * b
    if op == "min":
        return np.fmin(a, b) if real else np.minimum(a, b)
    if op == "max":
        return np.fmax(a, b) if real else np.maximum(a, b)
    raise PtxError(f"unknown instruction {'.'.join(name)}")


def ternary(name: tuple[str, ...], a: Array, b: Array, c: Array) -> Array:
    """Compute fma or mad."""
    return _fused(a, b, c)


def unary(op: str, a: Array) -> Array:
    """Compute an instruction of one operand."""
    one = a.dtype.type(1)
    if op == "neg":
        return -a if a.dtype.kind == "f" else ~a + one
    if op == "abs":
        return np.abs(a)
    if op == "not":
        return ~a
    if op == "sqrt":
        return np.sqrt(a)
    return one / (a if op == "rcp" else np.sqrt(a))  # else rsqrt


def widened(name: tuple[str, ...]) -> str | None:
    """Return the type of the result of mul.wide and mad.wide."""
    return _WIDER[name[-1]] if "wide" in name else None


def compare(name: tuple[str, ...], a: Array, b: Array) -> Array:
    """Compute setp; NaN is ordered only where the comparison's name ends in u."""
    op, nan = name[1], np.zeros(a.shape, bool)
    if a.dtype.kind == "f":
        nan = np.isnan(a) | np.isnan(b)
    if op in ("nan", "num"):
        return nan if op == "nan" else ~nan
    unordered = len(op) == 3
    result = _COMPARE[_UNSIGNED.get(op, op[:2])](a, b)
    return result | nan if unordered else result & ~nan if name[-1][0] == "f" else result


def shifted(op: str, a: Array, by: Array) -> Array:
    """Compute shl and shr; what is shifted by too much is gone."""
    bits = 8 * a.dtype.itemsize
    near = np.minimum(by, bits - 1).astype(a.dtype)
    result = np.left_shift(a, near) if op == "shl" else np.right_shift(a, near)
    gone = (by >= bits) & ((op == "shl") | (a.dtype.kind == "u"))
    return np.where(gone, np.zeros_like(result), result)


def inserted(a: Array, b: Array, at: Array, length: Array) -> Array:
    """Compute bfi: the low bits of a into b."""
    one = a.dtype.type(1)
    mask = ((one << length.astype(a.dtype)) - one) << at.astype(a.dtype)
    return (b & ~mask) | ((a << at.astype(a.dtype)) & mask)


def to_bfloat16(a: Array) -> Array:
    """Return the bits of bfloat16."""
    import ml_dtypes  # on a machine with a device, which interprets nothing, there may be none

    return a.astype(ml_dtypes.bfloat16).view(np.uint16)


def converted(name: tuple[str, ...], a: Array) -> Array:
    """Compute cvt."""
    to = name[-2]
    if to == "bf16":
        return to_bfloat16(a)
    if a.dtype.kind == "f" and to[0] != "f":
        rounding = {"rni": np.rint, "rmi": np.floor, "rpi": np.ceil}
        a = next((rounding[part] for part in name if part in rounding), np.trunc)(a)
    return a.astype(NUMPY[to])
