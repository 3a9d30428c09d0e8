"""Sixteen float64 at a time, as a value in Numba code.

Every operation is spelled out, so the order of a sum is that of the source: the same bits in the
serial and the parallel twin, at any vector width, on any CPU. With ``memory`` and ``halves`` these
are the files that speak LLVM.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import extending
from numba.core import cgutils, types
from numba.extending import models, register_model

from numba_bn._kernels.cpu.halves import WIDTH, wide

intrinsic: Any = extending.intrinsic

_I1, _I32, _I64 = (ir.IntType(n) for n in (1, 32, 64))
_F64 = ir.DoubleType()


class Lanes(types.Type):
    """Sixteen float64."""

    def __init__(self) -> None:
        super().__init__(name=f"Lanes({WIDTH})")


class Mask(types.Type):
    """Sixteen truth values."""

    def __init__(self) -> None:
        super().__init__(name=f"Mask({WIDTH})")


@register_model(Lanes)
class _LanesModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, dmm: Any, fe_type: Any) -> None:
        super().__init__(dmm, fe_type, wide(_F64))


@register_model(Mask)
class _MaskModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, dmm: Any, fe_type: Any) -> None:
        super().__init__(dmm, fe_type, wide(_I1))


lanes, mask = Lanes(), Mask()


def call(builder: Any, name: str, result: ir.Type, *args: Any) -> Any:
    """Call an LLVM intrinsic."""
    kind = ir.FunctionType(result, [a.type for a in args])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), args)


def splat(builder: Any, value: Any) -> Any:
    kind = wide(value.type)
    one = builder.insert_element(ir.Constant(kind, ir.Undefined), value, _I32(0))
    return builder.shuffle_vector(one, one, ir.Constant(wide(_I32), [0] * WIDTH))


@intrinsic
def fill(typingctx: Any, value: Any) -> Any:
    """Return a number in every lane."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return splat(builder, args[0])

    return lanes(types.float64), codegen


@intrinsic
def head(typingctx: Any, count: Any) -> Any:
    """Return a mask that is set in the first ``count`` lanes."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        places = ir.Constant(wide(_I64), list(range(WIDTH)))
        return builder.icmp_signed("<", places, splat(builder, args[0]))

    return mask(types.int64), codegen


@intrinsic
def remainder(typingctx: Any, value: Any, quotient: Any, divisor: Any) -> Any:
    """Return value - quotient · divisor, rounded once."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return call(builder, "llvm.fma.f64", _F64, builder.fneg(args[1]), args[2], args[0])

    return types.float64(types.float64, types.float64, types.float64), codegen


@intrinsic
def select(typingctx: Any, where: Any, a: Any, b: Any) -> Any:
    """Return a where the mask is set, else b."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.select(*args)

    return lanes(mask, lanes, lanes), codegen


@intrinsic
def total(typingctx: Any, v: Any) -> Any:
    """Return the sum over the lanes, halves first."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        (v,), width = args, WIDTH
        while width > 1:
            width //= 2
            low, high = (
                ir.Constant(ir.VectorType(_I32, width), list(range(start, start + width)))
                for start in (0, width)
            )
            v = builder.fadd(builder.shuffle_vector(v, v, low), builder.shuffle_vector(v, v, high))
        return builder.extract_element(v, _I32(0))

    return types.float64(lanes), codegen


@intrinsic
def how_many(typingctx: Any, where: Any) -> Any:
    """Return in how many lanes the mask is set."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        bits = builder.bitcast(args[0], ir.IntType(WIDTH))
        return builder.zext(call(builder, f"llvm.ctpop.i{WIDTH}", bits.type, bits), _I64)

    return types.int64(mask), codegen


@intrinsic
def finite(typingctx: Any, v: Any) -> Any:
    """Return a mask that is set where the value is neither NaN nor infinite."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        size = call(builder, f"llvm.fabs.v{WIDTH}f64", args[0].type, args[0])
        return builder.fcmp_ordered("<", size, splat(builder, _F64(float("inf"))))

    return mask(lanes), codegen


@intrinsic
def relu(typingctx: Any, v: Any) -> Any:
    """Return v, and 0 where it is negative; NaN stays."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        zeros = ir.Constant(wide(_F64), None)
        return builder.select(builder.fcmp_ordered("<", args[0], zeros), zeros, args[0])

    return lanes(lanes), codegen


@intrinsic
def positive(typingctx: Any, v: Any) -> Any:
    """Return a mask that is set where v is above 0, or NaN."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.fcmp_unordered(">", args[0], ir.Constant(wide(_F64), None))

    return mask(lanes), codegen


def _operation(kind: Any, count: int, build: Callable[..., Any], doc: str) -> Any:
    """Make an intrinsic of values of one kind."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return build(builder, *args)

    if count == 2:

        def typing(typingctx: Any, a: Any, b: Any) -> Any:
            return kind(kind, kind), codegen
    else:

        def typing(typingctx: Any, a: Any, b: Any, c: Any) -> Any:  # type: ignore[misc]
            return kind(kind, kind, kind), codegen

    typing.__doc__ = doc
    return intrinsic(typing)


add = _operation(lanes, 2, lambda builder, a, b: builder.fadd(a, b), "Return a + b.")
sub = _operation(lanes, 2, lambda builder, a, b: builder.fsub(a, b), "Return a - b.")
mul = _operation(lanes, 2, lambda builder, a, b: builder.fmul(a, b), "Return a · b.")
both = _operation(mask, 2, lambda builder, a, b: builder.and_(a, b), "Return a and b.")
either = _operation(mask, 2, lambda builder, a, b: builder.or_(a, b), "Return a or b.")
fma = _operation(
    lanes,
    3,
    lambda builder, a, b, c: call(builder, f"llvm.fma.v{WIDTH}f64", a.type, a, b, c),
    "Return a · b + c, rounded once.",
)
