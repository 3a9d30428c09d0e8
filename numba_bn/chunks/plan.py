"""Which blocks to read or write an array in: integer arithmetic, and nothing else."""

from __future__ import annotations

import mmap
from itertools import product
from math import lcm, prod
from typing import NamedTuple

from numba_bn._view import Axes

Block = tuple[slice, ...]


class Chunking(NamedTuple):
    """How an array is kept: in chunks, each read or written whole or, if it may be, in pieces."""

    chunk: Axes
    """Lengths along each axis; ones where any piece may be read by itself."""
    order: Axes
    """The axes, from the slowest in memory or in the file to the fastest."""
    divisible: bool
    """Whether a piece of a chunk costs less than the chunk: not where chunks are compressed."""


def blocks(shape: Axes, chunking: Chunking, itemsize: int, limit: int) -> list[Block]:
    """Return blocks that cover the array once, in its own order, of at most `limit` bytes each.

    Small chunks are grouped; a block is larger only where a chunk that cannot be divided is.
    """
    chunk, order, divisible = chunking
    piece = chunk
    if prod(chunk) * itemsize <= limit:
        piece = chunk = _grouped(shape, chunk, itemsize, limit, order)
    elif divisible:
        piece = _grouped(chunk, (1,) * len(shape), itemsize, limit, order)
    edges = [_cuts(*lengths) for lengths in zip(shape, chunk, piece, strict=True)]
    slowest_first = product(*(edges[axis] for axis in order))
    places = sorted(range(len(order)), key=order.__getitem__)
    return [tuple([cuts[place] for place in places]) for cuts in slowest_first]


def lengths_of(block: Block) -> Axes:
    """Return the shape of a block."""
    return tuple([s.stop - s.start for s in block])


def common(shape: Axes, first: Axes, second: Axes, itemsize: int, limit: int) -> Axes:
    """Return a chunk made of whole ones of both; where that is too large, of `second` if it has."""
    pairs = zip(shape, first, second, strict=True)
    both = tuple(min(lcm(a, b), max(n, 1)) for n, a, b in pairs)
    if prod(both) * itemsize <= limit:
        return both
    return second if prod(second) > 1 else first


def tile(shape: Axes, orders: tuple[Axes, Axes], itemsize: int) -> Axes:
    """Return a chunk that has a run of a page's length in an array of either order."""
    runs = (_grouped(shape, (1,) * len(shape), itemsize, mmap.PAGESIZE, order) for order in orders)
    return tuple(map(max, *runs))


def _grouped(shape: Axes, unit: Axes, itemsize: int, limit: int, order: Axes) -> Axes:
    """Return the lengths of blocks of whole units, longest along the fastest axes."""
    lengths = list(unit)
    room = limit // (prod(unit) * itemsize)
    for axis in reversed(order):
        units = -(-shape[axis] // unit[axis])
        fit = max(1, min(units, room))
        parts = -(-units // fit)
        lengths[axis] = -(-units // max(parts, 1)) * unit[axis] or 1
        if parts > 1:
            break
        room //= fit
    return tuple(lengths)


def _cuts(length: int, chunk: int, piece: int) -> list[slice]:
    """Return the pieces of the chunks along an axis."""
    return [
        slice(start, min(start + piece, begin + chunk, length))
        for begin in range(0, length, chunk)
        for start in range(begin, min(begin + chunk, length), piece)
    ]
