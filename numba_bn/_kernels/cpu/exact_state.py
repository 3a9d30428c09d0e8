"""What lanes keep from block to block: windows, whole numbers, and the words they go to.

``form`` is (mantissa bits, bias, size of infinity, least window) of the values' dtype, then (bit of
the first word of Σx, of Σx², which word that is). A state is (windows, scales, whole numbers, what
was found of a block, owners, words); ``owners`` are the rows of words of the lanes.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from numba_bn._kernels._compile import block, inline, unit
from numba_bn._kernels.cpu.exact_blocks import (
    BELOW,
    FROM,
    HIGH,
    LANES,
    LOW,
    SLOTS,
    TO,
    count_block,
    empty_lane,
    extent,
    open_window,
    sum_block,
)
from numba_bn._kernels.cpu.exact_lanes import all_within, bounds_at

_MOST_BLOCKS = 400  # whose sums int64 holds for sure; one may be added in 150 windows
_FOUND = 5 * LANES


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


@block
def _empty_lanes(deep: Any, form: Any, first: int, last: int, state: Any) -> None:
    """The whole numbers of lanes → the words of their channels."""
    windows, _, whole, _, owners, words = state
    for k in range(first, last):
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
            # twice as much room as is needed: the next block's largest may be larger
            field = min(max(high >> form[0], 1) + 2, form[2] >> form[0])
            open_window(deep, form, max(field - form[1], form[3]), windows, scales, k)
        found[FROM + j], found[TO + j] = 0, 0
        if high > 0:
            any_left = True
            found[FROM + j] = windows[1, k]
            found[TO + j] = min(windows[2, k], found[BELOW + j])
        found[BELOW + j] = found[FROM + j]
    return any_left


@block
def add_block(
    x: Any, where: Any, floats: Any, deep: Any, form: Any, shape: Any, lane: int, state: Any
) -> None:
    """Add rows of lanes; shape is (at, rows, lanes of one more row, values to ask for ahead)."""
    windows, scales, whole, found, _, _ = state
    windows[3, lane] += 1
    if windows[3, lane] > _MOST_BLOCKS:
        _empty_lanes(deep, form, lane, lane + LANES, state)
        windows[3, lane] = 0
    if where is not None:
        count_block(x, where, None, shape, form, lane, whole)
    if floats is None:
        sum_block(x, where, deep, None, shape, lane, scales, found, whole)
    else:
        extent(x, where, None, shape, found)
        if _fits(x, lane, state):
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
    odd = _largest(found) >= form[2]
    for j in range(LANES):
        found[BELOW + j] = form[2]
    if odd:
        count_block(x, where, floats, shape, form, lane, whole)
        extent(x, where, floats, shape, found)
    left = _choose_windows(deep, form, lane, state)
    if not odd and _fits(x, lane, state):
        sum_block(x, where, deep, None, shape, lane, scales, found, whole)
        return
    while left:
        sum_block(x, where, deep, floats, shape, lane, scales, found, whole)
        extent(x, where, floats, shape, found)
        left = _choose_windows(deep, form, lane, state)


@block
def finish(deep: Any, form: Any, state: Any) -> None:
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
