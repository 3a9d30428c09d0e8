"""From the words that parts of channels left to those of the channels, as `_words` writes them.

Done here, and not by NumPy, as small arrays are summed in less time than a dozen of its calls take.
"""

from __future__ import annotations

from typing import Any

from numba import prange

from numba_bn._kernels._compile import block, inlined
from numba_bn._kernels._launch import Kernel
from numba_bn._kernels.cpu.exact_blocks import REACH

_ALL = 0xFFFFFFFF


@inlined
def span(power: int, base: int, grid: int, least: int, largest: int) -> Any:
    """Of the sum of a power, the words that windows from least to largest may use: from, to."""
    # a whole number of 64 bits may be laid down over three words
    stop = (power * largest + 64 - base) // 32 + 3
    return min((power * (least - grid) - base) // 32, stop), stop


@block
def _take_farthest(parts: Any, k: int) -> int:
    """The largest number in a row of parts, which becomes 0."""
    most = 0
    for c in range(parts.shape[1]):
        for g in range(parts.shape[2]):
            most = max(most, parts[k, c, g])
            parts[k, c, g] = 0
    return most


@block
def _take_parts(parts: Any, k: int, totals: Any, to: int) -> None:
    """Row k of all parts, which becomes 0, → totals[to]."""
    for g in range(totals.shape[1]):
        totals[to, g] = 0
    for c in range(parts.shape[1]):
        for g in range(totals.shape[1]):
            totals[to, g] += parts[k, c, g]
            parts[k, c, g] = 0


@block
def _says_nothing(totals: Any, k: int) -> bool:
    """Tell whether all of row k only repeats the sign of the row before."""
    rest = 0
    for g in range(totals.shape[1]):
        rest |= totals[k, g] + (totals[k - 1, g] >> 31)
    return bool(rest == 0)


@block
def _is_zero(totals: Any, k: int) -> bool:
    bits = 0
    for g in range(totals.shape[1]):
        bits |= totals[k, g]
    return bool(bits == 0)


@block
def _trim(totals: Any, first: int, last: int) -> Any:
    """Rows that were carried → those that are needed, the last of them with the numbers' signs."""
    while last > first + 1 and _says_nothing(totals, last - 1):
        last -= 1
        for g in range(totals.shape[1]):
            totals[last - 1, g] -= (totals[last - 1, g] >> 31) << 32
    while first < last - 1 and _is_zero(totals, first):
        first += 1
    return first, last


@block
def _conclude(
    power: int, base: int, words: Any, at: int, to: int, parts: Any, totals: Any, ends: Any
) -> None:
    """The words of a sum, from row ``at`` of parts on, → totals, from row ``to`` on."""
    start, stop = words
    for i in range(start, stop):
        _take_parts(parts, at + i, totals, to + i)
        if i > start:
            for g in range(totals.shape[1]):
                totals[to + i, g] += totals[to + i - 1, g] >> 32
                totals[to + i - 1, g] &= _ALL
    for g in range(totals.shape[1]):
        totals[to + stop, g] = totals[to + stop - 1, g] >> 32
        totals[to + stop - 1, g] &= _ALL
    first, last = _trim(totals, to + start, to + stop + 1)
    none = last == first + 1 and _is_zero(totals, first)
    ends[power - 1, 0], ends[power - 1, 1] = first, last
    ends[power - 1, 2] = 0 if none else base // 32 + first - to


@Kernel
def conclude_words(parts: Any, form: Any, grid: int, totals: Any, ends: Any) -> None:
    """parts (words, chunks, groups), which become 0, → totals (words + 2, groups).

    ends (2, 3): of a sum, its first row, the row after its last, and its place. The last rows of
    totals are how many values there were, and how many not finite.
    """
    rows = parts.shape[0]
    down, up = REACH - _take_farthest(parts, rows - 1), _take_farthest(parts, rows - 2) - REACH
    for p in prange(2):
        at, base = form[6] * p, form[4 + p]
        words = span(p + 1, base, grid, down, up)
        _conclude(p + 1, base, words, at, at + p, parts, totals, ends)
        _take_parts(parts, rows - 4 + p, totals, totals.shape[0] - 2 + p)
