"""In which precision y and dx are computed; statistics and sums are float64.

Sums of a row whose values have few digits begin in float32 (`additive`), a few hundred at most, and
those of columns of 8 bits where that is exact (`exactly`).

float32 and shorter data is written with float32 arithmetic: (x - m)·a + b about a mean that float32
holds, what that mean lost being part of b. That is right to two units in the last place at any mean
and takes a third of the instructions, which from memory is a tenth of the time and from caches
nothing. Factors beyond float32's range, which no data but the most extreme has, fall back to
float64.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import types

from numba_bn._kernels._compile import block, inlined
from numba_bn._kernels.cpu.elements import bits_of
from numba_bn._kernels.cpu.lanes import (
    at_most,
    both,
    either,
    fill,
    finite,
    head,
    how_many,
    intrinsic,
    lanes,
    magnitude,
    positive,
    singles,
    suited,
)
from numba_bn._kernels.cpu.memory import load_if

_LARGE = 2.0**100  # far enough from float32's end at 2^128, and its inverse from the other


def kind_of(x: Any, y: Any) -> Any:
    """Return the lanes in which y is made of x: float32 where it holds every value of both."""
    return singles if max(bits_of(x), bits_of(y)) <= 24 else lanes


@intrinsic
def arithmetic(typingctx: Any, x: Any, y: Any) -> Any:
    """Return zeros of the kind in which the array y is made of the array x."""
    kind = kind_of(x, y)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return context.get_constant_null(kind)

    return kind(x, y), codegen


@intrinsic
def additive(typingctx: Any, dy: Any, x: Any) -> Any:
    """Return zeros of the kind in which sums of a few values of dy and x may begin.

    Of values of so few digits that their squares are float32, sums of a short row are right to
    float32's last digits, or exact; they take half the time.
    """
    kind = singles if max(bits_of(dy), bits_of(x)) <= 12 else lanes

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return context.get_constant_null(kind)

    return kind(dy, x), codegen


@intrinsic
def exactly(typingctx: Any, x: Any) -> Any:
    """Return zeros of the kind in which a few values of x are summed exactly about a pivot.

    Integers are summed about one that lies between them, or about 0: differences of 8 bits and
    their squares, of up to 256 values, are float32, which takes 0.65 of the time.
    """
    kind = singles if bits_of(x) <= 8 and isinstance(x.dtype, types.Integer) else lanes

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return context.get_constant_null(kind)

    return kind(x), codegen


@intrinsic
def go_on(typingctx: Any, zero: Any, before: Any) -> Any:
    """Return what sums of zero's kind go on from: before's, or zero if they are float32."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return args[0] if zero is singles else args[1]

    return zero(zero, lanes), codegen


@intrinsic
def put_onto(typingctx: Any, before: Any, v: Any) -> Any:
    """Return the sums that are kept: those that went on from before, or float32 onto before."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        if v is lanes:
            return args[1]
        return builder.fadd(args[0], suited(builder, args[1], lanes))

    return lanes(lanes, v), codegen


@intrinsic
def _rounded(typingctx: Any, x: Any, y: Any, value: Any) -> Any:
    """Return a number as the arithmetic of x and y holds it."""
    kind = kind_of(x, y)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        if kind is lanes:
            return args[2]
        return builder.fpext(builder.fptrunc(args[2], ir.FloatType()), ir.DoubleType())

    return types.float64(x, y, types.float64), codegen


@intrinsic
def is_single(typingctx: Any, like: Any) -> Any:
    """Tell whether lanes are float32."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return context.get_constant(types.boolean, like is singles)

    return types.boolean(like), codegen


@intrinsic
def _short(typingctx: Any, x: Any, y: Any) -> Any:
    """Tell whether y is made of x in float32."""
    answer = kind_of(x, y) is singles

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return context.get_constant(types.boolean, answer)

    return types.boolean(x, y), codegen


@inlined
def _is_factor(v: float) -> bool:
    """Tell whether float32 holds a factor as well as any; NaN, infinity and zero it holds."""
    size = abs(v)
    # & and |, here and below: no branches
    return bool(
        not (((size > 0.0) & (size <= 1.0 / _LARGE)) | ((size >= _LARGE) & (size < np.inf)))
    )


@inlined
def _is_term(v: float) -> bool:
    """Tell the same of what is added: nothing is too small for it."""
    return bool(not ((abs(v) >= _LARGE) & (abs(v) < np.inf)))


@inlined
def fits(x: Any, y: Any, m: float, a: float, b: float, c: float) -> bool:
    """Tell whether the arithmetic of x and y holds the terms m and c and the factors a and b."""
    if not _short(x, y):
        return True
    return bool(_is_term(m) & _is_term(c) & _is_factor(a) & _is_factor(b))


@inlined
def misfits(v: Any, factor: bool) -> Any:
    """Return a mask of what float32 does not hold of lanes of terms, or factors."""
    size = magnitude(v)
    bad = both(at_most(fill(_LARGE), size), finite(size))
    if factor:
        return either(bad, both(positive(size), at_most(size, fill(1.0 / _LARGE))))
    return bad


@block
def all_fit(x: Any, y: Any, factors: Any, first: int, count: int) -> bool:
    """Tell the same of factors (n, channels) from ``first`` on: a term, factors, a term."""
    if not _short(x, y):
        return True
    last, count_bad = factors.shape[0] - 1, 0
    # in lanes: of indices that might be negative LLVM makes gathers, which take four times as long
    for c in range(0, count, 16):
        part = head(count - c)
        for i in range(last + 1):
            v = load_if(factors[i], first + c, part)
            count_bad += how_many(misfits(v, 0 < i < last))
    return count_bad == 0


@inlined
def centre(x: Any, y: Any, mean: float, low: float) -> Any:
    """Mean, and what it lost to rounding → those of the arithmetic of x and y."""
    m = _rounded(x, y, mean) if _is_term(mean) else mean
    return m, (low if m == mean else (mean - m) + low)


@inlined
def gradient_terms(x: Any, dx: Any, mean: float, low: float, a: float, b: float, c: float) -> Any:
    """dx = dy·a + (x - mean - low)·b + c → m, a, b, c of the same in the arithmetic of x and dx.

    ``low`` is what the mean lost to rounding. c, most of it the mean of dy·a, follows what a loses
    to rounding: what ought to cancel does.
    """
    m, lost = centre(x, dx, mean, low)
    near = _rounded(x, dx, a) if _is_factor(a) else a
    if near != a:
        c *= near / a
    return m, near, b, c - lost * b
