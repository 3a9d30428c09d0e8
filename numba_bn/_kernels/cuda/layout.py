"""How threads are laid over a five-axis shape: runs or columns, blocks, splits. Integers only.

What is summed in which order depends on the shape, the dtype and the device's number of
multiprocessors, so results have the same bits in every run on a device.
"""

from __future__ import annotations

from math import gcd, lcm
from typing import NamedTuple

from numba_bn._kernels.cuda.kernel import COUNTERS, THREADS, Device, Dims

Shape = tuple[int, int, int, int, int]

WARP = 32
CARRIED_BYTES = 32
TILE = 128
"""Vectors that a tile of columns is wide, at most."""
_LINE = 128  # bytes that neighbouring threads should read together
_LONG_RUN = 512  # values from which a run earns a walk of its own
_LONG_CHANNEL = 128  # values of a channel from which it need not share a walk
_FEW_ROWS = 16  # rows below which a thread had better not have columns of its own
_LONG_ITEM = 1 << 20  # values that a team should not take alone
_RESIDENT = 2  # blocks a multiprocessor needs for enough loads in flight
_MOST_SPLITS = 256
_SMALL = 1 << 16  # bytes that one multiprocessor reads in no time
_SUMMED = 8  # columns that a thread sums up, at most: with more, registers run out


class Layout(NamedTuple):
    """A launch as far as the walk decides it."""

    columns: bool
    width: int
    """Values of a vector."""
    grid: Dims
    block: Dims
    geometry: tuple[int, ...]
    """As ``walk.begin_of`` and ``together`` take it apart."""
    parts: int
    """Bytes of work space for what blocks have summed up, counters included."""


def width_of(itemsize: int, aligned: bool = True) -> int:
    """Return how many values to load at once: 16 bytes, where addresses allow it."""
    return 16 // itemsize if aligned else 1


def _width_of_run(width: int, length: int) -> int:
    """Return how many values at once make whole vectors of a run: of bytes 16 or 8; or one."""
    return next(w for w in (width, min(width, _SUMMED), 1) if length % w == 0)


def _splits(units: int, steps: int, device: Device) -> int:
    """Return in how many parts to cut units of so many steps: whole waves of blocks, if may be."""
    slots = _RESIDENT * device.multiprocessors
    if units > 4 * slots:
        return 1
    most = max(min(steps // 8, _MOST_SPLITS), 1)
    return min(range(1, most + 1), key=lambda s: -(-units * s // slots) * (-(-steps // s) + 8 + s))


def _power(n: int) -> int:
    """Return the least power of two that is not less than n."""
    return 1 << max(n - 1, 0).bit_length()


def runs(batch: int, outer: int, groups: int, length: int, width: int, device: Device,
         whole: bool = False) -> Layout:  # fmt: skip
    """Lay teams of threads over items (batch, groups) of ``outer`` runs; ``whole``: never split."""
    vectors = length // width
    total, items = outer * vectors, batch * groups
    team = min(max(_power(-(-total // 4)), WARP), THREADS)
    together = THREADS // team
    steps = -(-total // team)
    splits = 1 if whole or together > 1 else _splits(items, steps, device)
    per = -(-steps // splits) * team
    splits = -(-total // per)
    row = groups * length
    quotient, turn = divmod(team, vectors)
    geometry = (
        items, groups, outer * row, length, total, per, vectors, row,
        quotient * row + turn * width, turn, row - vectors * width,
        0, 0, 0, 0, 0, 1,
    )  # fmt: skip
    parts = COUNTERS + items * splits * CARRIED_BYTES if splits > 1 else 0
    grid, block = (-(-items // together), splits, 1), (team, together, 1)
    return Layout(False, width, grid, block, geometry, parts)


def fold_of(row: int, outer: int, width: int) -> int:
    """Return how many rows side by side are whole vectors, or 0 if none are."""
    fold = width // gcd(row, width)
    return fold if outer % fold == 0 else 0


def columns(batch: int, outer: int, groups: int, length: int, width: int, itemsize: int,
            device: Device, whole_items: bool = True) -> Layout | None:  # fmt: skip
    """Lay threads over the columns of (outer, groups · length), if they can be.

    ``whole_items``: a tile has whole groups of columns, which are to be put together.
    """
    row = groups * length
    fold = fold_of(row, outer, width)
    if not fold:
        return None
    wide = row * fold // width  # vectors
    unit = 1
    if whole_items:
        unit = wide if fold > 1 else lcm(length, width) // width
    if unit > TILE:
        return None
    units = min(-(-_LINE // (width * itemsize * unit)), TILE // unit)
    across = min(units * unit, wide)
    down = THREADS // across
    tiles, total = -(-wide // across), outer // fold
    steps = -(-total // down)
    splits = _splits(batch * tiles, steps, device)
    per = -(-steps // splits) * down
    splits = -(-total // per)
    per_tile = across * width // (length * fold) if whole_items else 0
    lanes = 1 << min(max(THREADS // max(per_tile, 1), 1), WARP).bit_length() - 1
    stride = wide * width
    geometry = (
        tiles, stride, outer * row, 0, total, per, 1, stride, down * stride, 0, 0,
        length, row, fold, per_tile, lanes, 1,
    )  # fmt: skip
    parts = COUNTERS + batch * tiles * splits * across * width * CARRIED_BYTES
    return Layout(True, width, (batch * tiles, splits, 1), (across, down, 1), geometry, parts)


_DIVIDED = 1 << 31  # positions that `division` holds for


def division(by: int) -> tuple[int, int]:
    """Return (magic, shift) so that p * magic >> shift is p // by, for p below `_DIVIDED`."""
    shift = 31 + (by - 1).bit_length()
    return -(-(1 << shift) // by), shift


def of_groups(shape: Shape, itemsize: int, aligned: bool, device: Device) -> Layout:
    """Lay threads over a shape so that each of its groups is put together."""
    batch, outer, groups, size, inner = shape
    length = size * inner
    if groups == 1:
        outer, length = 1, outer * length
    width = width_of(itemsize, aligned)
    if outer > 1 and length < _LONG_RUN:
        for w in dict.fromkeys((min(width, _SUMMED), 1)):
            found = columns(batch, outer, groups, length, w, itemsize, device)
            if found:
                return found
    return runs(batch, outer, groups, length, _width_of_run(width, length), device)


def of_rows_channels(shape: Shape, itemsize: int, aligned: bool, device: Device) -> Layout:
    """Lay threads over rows that are samples each, so that each channel is put together."""
    batch, _, groups, size, inner = shape
    # with statistics of every column there are registers for four of them
    width = min(width_of(itemsize, aligned), _SUMMED if groups == 1 else 4)
    if groups * size * inner % width:
        width = 1
    at = columns(1, batch, groups * size, inner, width, itemsize, device)
    assert at is not None  # channels are short
    return at


def of_channels(shape: Shape, itemsize: int, aligned: bool, device: Device) -> Layout:
    """Lay threads over a shape so that each channel of each sample is put together."""
    batch, outer, groups, size, inner = shape
    channels = groups * size
    at = of_groups((batch, outer, channels, 1, inner), itemsize, aligned, device)
    return at._replace(geometry=(*at.geometry[:-1], size))


def of_values(shape: Shape, itemsize: int, aligned: bool, device: Device) -> tuple[Layout, str]:
    """Lay threads over a shape whose values are computed each by itself; how parameters go."""
    batch, outer, groups, size, inner = shape
    channels = groups * size
    if channels == 1:
        outer, inner = 1, outer * inner
    width = width_of(itemsize, aligned)
    narrow = min(width, _SUMMED)
    odd = inner % narrow and not fold_of(channels * inner, outer, narrow)
    if inner >= _LONG_CHANNEL and (inner % narrow == 0 or odd or outer < _FEW_ROWS):
        at = runs(batch, outer, channels, inner, _width_of_run(width, inner), device)
    elif outer > 1 or batch == 1 or size * inner > _DIVIDED:
        tried = (
            columns(batch, outer, channels, inner, w, itemsize, device, False)
            for w in (width, narrow, 1)
        )
        at = next(found for found in tried if found)  # one column at a time always can be
    else:
        return of_rows(shape, width, device)
    return at._replace(geometry=(*at.geometry[:-1], size)), "each"


def of_rows(shape: Shape, width: int, device: Device,
            whole: bool = False) -> tuple[Layout, str]:  # fmt: skip
    """Lay teams over rows that are items each, along which parameters change; and how they do."""
    batch, _, groups, size, inner = shape
    length = size * inner
    at = runs(batch, 1, groups, length, _width_of_run(width, length), device, whole)
    along = (*at.geometry[:12], size, *division(inner), 0, 1)
    return at._replace(geometry=along), "along" if inner == 1 else "spread"


def of_own(shape: Shape, nbytes: int, itemsize: int, aligned: bool,
           device: Device) -> tuple[Layout, str] | None:  # fmt: skip
    """Lay a team over each item, to take its statistics and use them at once; None if it is large.

    ``nbytes`` are those of all that is read of a value.
    """
    batch, outer, groups, size, inner = shape
    if groups * size == 1:
        outer, inner = 1, outer * inner
    width = width_of(itemsize, aligned)
    length = outer * size * inner
    if outer == 1 and size > 1 and inner < _LONG_CHANNEL and length <= _LONG_ITEM:
        return of_rows(shape, width, device, whole=True)
    if size > 1 or (outer > 1 and inner < _LONG_CHANNEL):
        return None
    at = runs(batch, outer, groups, inner, _width_of_run(width, inner), device, whole=True)
    blocks = min(at.grid[0], device.multiprocessors * device.threads // THREADS)
    cached = blocks * at.block[1] * length * nbytes <= device.l2_bytes // 2
    enough = at.grid[0] >= device.multiprocessors or batch * groups * length * nbytes <= _SMALL
    return (at, "each") if cached and enough else None
