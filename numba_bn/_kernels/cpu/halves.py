"""float16 and bfloat16 by their bits, sixteen at a time: exact, for CPUs that lack the means."""

from __future__ import annotations

from typing import Any

from llvmlite import ir

WIDTH = 16
_F32, _I32 = ir.FloatType(), ir.IntType(32)


def wide(element: ir.Type) -> ir.VectorType:
    """Return the LLVM type of sixteen elements."""
    return ir.VectorType(element, WIDTH)


def _word(value: int) -> Any:
    return ir.Constant(wide(_I32), [value] * WIDTH)


def shift(builder: Any, direction: str, v: Any, bits: int) -> Any:
    return getattr(builder, direction)(v, _word(bits))


def half_to_single(builder: Any, v: Any) -> Any:
    """Bits of float16 → float32; LLVM's own way aborts the process on CPUs without F16C."""
    bits = builder.zext(v, wide(_I32))
    size = shift(builder, "shl", builder.and_(bits, _word(0x7FFF)), 13)
    rebias = ir.Constant(wide(_F32), [2.0**112] * WIDTH)
    finite = builder.bitcast(builder.fmul(builder.bitcast(size, wide(_F32)), rebias), wide(_I32))
    special = builder.icmp_unsigned(">=", size, _word(0x7C00 << 13))
    size = builder.select(special, builder.or_(size, _word(0x7F800000)), finite)
    sign = shift(builder, "shl", builder.and_(bits, _word(0x8000)), 16)
    return builder.bitcast(builder.or_(size, sign), wide(_F32))


def single_to_half(builder: Any, bits: Any) -> Any:
    """Bits of float32 → bits of float16, by three ranges: normal, subnormal, too large or NaN."""
    sign = builder.and_(shift(builder, "lshr", bits, 16), _word(0x8000))
    size = builder.and_(bits, _word(0x7FFFFFFF))
    odd = builder.and_(shift(builder, "lshr", size, 13), _word(1))
    normal = builder.add(builder.add(size, odd), _word(((15 - 127) << 23) + 0xFFF))
    normal = shift(builder, "lshr", normal, 13)
    # adding 0.5 leaves a subnormal's bits, rounded, at the low end of the word
    half = ir.Constant(wide(_F32), [0.5] * WIDTH)
    lifted = builder.fadd(builder.bitcast(size, wide(_F32)), half)
    subnormal = builder.sub(builder.bitcast(lifted, wide(_I32)), _word(126 << 23))
    nan = builder.icmp_unsigned(">", size, _word(0x7F800000))
    special = builder.select(nan, _word(0x7E00), _word(0x7C00))
    small = builder.icmp_unsigned("<", size, _word(113 << 23))
    large = builder.icmp_unsigned(">=", size, _word(143 << 23))
    result = builder.select(large, special, builder.select(small, subnormal, normal))
    return builder.or_(result, sign)


def single_to_bfloat16(builder: Any, bits: Any) -> Any:
    """Bits of float32 → bits of bfloat16."""
    odd = builder.and_(shift(builder, "lshr", bits, 16), _word(1))
    rounded = builder.add(bits, builder.add(odd, _word(0x7FFF)))
    value = builder.bitcast(bits, wide(_F32))
    nan = builder.fcmp_unordered("uno", value, value)
    quiet = builder.or_(bits, _word(0x400000))
    return shift(builder, "lshr", builder.select(nan, quiet, rounded), 16)
