"""What lanes keep from block to block: windows, whole numbers, and the words they go to.

``form`` is (mantissa bits, bias, size of infinity, least window) of the values' dtype, then (bit of
the first word of Σx, of Σx², which word that is). A state is (windows, scales, whole numbers, what
was found of a block, owners, words); ``owners`` are the columns of words of the lanes. Where a
channel has sixteen lanes, the first owns its column, the others -1.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from numba_bn._kernels._compile import block, inlined, unit
from numba_bn._kernels.cpu.exact_blocks import (
    BELOW,
    EMPTIED,
    FROM,
    HIGH,
    KEPT,
    LANES,
    SLOTS,
    TO,
    count_block,
    empty_lane,
    fits,
    gather,
    open_window,
    sum_block,
)

_MOST_BLOCKS = 30  # of 64 rows of sixteen lanes, each below 2^48 units: int64 holds their sums
_MOST_EMPTIED = 1024  # times that lanes may be emptied before words must be carried
_FOUND = 5 * LANES + 1
_SOME = 16  # rows that tell what windows to open


@unit
def new_state(floats: Any, deep: Any, form: Any, lanes: int, words: Any) -> Any:
    """Return what ``lanes`` lanes, a multiple of sixteen, keep from block to block."""
    # windows: exponent, least size, size from which values are too large; then, at the first of
    # sixteen lanes, blocks since all of them were emptied
    windows, scales = np.zeros((4, lanes), np.int64), np.zeros((2, lanes))
    whole, found = np.zeros(lanes * SLOTS, np.int64), np.zeros(_FOUND, np.int64)
    owners = np.full(lanes, -1, np.int64)
    if floats is None:
        for k in range(lanes):
            open_window(deep, form, form[3], windows, scales, k)
    return windows, scales, whole, found, owners, words


@inlined
def _shared(owners: Any, lane: int) -> bool:
    """Tell whether sixteen lanes are of one channel: they then have one window."""
    return bool(owners[lane + 1] < 0)


@block
def _empty_lanes(deep: Any, form: Any, first: int, last: int, state: Any) -> None:
    """The whole numbers of lanes, one or sixteen, → the words of their channels."""
    windows, _, whole, found, owners, words = state
    if last > first + 1 and _shared(owners, first):
        gather(whole, first)
        last = first + 1
    for k in range(first, last):
        if owners[k] >= 0:
            empty_lane(deep, form, windows[0, k], whole, k, words, owners[k])
            found[EMPTIED] += 1


@block
def _move_window(deep: Any, form: Any, high: int, lane: int, k: int, state: Any) -> None:
    """Open a window for a size for lane k, of the sixteen from ``lane`` on."""
    windows, scales, _, _, owners, _ = state
    shared = _shared(owners, lane)
    if k == lane or not shared:
        _empty_lanes(deep, form, k, k + (LANES if shared else 1), state)
    # twice as much room as is needed: the next block's largest may be larger
    field = min(max(high >> form[0], 1) + 2, form[2] >> form[0])
    exponent = max(field - form[1], form[3])
    if k > lane and windows[0, k - 1] == exponent:
        for i in range(3):
            windows[i, k] = windows[i, k - 1]
        scales[0, k], scales[1, k] = scales[0, k - 1], scales[1, k - 1]
    else:
        open_window(deep, form, exponent, windows, scales, k)


@block
def _largest(found: Any) -> int:
    """The largest size found in any lane."""
    high = 0
    for j in range(LANES):
        high = max(high, found[HIGH + j])
    return high


@block
def _choose_windows(deep: Any, form: Any, lane: int, state: Any) -> bool:
    """Open windows for the largest sizes found; return whether there are any but 0."""
    windows, _, _, found, owners, _ = state
    shared, most, any_left = _shared(owners, lane), _largest(found), False
    for j in range(LANES):
        high, k = most if shared else found[HIGH + j], lane + j
        if windows[2, k] == 0 or (high > 0 and not windows[1, k] <= high < windows[2, k]):
            _move_window(deep, form, high, lane, k, state)
        found[FROM + j], found[TO + j] = 0, 0
        if high > 0:
            any_left = True
            found[FROM + j] = windows[1, k]
            found[TO + j] = min(windows[2, k], found[BELOW + j])
        found[BELOW + j] = found[FROM + j]
    return any_left


@inlined
def _some_of(shape: Any) -> Any:
    """A few rows, which tell what windows to open."""
    at, runs, stride, rows, tail, ahead = shape
    return at, min(runs, max(_SOME // max(rows, 1), 1)), stride, min(rows, _SOME), tail, ahead


@block
def add_block(
    x: Any, where: Any, floats: Any, deep: Any, form: Any, shape: Any, lane: int, state: Any
) -> None:
    """Add runs; shape is (at, runs, stride, rows of a run, its tail, values to ask for ahead)."""
    windows, _, whole, _, _, _ = state
    windows[3, lane] += 1
    if windows[3, lane] > _MOST_BLOCKS:
        _empty_lanes(deep, form, lane, lane + LANES, state)
        windows[3, lane] = 1
    if where is not None:
        count_block(x, where, None, shape, form, lane, whole)
    if floats is None:
        sum_block(x, where, floats, deep, None, shape, lane, state)
    else:
        if windows[2, lane] == 0:
            sum_block(x, where, floats, deep, None, _some_of(shape), lane, state)  # fits nothing
            _choose_windows(deep, form, lane, state)
        if not sum_block(x, where, floats, deep, None, shape, lane, state):
            _add_by_windows(x, where, floats, deep, form, shape, lane, state)


@block
def _add_by_windows(
    x: Any, where: Any, floats: Any, deep: Any, form: Any, shape: Any, lane: int, state: Any
) -> None:
    """Add rows of lanes that do not fit the windows, NaN and infinities counted apart."""
    windows, _, whole, found, _, _ = state
    odd = _largest(found) >= form[2]
    for j in range(LANES):
        found[FROM + j], found[TO + j], found[BELOW + j] = 0, 0, form[2]
    if odd:
        count_block(x, where, floats, shape, form, lane, whole)
        sum_block(x, where, floats, deep, floats, shape, lane, state)  # finds the largest finite
    left = _choose_windows(deep, form, lane, state)
    if not odd and fits(x, windows, found, lane):
        sum_block(x, where, floats, deep, None, shape, lane, state)
        return
    while left:
        sum_block(x, where, floats, deep, floats, shape, lane, state)
        left = _choose_windows(deep, form, lane, state)


@block
def finish(deep: Any, form: Any, state: Any) -> None:
    """Empty all lanes; carry if that was often done, so that parts of a channel can be added.

    Words carried lie in [-2^31, 2^31): most of those of a small number are 0, whatever its sign.
    """
    _, _, _, found, owners, words = state
    for k in range(0, owners.size, LANES):
        _empty_lanes(deep, form, k, k + LANES, state)
    if found[EMPTIED] <= _MOST_EMPTIED:
        return
    for k in range(owners.size):
        row = owners[k]
        if row >= 0 and (k == 0 or owners[k - 1] != row):
            for i in range(words.shape[0] - KEPT - 1):
                if i != form[6] - 1:  # the last word of Σx
                    carry = (words[i, row] + (1 << 31)) >> 32
                    words[i, row] -= carry << 32
                    words[i + 1, row] += carry
