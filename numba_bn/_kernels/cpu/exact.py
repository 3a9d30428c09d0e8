"""Exact sums of channels: blocks of rows of sixteen lanes.

Runs (channels-first): a row is sixteen neighbours in a run, and all lanes are of one channel.
Columns (channels-last, small planes): the lanes are columns, whose rows are brought together first.

``form`` is (mantissa bits, bias, size of infinity, least window) of the values' dtype, then (bit of
the first word of Σx, of Σx², which word that is). ``owners`` are the rows of words of the lanes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange

from numba_bn._kernels._compile import block, inline, unit
from numba_bn._kernels._launch import Kernel
from numba_bn._kernels.cpu.exact_blocks import (
    BELOW,
    FROM,
    HIGH,
    LANES,
    LOW,
    SLOTS,
    TO,
    block_rows,
    count_block,
    empty_lane,
    extent,
    open_window,
    sum_block,
)
from numba_bn._kernels.cpu.exact_lanes import all_within, bounds_at, move_if
from numba_bn._kernels.cpu.lanes import head
from numba_bn._kernels.cpu.loops import near
from numba_bn._kernels.cpu.memory import prefetch
from numba_bn._kernels.cpu.moments import bounds

_MOST_BLOCKS = 800  # whose sums int64 holds for sure; one may be added in 150 windows
_FOUND = 5 * LANES


@unit
def _new_state(floats: Any, deep: Any, form: Any, lanes: int, words: Any) -> Any:
    """Return what ``lanes`` lanes, a multiple of sixteen, keep from block to block."""
    # windows: exponent, least size, size from which values are too large, blocks since emptied
    windows, scales = np.zeros((4, lanes), np.int64), np.zeros((2, lanes))
    whole, found = np.zeros(lanes * SLOTS, np.int64), np.zeros(_FOUND, np.int64)
    owners = np.full(lanes, -1, np.int64)
    if floats is None:
        for k in range(lanes):
            open_window(deep, form, form[3], windows, scales, k)
    return windows, scales, whole, found, owners, words


@block
def _empty_lanes(deep: Any, form: Any, first: int, last: int, state: Any) -> None:
    """The whole numbers of lanes → the words of their channels."""
    windows, _, whole, _, owners, words = state
    for k in range(first, last):
        windows[3, k] = 0
        if owners[k] >= 0:
            empty_lane(deep, form, windows[0, k], whole, k, words, owners[k])


@block
def _choose_windows(deep: Any, form: Any, lane: int, state: Any) -> bool:
    """Open windows for the largest sizes found; return whether there are any but 0."""
    windows, scales, _, found, _, _ = state
    any_left = False
    for j in range(LANES):
        high, k = found[HIGH + j], lane + j
        if windows[2, k] == 0 or (high > 0 and not windows[1, k] <= high < windows[2, k]):
            _empty_lanes(deep, form, k, k + 1, state)
            exponent = max(high >> form[0], 1) - form[1] + 1
            open_window(deep, form, max(exponent, form[3]), windows, scales, k)
        found[FROM + j], found[TO + j] = 0, 0
        if high > 0:
            any_left = True
            found[FROM + j] = windows[1, k]
            found[TO + j] = min(windows[2, k], found[BELOW + j])
        found[BELOW + j] = found[FROM + j]
    return any_left


@block
def _add_block(
    x: Any, where: Any, floats: Any, deep: Any, form: Any, shape: Any, lane: int, state: Any
) -> None:
    """Add rows of lanes; shape is (at, rows, lanes of one more row, values to ask for ahead)."""
    windows, scales, whole, found, _, _ = state
    windows[3, lane] += 1
    if windows[3, lane] > _MOST_BLOCKS:
        _empty_lanes(deep, form, lane, lane + LANES, state)
    if where is not None:
        count_block(x, where, None, shape, form, lane, whole)
    if floats is None:
        sum_block(x, where, deep, None, shape, lane, scales, found, whole)
    else:
        extent(x, where, None, shape, found)
        fits = _fits(x, lane, state)
        if not fits and _largest(found) < form[2]:
            for j in range(LANES):
                found[BELOW + j] = form[2]
            _choose_windows(deep, form, lane, state)
            fits = _fits(x, lane, state)
        if fits:
            sum_block(x, where, deep, None, shape, lane, scales, found, whole)
        else:
            _add_by_windows(x, where, floats, deep, form, shape, lane, state)


@inline
def _fits(x: Any, lane: int, state: Any) -> bool:
    """Tell whether all sizes found fit the windows."""
    windows, found = state[0], state[3]
    least, most = bounds_at(x, windows[1], lane), bounds_at(x, windows[2], lane)
    return bool(all_within(bounds_at(x, found, LOW), bounds_at(x, found, HIGH), least, most))


@block
def _largest(found: Any) -> int:
    """The largest size found in any lane."""
    high = 0
    for j in range(LANES):
        high = max(high, found[HIGH + j])
    return high


@block
def _add_by_windows(
    x: Any, where: Any, floats: Any, deep: Any, form: Any, shape: Any, lane: int, state: Any
) -> None:
    """Add rows of lanes that do not fit the windows, NaN and infinities counted apart."""
    _, scales, whole, found, _, _ = state
    count_block(x, where, floats, shape, form, lane, whole)
    for j in range(LANES):
        found[BELOW + j] = form[2]
    extent(x, where, floats, shape, found)
    while _choose_windows(deep, form, lane, state):
        sum_block(x, where, deep, floats, shape, lane, scales, found, whole)
        extent(x, where, floats, shape, found)


@block
def _finish(deep: Any, form: Any, state: Any) -> None:
    """Empty all lanes, and carry, so that parts of a channel can be added.

    Words end in [-2^31, 2^31): most of those of a small number are 0, whatever its sign.
    """
    _, _, _, _, owners, words = state
    _empty_lanes(deep, form, 0, owners.size, state)
    for k in range(owners.size):
        row = owners[k]
        if row >= 0 and (k == 0 or owners[k - 1] != row):
            for i in range(words.shape[1] - 3):
                if i != form[6] - 1:  # the last word of Σx
                    carry = (words[row, i] + (1 << 31)) >> 32
                    words[row, i] -= carry << 32
                    words[row, i + 1] += carry


@unit
def _runs_unit(
    u: int,
    x: Any,
    where: Any,
    floats: Any,
    deep: Any,
    form: Any,
    words: Any,
    outer: int,
    groups: int,
    length: int,
    slab: int,
    per_chunk: int,
    blocks: int,
) -> None:
    """Unit (chunk, slab of groups) → words (chunks · groups, …)."""
    slabs = (groups + slab - 1) // slab
    c, g = u // slabs, u % slabs * slab
    wide = min(slab, groups - g)
    state = _new_state(floats, deep, form, wide * LANES, words)
    owners = state[4]
    for k in range(wide * LANES):
        owners[k] = c * groups + g + k // LANES
    most = block_rows(deep) * LANES
    for b in range(c * per_chunk, min((c + 1) * per_chunk, blocks)):
        o0, o1, e0, e1 = bounds(b, outer, length)
        for o in range(o0, o1):
            for j in range(wide):
                start = (o * groups + g + j) * length
                for e in range(start + e0, start + e1, most):
                    n = min(most, start + e1 - e)
                    shape = e, n // LANES, n % LANES, near(x)
                    _add_block(x, where, floats, deep, form, shape, j * LANES, state)
    _finish(deep, form, state)


@Kernel
def run_words(
    x: Any,
    where: Any,
    floats: Any,
    deep: Any,
    form: Any,
    words: Any,
    chunks: int,
    outer: int,
    groups: int,
    length: int,
    slab: int,
    per_chunk: int,
    blocks: int,
) -> None:
    """x (outer, groups, length) → words (chunks · groups, …): Σx, Σx², counts."""
    units = (groups + slab - 1) // slab * chunks
    for u in prange(units):
        _runs_unit(
            u, x, where, floats, deep, form, words, outer, groups, length, slab, per_chunk, blocks
        )


@block
def _pack(x: Any, into: Any, at: int, stride: int, rows: int, wide: int) -> None:
    """Rows of ``wide`` columns of x → blocks of rows of sixteen lanes, side by side."""
    for r in range(rows):
        i = at + r * stride
        for k in range(0, wide, LANES):
            prefetch(x, i + 8 * stride + k)
            if wide - k >= LANES:
                move_if(into, k * rows + r * LANES, x, i + k, head(LANES))
            else:
                move_if(into, k * rows + r * LANES, x, i + k, head(wide - k))


@unit
def _columns_unit(
    u: int,
    x: Any,
    where: Any,
    floats: Any,
    deep: Any,
    form: Any,
    words: Any,
    rows: int,
    tail: int,
    stride: int,
    period: int,
    length: int,
    tile: int,
    per_chunk: int,
) -> None:
    """Unit (chunk, tile of columns) → words (chunks · groups, …)."""
    tiles = (stride + tile - 1) // tile
    c, first = u // tiles, u % tiles * tile
    wide = min(tile, stride - first)
    lanes = (wide + LANES - 1) // LANES * LANES
    state = _new_state(floats, deep, form, lanes, words)
    owners = state[4]
    for k in range(wide):
        owners[k] = c * (period // length) + (first + k) % period // length
    last, most = min((c + 1) * per_chunk, rows), block_rows(deep)
    packed, masks = np.empty(most * lanes, x.dtype), where
    if where is not None:
        masks = np.empty(most * lanes, where.dtype)
    r, end = c * per_chunk, last + (1 if last == rows and tail > first else 0)
    while r < end:
        n = min(most, last - r) if r < last else 1
        width = wide if r < last else min(wide, tail - first)
        at = r * stride + first
        _pack(x, packed, at, stride, n, width)
        if where is not None:
            _pack(where, masks, at, stride, n, width)
        for k in range(0, width, LANES):
            _add_block(packed, masks, floats, deep, form, (k * n, n, 0, 0), k, state)
        r += n
    _finish(deep, form, state)


@Kernel
def column_words(
    x: Any,
    where: Any,
    floats: Any,
    deep: Any,
    form: Any,
    words: Any,
    chunks: int,
    rows: int,
    tail: int,
    stride: int,
    period: int,
    length: int,
    tile: int,
    per_chunk: int,
) -> None:
    """x (rows, stride) → words (chunks · groups, …): Σx, Σx², counts."""
    units = (stride + tile - 1) // tile * chunks
    for u in prange(units):
        _columns_unit(
            u,
            x,
            where,
            floats,
            deep,
            form,
            words,
            rows,
            tail,
            stride,
            period,
            length,
            tile,
            per_chunk,
        )
