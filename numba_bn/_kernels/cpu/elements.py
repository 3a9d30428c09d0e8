"""An array's elements: how they are in memory, and how they become lanes and are rounded back.

float16 and bfloat16 have no CPU arithmetic in Numba: their arrays come as records of one field of
that name (``kernel_array``), so that an array says itself how to read it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import types

from numba_bn._kernels.cpu.halves import (
    WIDTH,
    half_to_single,
    shift,
    single_to_bfloat16,
    single_to_half,
    wide,
)
from numba_bn._kernels.cpu.lanes import call, lanes, singles, suited

_I8, _I16, _I32 = (ir.IntType(n) for n in (8, 16, 32))
_F16, _F32, _F64 = ir.HalfType(), ir.FloatType(), ir.DoubleType()
_HALVES = {name: np.dtype([(name, np.uint16)], align=True) for name in ("float16", "bfloat16")}


class _Alias:
    """Another name for an array's memory."""

    def __init__(self, array: np.ndarray[Any, Any]) -> None:
        self.array = array
        self.__array_interface__ = {
            **array.__array_interface__,
            "data": (array.__array_interface__["data"][0], False),
        }


def record_of(dtype: np.dtype[Any]) -> np.dtype[Any] | None:
    """Return the record that the elements of an array are to kernels; None if they are numbers."""
    if dtype.itemsize == 2 and dtype.kind in "fV":
        return _HALVES["float16" if dtype.kind == "f" else "bfloat16"]
    return None


def kernel_array(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return x flat, as the kernels take it: one type per dtype, read-only or not."""
    flat = x.reshape(-1)
    if (record := record_of(x.dtype)) is not None:
        flat = flat.view(record)
    # to Numba a read-only array is a type of its own: not worth compiling every kernel twice
    return flat if flat.flags.writeable else np.asarray(_Alias(flat))


def element_of(array: types.Array) -> tuple[str, ir.Type]:
    """Return how an array's elements are read, and their type in memory."""
    dtype: Any = array.dtype
    if isinstance(dtype, types.Record):
        (name,) = dtype.fields
        return name, _I16
    if isinstance(dtype, types.Float):
        return "float", _F32 if dtype.bitwidth == 32 else _F64
    if isinstance(dtype, types.Boolean):
        return "bool", _I8
    return ("signed" if dtype.signed else "unsigned"), ir.IntType(dtype.bitwidth)


def bits_of(array: types.Array) -> int:
    """Return how many bits a number needs to hold any element of an array exactly."""
    how, element = element_of(array)
    digits = {"float16": 11, "bfloat16": 8, "float": 24 if element == _F32 else 53}
    return digits.get(how) or int(element.width)


def _has_f16c(context: Any) -> bool:
    """Tell whether the CPU compiled for converts float16 itself."""
    return "+f16c" in context.codegen().magic_tuple()[2].split(",")


def widen(context: Any, builder: Any, how: str, v: Any, kind: Any) -> Any:
    """Elements as they are in memory → lanes of a kind."""
    if how == "signed":
        return builder.sitofp(v, wide(kind.element))
    if how == "unsigned":
        return builder.uitofp(v, wide(kind.element))
    if how == "bfloat16":
        v = builder.bitcast(shift(builder, "shl", builder.zext(v, wide(_I32)), 16), wide(_F32))
    elif how == "float16":
        if _has_f16c(context):
            v = builder.fpext(builder.bitcast(v, wide(_F16)), wide(_F32))
            # AVX512-FP16 would go on to float64 in the same step, which takes twice as long
            v = call(builder, f"llvm.arithmetic.fence.v{WIDTH}f32", v.type, v)
        else:
            v = half_to_single(builder, v)
    return suited(builder, v, kind)


def narrow(context: Any, builder: Any, how: str, element: ir.Type, v: Any) -> Any:
    """Lanes → elements as they are in memory, rounded to nearest even."""
    if element == _F64:
        return suited(builder, v, lanes)
    single = suited(builder, v, singles)
    if how == "float":
        return single
    if how == "float16" and _has_f16c(context):
        half = builder.fptrunc(single, wide(_F16))
    else:
        round_to = single_to_half if how == "float16" else single_to_bfloat16
        half = builder.trunc(round_to(builder, builder.bitcast(single, wide(_I32))), wide(_I16))
    # to convert and store in one instruction takes AMD twice as long, and goes through the caches
    bits = builder.bitcast(half, ir.VectorType(_F32, WIDTH // 2))
    bits = call(builder, f"llvm.arithmetic.fence.v{WIDTH // 2}f32", bits.type, bits)
    return builder.bitcast(bits, wide(_I16))


def bytes_of(element: ir.Type) -> int:
    """Return how many bytes an element takes."""
    return {_F32: 4, _F64: 8}.get(element) or int(element.width) // 8
