"""Global and shared memory that notice what a device would not, or would with a crash. No tests."""

from typing import Any

import numpy as np
from ptx_program import PtxError
from ptx_values import RAW

Array = np.ndarray
_POISON = 0xFF  # NaN in every float
_NOBODY, _SEVERAL = -1, -2


class GlobalMemory:
    """One arena; arrays begin at multiples of 256 bytes, with as many forbidden bytes between."""

    BASE = 1 << 20

    def __init__(self, size: int = 1 << 22) -> None:
        size = -(-size // 512) * 512
        self.bytes = np.full(size, _POISON, np.uint8)
        self.allowed = np.zeros(size, bool)
        self.written = np.zeros(size, bool)
        self.top = 256
        self.read_bytes = 0
        self.wide_read_bytes = 0
        self.stored_bytes = 0

    def _room(self, nbytes: int, offset: int) -> int:
        at = self.top + offset
        self.top = (at + nbytes + 511) // 256 * 256
        if self.top > self.bytes.size:
            raise MemoryError("the arena is full")
        self.allowed[at : at + nbytes] = True
        return at

    def put(self, array: Array, offset: int = 0) -> int:
        """Return the address of a copy of an array, ``offset`` bytes off a multiple of 256."""
        array = np.ascontiguousarray(array)
        at = self._room(array.nbytes, offset)
        self.bytes[at : at + array.nbytes] = array.reshape(-1).view(np.uint8)
        self.written[at : at + array.nbytes] = True
        return self.BASE + at

    def empty(self, nbytes: int, offset: int = 0) -> int:
        """Return the address of room that nothing has been written to."""
        return self.BASE + self._room(nbytes, offset)

    def put_zeros(self, zeros: int, nbytes: int) -> int:
        """Return the address of room that begins with zeros, and is unwritten after them."""
        address = self.empty(nbytes)
        at = address - self.BASE
        self.bytes[at : at + zeros] = 0
        self.written[at : at + zeros] = True
        return address

    def get(self, address: int, shape: tuple[int, ...], dtype: Any) -> Array:
        """Return a copy of an array."""
        at, size = address - self.BASE, int(np.prod(shape)) * np.dtype(dtype).itemsize
        return self.bytes[at : at + size].copy().view(dtype).reshape(shape)

    def places(self, address: Array, size: int, what: str) -> Array:
        """Check accesses of ``size`` bytes; return where they are in the arena."""
        at = address - self.BASE
        if (at % size).any():
            raise PtxError(f"misaligned {size}-byte {what}")
        inside = (at >= 0) & (at + size <= self.bytes.size)
        if not inside.all() or not (self.allowed[at].all() and self.allowed[at + size - 1].all()):
            raise PtxError(f"out-of-bounds {size}-byte {what}")
        return at

    def load(self, address: Array, width: int, count: int) -> list[Array]:
        """Load ``count`` neighbouring words of ``width`` bytes for each thread."""
        size = width * count
        at = self.places(address, size, "load")
        if not self.written[at].all():
            raise PtxError("load of what was never written")
        self.read_bytes += size * len(at)
        self.wide_read_bytes += size * len(at) if size == 16 else 0
        words = self.bytes.view(RAW[width])
        return [words[at // width + k] for k in range(count)]

    def store(self, address: Array, width: int, values: list[Array]) -> None:
        """Store neighbouring words for each thread."""
        size = width * len(values)
        at = self.places(address, size, "store")
        if len(np.unique(at)) < len(at):
            raise PtxError("several threads store to one place")
        self.stored_bytes += size * len(at)
        words = self.bytes.view(RAW[width])
        for k, value in enumerate(values):
            words[at // width + k] = value
        for k in range(size):
            self.written[at + k] = True

    def add(self, address: Array, value: Array, order: Array) -> Array:
        """Add atomically, threads in a given order; what was there before each."""
        at = self.places(address, value.dtype.itemsize, "atomic")
        words, before = self.bytes.view(value.dtype), np.empty_like(value)
        for i in order:
            before[i] = words[at[i] // value.dtype.itemsize]
            words[at[i] // value.dtype.itemsize] += value[i]
        return before


class SharedMemory:
    """The shared memory of all blocks, and who touched which word since the block's barrier."""

    def __init__(self, size: int, block_of: Array) -> None:
        self.size = size
        self.stride = -(-max(size, 8) // 8) * 8
        blocks = int(block_of.max()) + 1
        self.bytes = np.full(blocks * self.stride, _POISON, np.uint8)
        self.writer = np.full(self.bytes.size // 4, _NOBODY, np.int64)
        self.reader = np.full(self.bytes.size // 4, _NOBODY, np.int64)
        self.base = block_of.astype(np.int64) * self.stride

    def barrier(self, blocks: Array) -> None:
        """All threads of these blocks have met: what was written may be read."""
        for block in blocks:
            words = slice(block * self.stride // 4, (block + 1) * self.stride // 4)
            self.writer[words] = self.reader[words] = _NOBODY

    def _places(self, address: Array, threads: Array, size: int, what: str) -> Array:
        if (address % size).any():
            raise PtxError(f"misaligned {size}-byte shared {what}")
        if (address < 0).any() or (address + size > self.size).any():
            raise PtxError(f"out-of-bounds {size}-byte shared {what}")
        return address + self.base[threads]

    def load(self, address: Array, threads: Array, width: int, count: int) -> list[Array]:
        """Load words for each thread; what another wrote needs a barrier between."""
        at = self._places(address, threads, width * count, "load")
        for word in range(max(width * count // 4, 1)):
            place = at // 4 + word
            if ((self.writer[place] != _NOBODY) & (self.writer[place] != threads)).any():
                raise PtxError("shared race: a word is read that another thread wrote")
            others = (self.reader[place] != _NOBODY) & (self.reader[place] != threads)
            first, times = np.unique(place, return_counts=True)
            self.reader[place] = np.where(others, _SEVERAL, threads)
            self.reader[first[times > 1]] = _SEVERAL
        words = self.bytes.view(RAW[width])
        return [words[at // width + k] for k in range(count)]

    def store(self, address: Array, threads: Array, width: int, values: list[Array]) -> None:
        """Store words for each thread; what another read or wrote needs a barrier between."""
        at = self._places(address, threads, width * len(values), "store")
        for word in range(max(width * len(values) // 4, 1)):
            place = at // 4 + word
            for who in (self.writer, self.reader):
                if ((who[place] != _NOBODY) & (who[place] != threads)).any():
                    raise PtxError("shared race: a word is written that another thread uses")
            if len(np.unique(place)) < len(place):
                raise PtxError("shared race: several threads write a word")
            self.writer[place] = threads
        words = self.bytes.view(RAW[width])
        for k, value in enumerate(values):
            words[at // width + k] = value
