"""What is read in blocks: memory maps, HDF5 datasets, zarr arrays, and all that slices alike."""

from __future__ import annotations

import errno
import math
import mmap
import os
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import numpy as np

from numba_bn._adapters import home_of
from numba_bn._arrays import Array, as_array, order_of
from numba_bn._files import are_one_file
from numba_bn._view import Axes
from numba_bn.chunks import pages
from numba_bn.chunks.plan import Block, Chunking, blocks, lengths_of


def is_chunked(x: Any, small: bool = False) -> bool:
    """Tell whether x is an array to read in blocks: one of chunks, or a memory map.

    A memory map that is not large is like any array in memory, unless `small` ones count.
    """
    if isinstance(x, np.memmap):
        return is_mapped(x) and (small or pages.spread(x) > 2 * Mapped.limit)
    return all(hasattr(x, name) for name in ("chunks", "shape", "dtype", "__getitem__"))


def is_mapped(x: Any) -> bool:
    """Tell whether x is a memory map, or a view of one."""
    return isinstance(x, np.memmap) and x._mmap is not None  # type: ignore[attr-defined]


def source_of(call: str, name: str, value: Any) -> Source:
    """Return how an array is read in blocks."""
    if home_of((value,)):
        kind = type(value)
        raise TypeError(
            f"{call}: {name} must be an array in memory or in a file, got {kind.__name__} of "
            f"{kind.__module__.partition('.')[0]}; batch_norm takes those, with mean and var"
        )
    if is_mapped(value):
        return Mapped(value)
    if hasattr(value, "read_direct"):
        if value.shape is None:
            raise ValueError(f"{call}: {name} must be an array, got HDF5's dataset without a shape")
        return Hdf5(value)
    return Source(value if is_chunked(value) else as_array(call, name, value))


class Source:
    """An array that is read by slicing."""

    limit = 16 << 20
    """Bytes of a block, of which there are two or three in memory at a time."""
    decodes = True
    """Whether reading keeps a core busy, as what decompresses does."""

    def __init__(self, array: Any) -> None:
        self.array = array
        self.shape: Axes = tuple(map(int, array.shape))
        self.dtype: np.dtype[Any] = np.dtype(array.dtype)

    @property
    def bytes_per_value(self) -> int:
        """How much memory a block takes for each of its values."""
        return self.dtype.itemsize

    @property
    def name(self) -> str:
        """Where it is, so that a checkpoint is not taken for one of another array."""
        folder = self._folder()
        return folder or str(getattr(self.array, "store_path", ""))

    def same_as(self, other: Source) -> bool:
        """Tell whether another is the same array, maybe by another path."""
        return self.array is other.array or self.name == other.name != ""

    def about(self) -> dict[str, Any]:
        """Return what tells it from other sources."""
        chunk, written = self.chunking().chunk, self._written()
        about = {"x": self.name, "shape": self.shape, "dtype": str(self.dtype), "chunks": chunk}
        return about if written is None else {**about, "last write (ns)": written}

    def _written(self) -> int | None:
        """Return when its file was last written, where that says whether it is still the same."""
        if (folder := self._folder()) is None:
            return self._archived()
        # a chunk that is removed changes its folder
        paths = (os.path.join(f, n) for f, _, files in os.walk(folder) for n in (".", *files))
        return max(filter(None, map(_time_of, paths)), default=None)

    def _archived(self) -> int | None:
        """Return the time of a zip file of zarr's that is open for reading alone, as of HDF5's."""
        store = getattr(self.array, "store", None)
        path = getattr(store, "path", None)
        if not isinstance(path, os.PathLike) or not getattr(store, "read_only", False):
            return None
        return _time_of(os.fspath(path))

    def _folder(self) -> str | None:
        """Return the folder of an array of zarr that is on a disk."""
        root = getattr(getattr(self.array, "store", None), "root", None)
        if not isinstance(root, os.PathLike):
            return None
        return os.path.realpath(os.path.join(root, getattr(self.array, "path", "")))

    def chunking(self) -> Chunking:
        """Return how it is kept."""
        plain = type(self.array) is np.ndarray
        order = order_of(self.array) if plain else tuple(range(len(self.shape)))
        chunks = getattr(self.array, "chunks", None)
        if not chunks or not all(isinstance(n, int) for n in chunks):
            return Chunking((1,) * len(self.shape), order, True)
        fitting = (max(1, min(c, n)) for c, n in zip(chunks, self.shape, strict=True))
        return Chunking(tuple(fitting), order, self._divisible())

    def _divisible(self) -> bool:
        return False

    def read(self, block: Block) -> Array:
        """Return a block, which may be overwritten by the next but one."""
        part: Array = self.array[block]
        return part

    def release(self, block: Block) -> None:
        """Let go of a block that was read."""


class Hdf5(Source):
    """A dataset of h5py, read into two buffers in turn: fresh memory for each block is slower."""

    def __init__(self, array: Any) -> None:
        super().__init__(array)
        self._buffers = [np.empty(0, np.uint8)] * 2

    @property
    def name(self) -> str:
        return f"{os.path.realpath(self.array.file.filename)}:{self.array.name}"

    def same_as(self, other: Source) -> bool:
        # HDF5 compares where the file has them, and knows a file by whatever name
        return isinstance(other, Hdf5) and bool(self.array == other.array)

    def _written(self) -> int | None:
        # a file that is open for writing has a new time when it is opened again
        return _time_of(self.array.file.filename) if self.array.file.mode == "r" else None

    def _divisible(self) -> bool:
        return bool(self.array.id.get_create_plist().get_nfilters() == 0)

    def read(self, block: Block) -> Array:
        dtype, shape = self.dtype.newbyteorder("="), lengths_of(block)
        nbytes = math.prod(shape) * dtype.itemsize
        self._buffers.reverse()
        if self._buffers[0].size < nbytes:
            self._buffers[0] = np.empty(nbytes, np.uint8)
        part = self._buffers[0][:nbytes].view(dtype).reshape(shape)
        self.array.read_direct(part, block)
        return part


_PIECE = 2 << 20
"""Bytes: few runs, as each may have a huge page mapped where Linux caches the file in such."""


class Mapped(Source):
    """A memory map: its pages are brought in before they are computed on, and let go afterwards."""

    limit = 30 << 20  # mapping copies nothing, and kernels take large blocks faster
    decodes = False

    def __init__(self, array: Any) -> None:
        super().__init__(array.view(np.ndarray))
        self._map, self._own = array._mmap, array.mode == "c"
        self._bytes = np.frombuffer(self._map, np.uint8)
        self.path = array.filename and os.path.realpath(array.filename)
        self.offset = array.offset - array.offset % mmap.ALLOCATIONGRANULARITY
        """Where in the file the map begins."""

    @property
    def name(self) -> str:
        start, _ = self.span(self.array)
        return f"{self.path}, from byte {self.offset + start}" if self.path else ""

    def same_as(self, other: Source) -> bool:
        """Tell whether another has bytes of the same file."""
        if not isinstance(other, Mapped) or not self.path or not other.path:
            return False
        # of one name they are one, though it may have been removed since
        if self.path != other.path and not are_one_file(self.path, other.path):
            return False
        (low, high), (start, stop) = self._bytes_in_file(), other._bytes_in_file()
        return low < stop and start < high

    def _bytes_in_file(self) -> tuple[int, int]:
        """Return from where to where in the file the array lies."""
        begin = self._bytes.ctypes.data - self.offset
        low, high = np.lib.array_utils.byte_bounds(self.array)
        return low - begin, high - begin

    def _written(self) -> int | None:
        return _time_of(self.path) if self.path else None

    @property
    def bytes_per_value(self) -> int:
        values = max(1, math.prod(self.shape))
        return max(self.dtype.itemsize, -(-pages.spread(self.array) // values))

    def read(self, block: Block) -> Array:
        part: Array = self.array[block]
        if not pages.is_scattered(part):
            self.bring(part)
            return part
        found = np.empty_like(part)
        for piece in self.pieces(part):
            self.bring(part[piece])
            found[piece] = part[piece]
            self.let_go(part[piece])
        return found

    def pieces(self, part: Array) -> Iterator[Block]:
        """Yield pieces of a part, for each of which little is mapped."""
        chunking = Chunking((1,) * part.ndim, order_of(part), True)
        yield from blocks(part.shape, chunking, -(-pages.spread(part) // part.size), _PIECE)

    def release(self, block: Block) -> None:
        if not pages.is_scattered(self.array[block]):  # else it was copied
            self.let_go(self.array[block])

    def let_go(self, part: Array) -> None:
        """Let go of a part's pages, and of those between and around them."""
        # pages that were changed in a map of mode "c" are nowhere else
        if hasattr(self._map, "madvise") and not self._own:
            low, high = self.span(part)
            low -= low % pages.AROUND
            with suppress(OSError):  # pages that were locked into memory stay
                self._map.madvise(mmap.MADV_DONTNEED, low, high - low + pages.AROUND)

    def flush(self) -> None:
        """Bring what was changed to the disk."""
        self._map.flush()

    def bring(self, part: Array, writing: bool = False) -> None:
        """Have a part's pages mapped; where the file cannot give them, that is an error here.

        Computing on a page that cannot be read or, in a sparse file, has no room on the disk would
        end the process.
        """
        start = self._bytes.ctypes.data
        for low, high in pages.ranges(part):
            failed = pages.populate(low, high - low, writing)
            if failed in pages.UNKNOWN:
                np.bitwise_or.reduce(self._bytes[low - start : high - start : mmap.PAGESIZE])
            elif failed == errno.EFAULT:
                text = "the disk is full or failed, or the file is shorter than its map"
                raise OSError(errno.EIO, text)
            elif failed:
                raise OSError(failed, os.strerror(failed))

    def span(self, part: Array) -> tuple[int, int]:
        """Return from where to where in the map a part lies, from the beginning of a page on."""
        start = self._bytes.ctypes.data
        low, high = (address - start for address in np.lib.array_utils.byte_bounds(part))
        return low - low % mmap.PAGESIZE, high


def _time_of(path: str) -> int | None:
    """Return when a file was last written."""
    return os.stat(path).st_mtime_ns if os.path.exists(path) else None
