"""Sixteen numbers at a time, as a value in Numba code: float64 to sum in, float32 to write short y.

Every operation is spelled out, so the order of a sum is that of the source: the same bits in the
serial and the parallel twin, at any vector width, on any CPU. With ``memory``, ``totals`` and
``halves`` these are the files that speak LLVM.
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
_F32, _F64 = ir.FloatType(), ir.DoubleType()


class Lanes(types.Type):
    """Sixteen numbers of one type."""

    def __init__(self, name: str, element: ir.Type) -> None:
        super().__init__(name=f"Lanes({WIDTH}, {name})")
        self.element = element


class Mask(types.Type):
    """Sixteen truth values."""

    def __init__(self) -> None:
        super().__init__(name=f"Mask({WIDTH})")


@register_model(Lanes)
class _LanesModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, dmm: Any, fe_type: Any) -> None:
        super().__init__(dmm, fe_type, wide(fe_type.element))


@register_model(Mask)
class _MaskModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, dmm: Any, fe_type: Any) -> None:
        super().__init__(dmm, fe_type, wide(_I1))


lanes, singles, mask = Lanes("float64", _F64), Lanes("float32", _F32), Mask()


def call(builder: Any, name: str, result: ir.Type, *args: Any) -> Any:
    """Call an LLVM intrinsic."""
    kind = ir.FunctionType(result, [a.type for a in args])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), args)


def splat(builder: Any, value: Any) -> Any:
    kind = wide(value.type)
    one = builder.insert_element(ir.Constant(kind, ir.Undefined), value, _I32(0))
    return builder.shuffle_vector(one, one, ir.Constant(wide(_I32), [0] * WIDTH))


def suited(builder: Any, v: Any, kind: Lanes) -> Any:
    """Return lanes as lanes of a kind, rounded if that is the shorter."""
    if v.type.element == kind.element:
        return v
    return (builder.fptrunc if kind is singles else builder.fpext)(v, wide(kind.element))


@intrinsic
def fill(typingctx: Any, value: Any) -> Any:
    """Return a number in every lane."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return splat(builder, args[0])

    return lanes(types.float64), codegen


@intrinsic
def fill_as(typingctx: Any, like: Any, value: Any) -> Any:
    """Return a number in every lane, of the kind of the lanes ``like``."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        value = args[1] if like is lanes else builder.fptrunc(args[1], _F32)
        return splat(builder, value)

    return like(like, types.float64), codegen


@intrinsic
def widened(typingctx: Any, v: Any) -> Any:
    """Return lanes as float64."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return suited(builder, args[0], lanes)

    return lanes(v), codegen


@intrinsic
def suit(typingctx: Any, v: Any, like: Any) -> Any:
    """Return lanes as lanes of the kind of ``like``, rounded if that is the shorter."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return suited(builder, args[0], like)

    return like(v, like), codegen


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
def outside(typingctx: Any, where: Any) -> Any:
    """Return a mask that is set where the other is not."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.not_(args[0])

    return mask(mask), codegen


@intrinsic
def select(typingctx: Any, where: Any, a: Any, b: Any) -> Any:
    """Return a where the mask is set, else b."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.select(*args)

    return a(mask, a, a), codegen


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
def set_bits(typingctx: Any, where: Any) -> Any:
    """Return a mask as a number, the first lane its lowest bit."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.zext(builder.bitcast(args[0], ir.IntType(WIDTH)), _I64)

    return types.int64(mask), codegen


@intrinsic
def at_most(typingctx: Any, a: Any, b: Any) -> Any:
    """Return a mask that is set where a is no more than b, and neither is NaN."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.fcmp_ordered("<=", *args)

    return mask(a, a), codegen


@intrinsic
def finite(typingctx: Any, v: Any) -> Any:
    """Return a mask that is set where the value is neither NaN nor infinite."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        size = _fabs(builder, args[0])
        return builder.fcmp_ordered("<", size, splat(builder, _F64(float("inf"))))

    return mask(lanes), codegen


@intrinsic
def relu(typingctx: Any, v: Any) -> Any:
    """Return v, and 0 where it is negative; NaN stays."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        zeros = ir.Constant(args[0].type, None)
        return builder.select(builder.fcmp_ordered("<", args[0], zeros), zeros, args[0])

    return v(v), codegen


@intrinsic
def positive(typingctx: Any, v: Any) -> Any:
    """Return a mask that is set where v is above 0, or NaN."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.fcmp_unordered(">", args[0], ir.Constant(wide(_F64), None))

    return mask(lanes), codegen


def _operation(count: int, build: Callable[..., Any], doc: str) -> Any:
    """Make an intrinsic of values of one kind."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return build(builder, *args)

    if count == 1:

        def typing(typingctx: Any, a: Any) -> Any:
            return a(a), codegen
    elif count == 2:

        def typing(typingctx: Any, a: Any, b: Any) -> Any:  # type: ignore[misc]
            return a(a, a), codegen
    else:

        def typing(typingctx: Any, a: Any, b: Any, c: Any) -> Any:  # type: ignore[misc]
            return a(a, a, a), codegen

    typing.__doc__ = doc
    return intrinsic(typing)


def _named(builder: Any, name: str, *args: Any) -> Any:
    bits = 64 if args[0].type.element == _F64 else 32
    return call(builder, f"llvm.{name}.v{WIDTH}f{bits}", args[0].type, *args)


def _fabs(builder: Any, v: Any) -> Any:
    return _named(builder, "fabs", v)


def _root(builder: Any, v: Any) -> Any:
    return _named(builder, "sqrt", v)


def _fma(builder: Any, a: Any, b: Any, c: Any) -> Any:
    return _named(builder, "fma", a, b, c)


add = _operation(2, lambda builder, a, b: builder.fadd(a, b), "Return a + b.")
sub = _operation(2, lambda builder, a, b: builder.fsub(a, b), "Return a - b.")
mul = _operation(2, lambda builder, a, b: builder.fmul(a, b), "Return a · b.")
div = _operation(2, lambda builder, a, b: builder.fdiv(a, b), "Return a / b.")
magnitude = _operation(1, _fabs, "Return |a|.")
root = _operation(1, _root, "Return √a.")
both = _operation(2, lambda builder, a, b: builder.and_(a, b), "Return a and b, of masks.")
either = _operation(2, lambda builder, a, b: builder.or_(a, b), "Return a or b, of masks.")
fma = _operation(3, _fma, "Return a · b + c, rounded once.")
