"""Exact sums of values and of their squares, in whole numbers: no order of adding matters.

Values are taken sixteen at a time, a block of rows of them at once, which may be parts of several
runs. Where all of a lane's values are smaller than 2^e and multiples of a grid somewhat below it,
they and their squares are whole numbers of a few digits, which float64 adds without rounding:

short   values of up to 32 bits: Σx in one number, Σx² in two, the upper of which begins so large
        that it takes in only multiples of its own last place
deep    values of 53 and 64 bits, cut into digits h + m + e: Σ(h + m), Σe, and six kinds of products

A lane keeps e from block to block, its window, and the sums as int64; they go to the words of its
channel (`_words`) when the window moves, and at the end. Whether a block fits the windows is known
when its sums are, which else count for nothing: values too far apart are added window by window,
from the largest on.
"""

from __future__ import annotations

import math
from typing import Any

from numba_bn._kernels._compile import block, inlined
from numba_bn._kernels.cpu.asking import prefetch
from numba_bn._kernels.cpu.exact_lanes import (
    add_whole,
    all_within,
    bounds_at,
    largest,
    least,
    lower_if,
    put_bits,
    same_bits,
    sizes,
    sizes_if,
    take_whole,
    upper_if,
    within,
)
from numba_bn._kernels.cpu.lanes import add, both, fill, fma, head, mul, select, sub
from numba_bn._kernels.cpu.memory import flags_if, load, load_if

LANES = 16
SHORT_GRID, DEEP_GRID = 45, 71  # the grid is 2^(e - this)
SLOTS = 10  # whole numbers of a lane: up to eight sums, how many values, how many not finite
_COUNT, _ODD = 8, 9
KEPT = 4  # beside words: how many values, how many not finite, how far windows went up and down
REACH = 2048  # what is noted of windows is above 0
# in what is found of a block, and wanted of it; then, how often lanes were emptied
HIGH, LOW, BELOW, FROM, TO, EMPTIED = 0, 16, 32, 48, 64, 80
_SHORT = ((1, -45), (2, -44), (2, -90))  # the unit of a sum is 2^(first · e + second)
_DEEP = ((1, -47), (1, -71), (2, -46), (2, -69), (2, -93), (2, -94), (2, -117), (2, -142))
_CUT = 1.5 * 2.0**29  # to add and subtract leaves multiples of 2^-23


@inlined
def block_rows(deep: Any) -> int:
    """How many rows a block may have, so that its sums stay below 2^53 units."""
    return 256 if deep is None else 64


@block
def _take(x: Any, deep: Any, i: int, part: Any, usable: Any, scale: Any, sums: Any) -> Any:
    """x[i : i + 16], where usable, → sums with it."""
    s0, s1, s2, s3, s4, s5, s6, s7 = sums
    if deep is None:
        v = load_if(x, i, part)
        if usable is not None:
            v = select(usable, v, fill(0.0))
        upper = fma(v, v, s1)
        return add(s0, v), upper, add(s2, fma(v, v, sub(s1, upper))), s3, s4, s5, s6, s7
    g, e = upper_if(x, i, part, scale), lower_if(x, i, part, scale)
    if usable is not None:
        g, e = select(usable, g, fill(0.0)), select(usable, e, fill(0.0))
    h = sub(add(g, fill(_CUT)), fill(_CUT))
    m = sub(g, h)
    s0, s1, s2, s3 = add(s0, g), add(s1, e), fma(h, h, s2), fma(h, m, s3)
    s4, s5, s6, s7 = fma(h, e, s4), fma(m, m, s5), fma(m, e, s6), fma(e, e, s7)
    return s0, s1, s2, s3, s4, s5, s6, s7


@inlined
def _ask(x: Any, deep: Any, i: int) -> None:
    """Ask for the memory of sixteen values."""
    prefetch(x, i)
    if deep is not None:  # they are in two lines: with one alone, many columns took twice as long
        prefetch(x, i + LANES // 2)


@block
def _sum_rows(
    x: Any,
    where: Any,
    floats: Any,
    deep: Any,
    bounded: Any,
    shape: Any,
    scale: Any,
    found: Any,
    sums: Any,
) -> Any:
    """Rows of lanes → sums with them; largest and least sizes but 0 → found.

    With ``bounded``, sums are of sizes FROM and below TO alone, and what is found of those BELOW.
    """
    at, runs, stride, rows, tail, ahead = shape
    plain = rows if where is None and bounded is None else 0
    every = rows + (1 if tail > 0 else 0)
    if floats is not None:
        high, low = same_bits(x, 0), same_bits(x, -1)
    for o in range(runs):
        for r in range(plain):
            i = at + o * stride + r * LANES
            _ask(x, deep, i + ahead)
            sums = _take(x, deep, i, head(LANES), None, scale, sums)
            if floats is not None:
                v = sizes(x, i)
                high, low = largest(high, v), least(low, v)
        for r in range(plain, every):
            i, part = at + o * stride + r * LANES, head(LANES if r < rows else tail)
            _ask(x, deep, i + ahead)
            usable = part
            if where is not None:
                usable = flags_if(where, i, part)
            if floats is not None:
                v = select(usable, sizes_if(x, i, part), same_bits(x, 0))
                if bounded is not None:
                    usable = within(v, bounds_at(x, found, FROM), bounds_at(x, found, TO))
                    below = within(v, same_bits(x, 0), bounds_at(x, found, BELOW))
                    v = select(below, v, same_bits(x, 0))
                high, low = largest(high, v), least(low, v)
            sums = _take(x, deep, i, part, usable, scale, sums)
    if floats is not None:
        put_bits(found, HIGH, high)
        put_bits(found, LOW, low)
    return sums


@block
def _settle(deep: Any, scale: Any, sums: Any, whole: Any, at: int) -> None:
    """Sums of a block → added to whole numbers, whole[at :]."""
    if deep is None:
        square = mul(scale, scale)
        add_whole(whole, at, mul(sums[0], scale))
        upper = sub(mul(sums[1], square), fill(2.0**98))  # less where it began
        add_whole(whole, at + LANES, mul(upper, fill(2.0**-46)))
        add_whole(whole, at + 2 * LANES, mul(sums[2], square))
    else:
        add_whole(whole, at, mul(sums[0], fill(2.0**47)))
        add_whole(whole, at + LANES, mul(sums[1], fill(2.0**71)))
        add_whole(whole, at + 2 * LANES, mul(sums[2], fill(2.0**46)))
        add_whole(whole, at + 3 * LANES, mul(sums[3], fill(2.0**70)))
        add_whole(whole, at + 4 * LANES, mul(sums[4], fill(2.0**94)))
        add_whole(whole, at + 5 * LANES, mul(sums[5], fill(2.0**94)))
        add_whole(whole, at + 6 * LANES, mul(sums[6], fill(2.0**118)))
        add_whole(whole, at + 7 * LANES, mul(sums[7], fill(2.0**142)))


@inlined
def fits(x: Any, windows: Any, found: Any, lane: int) -> bool:
    """Tell whether all sizes found fit the windows."""
    low, high = bounds_at(x, windows[1], lane), bounds_at(x, windows[2], lane)
    return bool(all_within(bounds_at(x, found, LOW), bounds_at(x, found, HIGH), low, high))


@block
def sum_block(
    x: Any, where: Any, floats: Any, deep: Any, bounded: Any, shape: Any, lane: int, state: Any
) -> bool:
    """Rows of lanes, or what of them is wanted → whole numbers, if they fit the windows."""
    windows, scales, whole, found, _, _ = state
    scale, o = load(scales[0], lane), fill(0.0)
    # the upper part of short squares begins at 2^(2e + 8)
    sums = o, load(scales[1], lane), o, o, o, o, o, o
    sums = _sum_rows(x, where, floats, deep, bounded, shape, scale, found, sums)
    if floats is not None and bounded is None and not fits(x, windows, found, lane):
        return False
    _settle(deep, scale, sums, whole, lane * SLOTS)
    return True


@block
def count_block(x: Any, where: Any, odd: Any, shape: Any, form: Any, lane: int, whole: Any) -> None:
    """Rows of lanes → how many are usable; with ``odd``, how many of those are not finite."""
    at, runs, stride, rows, tail, _ = shape
    n = fill(0.0)
    for o in range(runs):
        for r in range(rows + 1):
            i, part = at + o * stride + r * LANES, head(LANES if r < rows else tail)
            if where is not None:
                part = flags_if(where, i, part)
            if odd is not None:
                v = sizes_if(x, i, part)
                part = both(part, within(v, same_bits(x, form[2]), same_bits(x, -1)))
            n = add(n, select(part, fill(1.0), fill(0.0)))
    add_whole(whole, lane * SLOTS + (_COUNT if odd is None else _ODD) * LANES, n)


@inlined
def slot_of(lane: int) -> int:
    """Where a lane's whole numbers begin; they are 16 apart."""
    return lane // LANES * LANES * SLOTS + lane % LANES


@block
def _deposit(words: Any, row: int, at: int, value: int, bit: int) -> None:
    """words[at :, row] += value · 2^bit."""
    k, s = at + (bit >> 5), bit & 31
    low, high = (value & 0xFFFFFFFF) << s, (value >> 32) << s
    words[k, row] += low & 0xFFFFFFFF
    words[k + 1, row] += (low >> 32) + (high & 0xFFFFFFFF)
    words[k + 2, row] += high >> 32


@block
def gather(whole: Any, lane: int) -> None:
    """The whole numbers of sixteen lanes → those of the first."""
    at = slot_of(lane)
    for k in range(SLOTS):
        whole[at + k * LANES] = take_whole(whole, at + k * LANES)


@block
def empty_lane(
    deep: Any, form: Any, exponent: int, whole: Any, lane: int, words: Any, row: int
) -> None:
    """The whole numbers of a lane → the words of its channel, and 0; its window is noted there."""
    at, last = slot_of(lane), words.shape[0] - KEPT
    count = 3 if deep is None else 8
    for k in range(count):
        power, offset = _SHORT[k] if deep is None else _DEEP[k]
        base, first = (form[4], 0) if power == 1 else (form[5], form[6])
        value = whole[at + k * LANES]
        if value != 0:
            _deposit(words, row, first, value, power * exponent + offset - base)
            whole[at + k * LANES] = 0
    for k in range(2):
        words[last + k, row] += whole[at + (_COUNT + k) * LANES]
        whole[at + (_COUNT + k) * LANES] = 0
    words[last + 2, row] = max(words[last + 2, row], REACH + exponent)
    words[last + 3, row] = max(words[last + 3, row], REACH - exponent)


@block
def open_window(deep: Any, form: Any, exponent: int, windows: Any, scales: Any, lane: int) -> None:
    """Let a lane take sizes below 2^exponent."""
    mantissa, bias = form[0], form[1]
    grid = exponent - (SHORT_GRID if deep is None else DEEP_GRID)
    field = grid + mantissa + bias  # from there on all floats are multiples of the grid
    windows[0, lane] = exponent
    windows[1, lane] = field << mantissa if field > 1 else 1
    windows[2, lane] = (exponent + bias) << mantissa
    if deep is None:
        scales[0, lane] = math.ldexp(1.0, SHORT_GRID - exponent)
        scales[1, lane] = math.ldexp(1.0, 2 * exponent + 8)
    else:
        scales[0, lane], scales[1, lane] = math.ldexp(1.0, -exponent), 0.0
