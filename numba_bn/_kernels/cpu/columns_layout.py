"""How columns lie in memory, and what there is of each of them: the layout of all of their loops.

x is flat, (batch, rows, width) and column j belongs to group j // length and channel j // inner.
Where rows are short, several are seen as one wide row (``fold`` of them), so that a tile of columns
is always worth its overhead; what is left of the last wide row is a row of fewer columns.
"""

from __future__ import annotations

from typing import Any

from numba_bn._kernels._compile import block, inlined
from numba_bn._kernels.cpu.lanes import add, fill, head, total
from numba_bn._kernels.cpu.memory import load, load_if, store, store_if


@inlined
def tile_of(u: int, tile: int, stride: int, period: int) -> Any:
    """u-th tile of wide rows of ``stride`` columns → its first column, width, period within it."""
    first = u * tile
    width = min(tile, stride - first)
    return first, width, min(period, width)


@inlined
def slices_of(rows: int, per_slice: int) -> int:
    """Rows, rows of a unit → how many units."""
    return (rows + per_slice - 1) // per_slice


@inlined
def channels_of(first: int, width: int, inner: int) -> int:
    """Columns from ``first`` on → how many channels have a part in them."""
    return (first + width - 1) // inner - first // inner + 1


@block
def spread_out(
    values: Any, at: int, first: int, width: int, period: int, inner: int, into: Any
) -> None:
    """values[at :], one per ``inner`` columns → one per column from ``first`` on."""
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
def spread_each(
    factors: Any,
    at: int,
    first: int,
    width: int,
    period: int,
    inner: int,
    stream: bool,
    vectors: Any,
) -> None:
    """The same for each row of factors, and, where rows may be joined, the first 16 again."""
    for i in range(factors.shape[0]):
        v = vectors[i]
        spread_out(factors[i], at, first, width, period, inner, v)
        if stream:
            store(v, width, load(v, 0), False)


@block
def gather(vector: Any, width: int, period: int, length: int, sums: Any) -> None:
    """One value per column → its sum per group."""
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
