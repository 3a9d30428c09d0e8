"""What is written in blocks: memory maps, HDF5 datasets, zarr arrays, what assigns alike."""

from __future__ import annotations

import os
from math import prod
from typing import Any

import numpy as np

from numba_bn import _out
from numba_bn._arrays import Array, result_dtype
from numba_bn.chunks.pages import is_scattered
from numba_bn.chunks.plan import Block, Chunking, common, tile
from numba_bn.chunks.sources import Mapped, Source, source_of


def target_of(call: str, value: Any, source: Source) -> Target:
    """Return how an array is written in blocks, once it is known to fit."""
    if not (hasattr(value, "__setitem__") and hasattr(value, "shape")):  # a list would be copied
        kind = type(value).__name__
        raise TypeError(f"{call}: target must be an array that is open for writing, got {kind}")
    kept = source_of(call, "target", value)
    if kept.shape != source.shape:
        raise ValueError(
            f"{call}: target must have the shape of source, {source.shape}, got {kept.shape}"
        )
    dtype = result_dtype(call, "source", source.dtype.newbyteorder("="))
    if kept.dtype.newbyteorder("=") != dtype:
        raise TypeError(
            f"{call}: target must have dtype {dtype}, got {kept.dtype} for source of dtype "
            f"{source.dtype}"
        )
    if _closed(value):
        raise ValueError(f"{call}: target must be open for writing, and for its file to change")
    if isinstance(value, np.ndarray) and _out.repeats_memory(value):
        raise ValueError(f"{call}: target must not repeat memory, got strides {value.strides}")
    if _same(source, kept):
        raise ValueError(f"{call}: target must not be source: a block could be normalized twice")
    return MappedTarget(kept) if isinstance(kept, Mapped) else Target(kept)


def _closed(value: Any) -> bool:
    """Tell whether what is written would be refused, or lost."""
    if isinstance(value, np.ndarray):
        return not value.flags.writeable or getattr(value, "mode", None) == "c"
    if getattr(value, "read_only", False):  # zarr's
        return True
    return getattr(getattr(value, "file", None), "mode", None) == "r"  # h5py's


def _same(source: Source, target: Source) -> bool:
    """Tell whether two are one array."""
    arrays = source.array, target.array
    if all(isinstance(a, np.ndarray) for a in arrays) and np.may_share_memory(*arrays):
        return True
    return source.same_as(target)


class Target:
    """An array that is written by assigning to slices."""

    def __init__(self, kept: Source) -> None:
        self.kept = kept

    def chunking(self, source: Source) -> Chunking:
        """Return the chunks to go by: whole ones of both, where that is not too large."""
        theirs, ours = source.chunking(), self.kept.chunking()
        chunk = getattr(self.kept.array, "shards", None) or ours.chunk  # a shard is one file
        itemsize = self.bytes_per_value(source)
        if prod(theirs.chunk) == prod(chunk) == 1 and theirs.order != ours.order:
            both = tile(source.shape, (theirs.order, ours.order), itemsize)
        else:
            both = common(source.shape, theirs.chunk, chunk, itemsize, Source.limit)
        return Chunking(both, theirs.order, theirs.divisible and ours.divisible)

    def bytes_per_value(self, source: Source) -> int:
        """Return how much memory a block takes for each value, read or written."""
        return max(source.bytes_per_value, self.kept.bytes_per_value)

    def prepare(self) -> None:
        """Make room, where that can be done beforehand."""

    def room(self, block: Block) -> Array | None:
        """Return where a block may be computed straight into, if there is such a place."""
        return None

    def write(self, block: Block, part: Array) -> None:
        """Write a block; `part` may be what `room` gave."""
        self.kept.array[block] = part

    def settle(self) -> None:
        """Bring what was written to the file."""
        file = getattr(self.kept.array, "file", None)
        if file is not None:
            file.flush()


class MappedTarget(Target):
    """A memory map, which is computed straight into."""

    kept: Mapped

    def prepare(self) -> None:
        """Allocate the file, as writing to a page that the disk has no room for ends a process."""
        path, (start, stop) = self.kept.path, self.kept.span(self.kept.array)
        if path is None or not hasattr(os, "posix_fallocate") or stop == start:
            return
        offset = self.kept.offset + start
        with open(path, "r+b") as file:
            if os.fstat(file.fileno()).st_size >= offset + stop - start:
                os.posix_fallocate(file.fileno(), offset, stop - start)

    def room(self, block: Block) -> Array | None:
        part: Array = self.kept.array[block]
        if not part.dtype.isnative or is_scattered(part):
            return None
        self.kept.bring(part, writing=True)
        return part

    def write(self, block: Block, part: Array) -> None:
        into = self.kept.array[block]
        if np.may_share_memory(part, into):
            self.kept.let_go(into)
            return
        for piece in self.kept.pieces(into):
            self.kept.bring(into[piece], writing=True)
            into[piece] = part[piece]
            self.kept.let_go(into[piece])

    def settle(self) -> None:
        self.kept.flush()
