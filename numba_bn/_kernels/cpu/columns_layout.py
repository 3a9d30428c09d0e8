"""How columns lie in memory, and what there is of each of them: the layout of all of their loops.

x is flat, (batch, rows, stride), and column j belongs to group j // length and channel j // inner.
Where rows are short, several are seen as one wide row (``fold`` of them), so that a tile of columns
is always worth its overhead; what is left of the last wide row is a row of fewer columns.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from numba_bn._kernels._compile import block, inlined
from numba_bn._kernels.cpu.lanes import add, fill, head, total
from numba_bn._kernels.cpu.memory import load, load_if, store, store_if


class Tile(NamedTuple):
    """Columns of some rows, one under the other; a sample's, of all its columns, is a tile too.

    Kernels name it, no helper makes it for them: Numba makes it anew in a ``prange``, by that name.
    """

    at: int
    """Where in x they begin."""
    stride: int
    rows: int
    tail: int
    """Columns of the unfinished row after the others."""
    width: int
    period: int
    """Columns after which groups and channels repeat."""
    length: int
    """Neighbouring columns of one group."""
    inner: int
    """Of one channel."""


@inlined
def size_of(tile: Tile) -> int:
    """Values from a tile of a sample to the same of the next: all of it, if it is whole rows."""
    return tile.rows * tile.stride + tile.tail


@inlined
def tiles_of(sample: Tile, columns: int) -> int:
    """A sample, columns of a tile → how many tiles."""
    return (sample.stride + columns - 1) // columns


@inlined
def slices_of(sample: Tile, per_slice: int) -> int:
    """A sample, rows of a unit → how many units."""
    return (sample.rows + per_slice - 1) // per_slice


@inlined
def tile_of(sample: Tile, b: int, u: int, columns: int) -> tuple[int, Tile]:
    """A sample → the first column of its u-th tile, and that tile of sample ``b``."""
    _, stride, rows, tail, _, period, length, inner = sample
    first = u * columns
    width = min(columns, stride - first)
    at = b * size_of(sample) + first
    return first, Tile(at, stride, rows, tail, width, min(period, width), length, inner)


@inlined
def part_of(tile: Tile, first: int, most: int) -> Tile:
    """Rows of a tile from ``first`` on, ``most`` at most, the unfinished one after its last."""
    at, stride, rows, tail, width, period, length, inner = tile
    some = min(most, rows - first)
    rest = tail if first + some == rows else 0
    return Tile(at + first * stride, stride, some, rest, width, period, length, inner)


@inlined
def tail_of(tile: Tile) -> Tile:
    """The unfinished row of a tile, as a tile; of no rows if there is none."""
    at, stride, rows, tail, _, period, length, inner = tile
    some = 1 if tail > 0 else 0
    return Tile(at + rows * stride, stride, some, 0, tail, period, length, inner)


@inlined
def moved(tile: Tile, by: int) -> Tile:
    """The same tile of what lies so much further."""
    at, stride, rows, tail, width, period, length, inner = tile
    return Tile(at + by, stride, rows, tail, width, period, length, inner)


@inlined
def channels_in(tile: Tile, first: int) -> int:
    """A tile whose first column is ``first`` → how many channels have a part in it."""
    return (first + tile.period - 1) // tile.inner - first // tile.inner + 1


@block
def spread_out(values: Any, at: int, first: int, tile: Tile, inner: int, into: Any) -> None:
    """values[at :], one per ``inner`` columns → one per column of a tile from ``first`` on."""
    width, period = tile.width, tile.period
    c, j, stop = first // inner, 0, min(width, period)
    if inner == 1:
        for k in range(0, stop, 16):
            store(into, k, load_if(values, at + c + k, head(stop - k)), False)
        j = stop
    while j < stop:
        end = min((c + 1) * inner - first, stop)
        value = fill(values[at + c])
        # what is written beyond the channel's end, the next one writes over
        for k in range(j, end, 16):
            store(into, k, value, False)
        c, j = c + 1, end
    whole = period * ((15 + period) // period)
    repeated = load(into, 0)
    for k in range(period, min(width, whole), period):
        store(into, k, repeated, False)
    for k in range(whole, width, 16):
        store(into, k, load(into, k - whole), False)


@inlined
def spread_each(factors: Any, at: int, first: int, tile: Tile, stream: bool, vectors: Any) -> None:
    """The same for each row of factors, and, where rows may be joined, the first 16 again."""
    for i in range(factors.shape[0]):
        v = vectors[i]
        spread_out(factors[i], at, first, tile, tile.inner, v)
        if stream:
            store(v, tile.width, load(v, 0), False)


@block
def gather(vector: Any, tile: Tile, length: int, sums: Any) -> None:
    """One value per column of a tile → its sum per ``length`` of them."""
    width, period = tile.width, tile.period
    groups = period // length
    if length == 1:
        for g in range(0, groups, 16):
            v = fill(0.0)
            for start in range(g, width, period):
                v = add(v, load_if(vector, start, head(width - start)))
            store_if(sums, g, v, head(groups - g))
        return
    for g in range(groups):
        total_of_group = 0.0
        for start in range(g * length, width, period):
            stop = min(start + length, width)
            v = fill(0.0)
            for k in range(start, stop, 16):
                v = add(v, load_if(vector, k, head(stop - k)))
            total_of_group += total(v)
        sums[g] = total_of_group
