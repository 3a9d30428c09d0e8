"""Which loops serve a five-axis shape, how work is cut for them, and what the caches suggest.

What is summed with what, the shape alone decides; what caches, cores and dtypes say is who does it
in which order, which changes no bit.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

from numba_bn._kernels.cpu import columns_moments, moments
from numba_bn._kernels.cpu.caches import CORES, held_bytes, l2_bytes

Shape = tuple[int, int, int, int, int]

# values from which a run earns a loop of its own: it takes 0.6 to 1.1 of the time of columns
_LONG_RUN = 64
# and from which it is written by one, if values are of four bytes at least and come from the last
# cache: it takes 0.55 to 1.0 of the time of columns; from a core's own 1.1 × as long
_RUN_TO_WRITE = 32
_LONG_BYTES = 1 << 11  # of a run from which groups that only the last cache holds earn one go
_SUMS_OF_RUN = 2 * 16 * 8  # bytes
_LONG_INNER = 16  # values of a channel in a row from which scalars beat vectors of parameters
_WIDE = 512  # columns of a tile
# values beyond which rows are folded to twice as many at most, whole pages of float32: eight rows
# at once are then as many pages, which from memory takes 0.8 of the time, from caches 0.85 to 1.02
_MANY_VALUES = 1 << 22
# columns of the widest tile that is summed or streamed, the former only as a whole row: its vectors
# fit the L2; streamed tiles of 1024 take 1.05 to 1.4 × as long
_WHOLE_ROW = 4096
# where nothing is streamed: vectors of more leave the L1, which takes 1.2 × as long; and rows that
# come to more in whole sixteens are not folded, as all of them would be one unit
_CACHED_TILE = 2048
_ROWS = 64  # wide rows of a unit that writes, at least, while there are fewer than 4 units a core
_MANY_ROWS = 256  # and from then on: what is done once a unit takes a tenth of the time of 64
_UNITS = 64  # most units of a sample: from memory long ones run 1.2 × as fast as those of 128 rows
_SMALL_SAMPLE = 1 << 15  # values below which a sample is worth few columns
# so many, which take 0.9 to 0.98 of the time of a whole call; where there are many samples, only in
# so many rows of them, which take 0.5 of the time, as fewer rows are not worth their columns
_NARROW, _LEAST_ROWS = 128, 16
_SLACK = 7  # wide rows of smaller ones may leave one lane in so many idle
_LEAST_UNITS = 4  # tiles below which they are cut narrower, so that there is work for all
SMALL = (1 << 19) - 1  # bytes that are one thread's: of more, launches are parallel
_ONE_UNIT = 1 << 20  # bytes that one thread does in one go as fast as several in two sweeps
# bytes that take as long as what is done once for a sample of columns, for a group that is a run,
# and for one of many that are taken in lanes
_SAMPLE, _RUN, _IN_LANES = 1 << 11, 1 << 9, 1 << 7
_SUMS = 13 << 16  # bytes of partial sums of parameter gradients: with the rest less than 1 MB
_PART = 1 << 16  # bytes of float32 worth partial sums of their own: rows are taken 16 at a time
# units of work from which there is no need to split inside a group: with 8, two cores take 0.65 to
# 0.95 of the time of 16
_MIN_UNITS = min(4 * CORES, 16)


class Plan(NamedTuple):
    """How a five-axis shape is walked."""

    kind: str
    """"runs", "rows" or "columns"."""
    batch: int
    outer: int
    """Runs: rows of x. Columns: wide rows."""
    groups: int
    length: int
    """Values of a group in one row of x."""
    size: int
    """Channels in a group."""
    inner: int
    """Neighbouring values of one channel."""
    period: int
    """Runs: groups after which parameters repeat. Columns: columns after which channels do."""
    stride: int = 0
    """Columns: width of a wide row."""
    tail: int = 0
    """Columns: columns of the last, unfinished wide row."""
    tile: int = 0
    """Columns: columns of a tile of whole groups."""


@lru_cache(maxsize=1024)
def plan_of(shape: Shape) -> Plan:
    """Return the plan for a five-axis shape without a zero."""
    batch, outer, groups, size, inner = shape
    if groups * size == 1:  # the values of one channel follow one another, whatever the layout
        outer, inner = 1, outer * inner
    length = size * inner
    if outer == 1 and (batch > 1 or size > 1) and inner < _LONG_INNER:
        return Plan("rows", batch, 1, groups, length, size, inner, groups)
    one_run = outer == 1 and length > 1  # one sample's vectors as columns take 0.3 to 0.9 as long
    if one_run or (length >= _LONG_RUN and inner >= _LONG_INNER):
        return Plan("runs", batch, outer, groups, length, size, inner, groups)
    width = groups * length
    fold = min(_fold(batch, outer, width), outer)
    stride = width * fold
    tile = stride if fold > 1 else _tile(batch, outer, width, length)
    tail = outer % fold * width
    return Plan(
        "columns", batch, outer // fold, groups, length, size, inner, width, stride, tail, tile
    )


def _fold(batch: int, outer: int, width: int) -> int:
    """Return how many rows are seen as one: whole sixteens, but nearly so in the smallest samples.

    What is done once per column, and not once per value, counts where a sample has few rows.
    """
    unit = 16 // math.gcd(width, 16)
    small = outer * width < _SMALL_SAMPLE
    wide = _NARROW if small else _WIDE
    fold = -(-wide // (width * unit)) * unit if width < wide and width * unit <= _CACHED_TILE else 1
    if small and batch > 1 and outer < fold * _LEAST_ROWS:
        return next(n for n in range(1, unit + 1) if -n * width % 16 * _SLACK <= n * width)
    many = not small and batch * outer * width > _MANY_VALUES and width < _WIDE
    return max(fold, 2 * _WIDE // (width * unit) * unit) if many else fold


def _tile(batch: int, outer: int, width: int, length: int) -> int:
    """Return the columns of a tile: whole groups, whole sixteens if may be, enough tiles."""
    whole = math.lcm(length, 16)
    if whole > 2 * _WIDE:
        whole = length
    tile = -(-_WIDE // whole) * whole
    # one thread's values need no more tiles, which take 1.05 to 1.2 × as long; as forward and
    # backward have one tile, these are taken for two arrays of float32
    split = 8 * batch * outer * width + _once("columns", batch, width // length) > SMALL
    if split and batch * -(-width // tile) < _LEAST_UNITS:
        tile = min(-(-width // (_LEAST_UNITS * whole)) * whole, tile)
    return min(tile, width)


def by_rows(plan: Plan, centred: bool) -> bool:
    """Tell whether a norm by own statistics has a scale for each value, not for each run."""
    return plan.kind == "rows" or not centred


def sum_tile(plan: Plan, itemsize: int) -> int:
    """Return the columns of a tile of sums: a whole row where its vectors fit the cache.

    ``itemsize`` is that of all arrays together, as below.
    """
    few = plan.batch * chunks(plan) < _LEAST_UNITS
    few = few and _work(plan, itemsize * values_of(plan)) > SMALL
    return plan.tile if few or plan.stride > _WHOLE_ROW else plan.stride


def forward_tile(plan: Plan, itemsize: int) -> int:
    """Return the columns of a tile that is summed and then written, of whole groups.

    What is one thread's is walked row by row: as four tiles it takes 1.2 × as long.
    """
    small = _work(plan, itemsize * values_of(plan)) <= SMALL and plan.stride <= _CACHED_TILE
    return plan.stride if small else plan.tile


def apply_cut(plan: Plan, streams: bool, itemsize: int) -> tuple[int, int]:
    """Return the columns and the rows of a unit that writes: a tile, some of its wide rows."""
    small = itemsize * values_of(plan) <= SMALL
    tile, wanted = _apply_tile(plan, streams, small), 4 * CORES
    across = -(-plan.stride // tile)
    short = 1 if small else min(-(-plan.outer // _ROWS), wanted // (plan.batch * across))
    count = min(max(plan.outer // _MANY_ROWS, short, 1), max(_UNITS, wanted) // across or 1)
    count += count % 2 if count > 1 else 0  # an even number, so that no thread waits
    return tile, -(-plan.outer // count)


def _apply_tile(plan: Plan, streams: bool, small: bool) -> int:
    """Return the columns of a tile where groups need not stay whole, but repeats must."""
    if plan.stride != plan.period:
        return plan.stride
    count = -(-plan.stride // (_WHOLE_ROW if streams else _CACHED_TILE))
    few = plan.batch * count * plan.outer < _LEAST_UNITS * _ROWS
    if few and not small:
        count = max(count, _LEAST_UNITS)
    count += count % 2 if count > 1 else 0  # an even number, so that no thread waits
    return -(-plan.stride // (16 * count)) * 16


def writes_runs(plan: Plan, itemsize: int, streams: bool) -> bool:
    """Tell whether values of such size are written run by run, by whatever they are summed."""
    if plan.kind != "columns":
        return True
    # rows of few runs are entered too often
    long = plan.inner >= _RUN_TO_WRITE and itemsize >= 4 and plan.period >= 2 * _WIDE
    return long and not streams and 2 * itemsize * values_of(plan) > l2_bytes()


def rows_of(plan: Plan) -> int:
    """Return how many rows of all groups a sample has."""
    return values_of(plan) // (plan.batch * plan.groups * plan.length)


def values_of(plan: Plan) -> int:
    """Return how many values x has."""
    row = plan.stride if plan.kind == "columns" else plan.groups * plan.length
    return plan.batch * (plan.outer * row + plan.tail)


def tiles(plan: Plan) -> int:
    """Return the number of tiles in a wide row."""
    return -(-plan.stride // plan.tile)


def chunks(plan: Plan) -> int:
    """Return the number of parts a group's moments are taken in."""
    if plan.kind == "columns":
        return int(_cut_rows(plan)[0])
    return int(moments.cut.py_func(plan.outer, plan.length)[0])


def _once(kind: str, batch: int, groups: int) -> int:
    """Return how many bytes take as long as what is done once for each group."""
    if kind == "runs":
        return batch * groups * _RUN if batch > 1 else 0
    sample = _SAMPLE if kind == "columns" and batch > 1 else 0
    return batch * (sample + groups * _IN_LANES)


def _work(plan: Plan, nbytes: int) -> int:
    """Return how many bytes take as long as ``nbytes`` and what is done once for each group."""
    return nbytes + _once(plan.kind, plan.batch, plan.groups)


def shared(plan: Plan, nbytes: int, parts: int = 1) -> int:
    """Return how many bytes a launch that takes statistics is worth: none if it is one unit."""
    alone = plan.kind == "columns" and plan.batch * tiles(plan) * parts == 1
    return 0 if alone else _work(plan, nbytes)


def _cut_rows(plan: Plan) -> tuple[int, int, int]:
    """Return the chunks of wide rows, and the rows of one and of a block."""
    cut: tuple[int, int, int] = columns_moments.cut_rows.py_func(
        plan.outer, plan.stride > plan.period
    )
    return cut


def slab(plan: Plan, itemsize: int, streams: bool) -> int:
    """Return how many neighbouring groups a unit takes: as many as share a core's cache well."""
    group, groups = plan.outer * plan.length * itemsize, plan.batch * plan.groups
    fits = max(l2_bytes() // (4 if streams else 2) // group, 1)
    # what one thread does is one unit: sixteen take 1.1 to 1.2 × as long
    units = 1 if _work(plan, groups * group) <= SMALL else _MIN_UNITS
    return int(max(min(fits, -(-groups // units)), 1))


def onward(unit_bytes: int, streams: bool, rows: int = 1) -> int:
    """Return for how many of its rows a unit, reading again, asks for the next unit's memory.

    It pays from memory, as long as both leave cache enough: else what is still to be read goes.
    """
    spare = l2_bytes() * 17 // 32 - unit_bytes  # with 3 / 5 some take 1.16 × as long
    return max(min(rows, rows * spare // unit_bytes), 0) if streams else 0


def one_block(plan: Plan) -> bool:
    """Tell whether a sample's columns are summed about one pivot a group."""
    return plan.outer <= _cut_rows(plan)[2]


def samples_slab(plan: Plan, itemsize: int) -> int:
    """Return how many samples a unit takes, which are so small that it takes one or more."""
    if _work(plan, itemsize * values_of(plan)) <= SMALL:
        return plan.batch  # one thread's, as in `slab`: units of an eighth take 1.1 × as long
    return max(plan.batch * -(-plan.stride // forward_tile(plan, itemsize)) // (2 * _MIN_UNITS), 1)


def wide_slab(plan: Plan, itemsize: int) -> int:
    """Return how many neighbouring groups a unit sums: what matters is that rows are long."""
    fits = max(l2_bytes() // 16 // (plan.length * itemsize + _SUMS_OF_RUN), 1)
    # chunks are units too: of short rows all together, in parts they take twice as long
    return int(min(fits, -(-plan.batch * plan.groups * chunks(plan) // _MIN_UNITS)))


def one_go(plan: Plan, itemsize: int) -> bool:
    """Tell whether units of whole groups are enough units, or small enough not to matter."""
    if plan.kind == "columns":
        units, values = plan.batch * tiles(plan), plan.outer * plan.tile
    else:
        units, values = plan.batch * plan.groups, plan.outer * plan.length
    size, held = values * itemsize, held_bytes()
    if plan.kind == "runs" and plan.outer > 1 and plan.length * itemsize < _LONG_BYTES:
        held = l2_bytes()
    enough = units >= (_MIN_UNITS if units * size > l2_bytes() else _LEAST_UNITS)
    alone = plan.kind == "columns" and units == 1
    return (enough and size <= held) or units * size <= (_ONE_UNIT if alone else SMALL)


def _earned(plan: Plan) -> int:
    """Return how many parts of their own the values of x are worth: enough where threads share."""
    nbytes = 4 * values_of(plan)  # as float32: the shape alone decides
    parts = -(-nbytes // _PART)
    return parts if _work(plan, 3 * nbytes) <= SMALL else max(parts, _LEAST_UNITS)


def batch_chunks(plan: Plan) -> int:
    """Return how many partial sums of parameter gradients are kept: bounded, and by shape alone."""
    channels = plan.groups * plan.length if plan.kind == "rows" else plan.groups * plan.size
    return max(min(plan.batch, moments.MAX_CHUNKS, _SUMS // (16 * channels), _earned(plan)), 1)


def samples_apart(plan: Plan) -> bool:
    """Tell whether each sample's gradients are one thread's work: short enough, or many enough."""
    least = min(_LEAST_UNITS, _earned(plan))
    enough = batch_chunks(plan) * tiles(plan) >= least
    return plan.outer <= (columns_moments.MAX_ROWS if enough else columns_moments.MIN_ROWS)
