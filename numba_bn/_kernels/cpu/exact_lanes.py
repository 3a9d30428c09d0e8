"""Lanes for exact sums: sizes of floats as their bits, whole numbers of 64 bits.

Without their sign, floats are ordered as their bits are: bits are compared, sixteen at a time, in
words as wide as the floats.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import models, register_model

from numba_bn._kernels.cpu.elements import element_of
from numba_bn._kernels.cpu.halves import WIDTH, wide
from numba_bn._kernels.cpu.lanes import call, intrinsic, lanes, mask, splat
from numba_bn._kernels.cpu.memory import address_of, read

_I64, _F64 = ir.IntType(64), ir.DoubleType()


class Bits(types.Type):
    """Sixteen floats' bits without their signs."""

    def __init__(self, width: int) -> None:
        super().__init__(name=f"Bits({WIDTH}, {width})")
        self.element = ir.IntType(width)


@register_model(Bits)
class _BitsModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, dmm: Any, fe_type: Any) -> None:
        super().__init__(dmm, fe_type, wide(fe_type.element))


_BITS = {width: Bits(width) for width in (16, 32, 64)}


def _bits_of(array: types.Array) -> Bits:
    """Return the kind of bits an array of floats has."""
    element = element_of(array)[1]
    return _BITS[{ir.FloatType(): 32, _F64: 64}.get(element) or element.width]


def _constant(kind: Bits, value: int) -> ir.Constant:
    return ir.Constant(wide(kind.element), [value] * WIDTH)


def _sizes(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    """Load floats' bits without their signs."""
    kind = sig.return_type
    v = builder.bitcast(read(context, builder, sig, args), wide(kind.element))
    return builder.and_(v, _constant(kind, (1 << (kind.element.width - 1)) - 1))


@intrinsic
def sizes(typingctx: Any, array: Any, index: Any) -> Any:
    """|array[index : index + 16]| as bits."""
    return _bits_of(array)(array, types.int64), _sizes


@intrinsic
def sizes_if(typingctx: Any, array: Any, index: Any, where: Any) -> Any:
    """|array[index : index + 16]| as bits, 0 where the mask is not set: nothing is read there."""
    return _bits_of(array)(array, types.int64, mask), _sizes


@intrinsic
def bounds_at(typingctx: Any, array: Any, bounds: Any, index: Any) -> Any:
    """bounds[index : index + 16] of int64 as bits of the kind that an array of floats has."""
    kind = _bits_of(array)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        at = address_of(context, builder, sig.args[1], args[1], args[2])
        v = builder.load(at, align=8)
        return v if kind.element == _I64 else builder.trunc(v, wide(kind.element))

    return kind(array, bounds, types.int64), codegen


@intrinsic
def put_bits(typingctx: Any, bounds: Any, index: Any, v: Any) -> Any:
    """bounds[index : index + 16] = bits, as int64."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        at = address_of(context, builder, sig.args[0], args[0], args[1])
        v = args[2] if args[2].type.element == _I64 else builder.zext(args[2], wide(_I64))
        builder.store(v, at, align=8)
        return context.get_dummy_value()

    return types.void(bounds, types.int64, v), codegen


def _extreme(name: str, a: Any, b: Any, less: int) -> Any:
    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        kind, width = sig.return_type, sig.return_type.element.width
        v = builder.sub(args[1], _constant(kind, less)) if less else args[1]
        return call(builder, f"llvm.{name}.v{WIDTH}i{width}", v.type, args[0], v)

    return a(a, b), codegen


@intrinsic
def largest(typingctx: Any, so_far: Any, v: Any) -> Any:
    """Return the larger bits."""
    return _extreme("umax", so_far, v, 0)


@intrinsic
def least(typingctx: Any, so_far: Any, v: Any) -> Any:
    """Return the smaller of bits and of v - 1, which is the largest there is where v is 0."""
    return _extreme("umin", so_far, v, 1)


@intrinsic
def same_bits(typingctx: Any, array: Any, value: Any) -> Any:
    """Return a number's last bits in every lane, of the kind that an array of floats has."""
    kind = _bits_of(array)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        v = args[1] if kind.element == _I64 else builder.trunc(args[1], kind.element)
        return splat(builder, v)

    return kind(array, types.int64), codegen


@intrinsic
def within(typingctx: Any, v: Any, low: Any, high: Any) -> Any:
    """Return a mask that is set where low <= v < high; low must not be above high."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        v, low, high = args
        return builder.icmp_unsigned("<", builder.sub(v, low), builder.sub(high, low))

    return mask(v, v, v), codegen


@intrinsic
def all_within(typingctx: Any, least: Any, largest: Any, low: Any, high: Any) -> Any:
    """Tell whether low - 1 <= least and largest < high, in all lanes."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        least, largest, low, high = args
        low = builder.sub(low, _constant(sig.args[2], 1))
        fit = builder.and_(
            builder.icmp_unsigned(">=", least, low), builder.icmp_unsigned("<", largest, high)
        )
        whole = ir.IntType(WIDTH)
        return builder.icmp_unsigned("==", builder.bitcast(fit, whole), whole((1 << WIDTH) - 1))

    return types.boolean(least, least, least, least), codegen


@intrinsic
def add_whole(typingctx: Any, sums: Any, index: Any, v: Any) -> Any:
    """sums[index : index + 16] += lanes that hold whole numbers; sums are int64."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        at = address_of(context, builder, sig.args[0], args[0], args[1])
        whole = builder.fptosi(args[2], wide(_I64))
        builder.store(builder.add(builder.load(at, align=8), whole), at, align=8)
        return context.get_dummy_value()

    return types.void(sums, types.int64, lanes), codegen


@intrinsic
def take_whole(typingctx: Any, sums: Any, index: Any) -> Any:
    """Return the total of sums[index : index + 16], which become 0; sums are int64."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        at = address_of(context, builder, sig.args[0], *args)
        v = builder.load(at, align=8)
        builder.store(ir.Constant(v.type, None), at, align=8)
        return call(builder, f"llvm.vector.reduce.add.v{WIDTH}i64", _I64, v)

    return types.int64(sums, types.int64), codegen


def _part(upper: bool, doc: str) -> Any:
    """Make an intrinsic that loads a part of 64-bit numbers."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        v = read(context, builder, sig, args[:3])
        if isinstance(sig.args[0].dtype, types.Float):
            v = builder.fmul(v, args[3])
            # adding so much leaves multiples of 2^-47
            shift = ir.Constant(v.type, [1.5 * 2.0**5] * WIDTH)
            high = builder.fsub(builder.fadd(v, shift), shift)
            return high if upper else builder.fsub(v, high)
        rest = (1 << 17) - 1
        v = builder.and_(v, _constant(_BITS[64], ~rest if upper else rest))
        convert = builder.sitofp if sig.args[0].dtype.signed else builder.uitofp
        return builder.fmul(convert(v, wide(_F64)), args[3])

    def typing(typingctx: Any, array: Any, index: Any, where: Any, scale: Any) -> Any:
        return lanes(array, types.int64, mask, lanes), codegen

    typing.__doc__ = doc
    return intrinsic(typing)


upper_if = _part(True, "array[index : index + 16] · scale as multiples of 2^-47, 0 if not where.")
lower_if = _part(False, "What upper_if leaves.")
