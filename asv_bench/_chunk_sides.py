"""The sides of chunks.py: each makes ready, in a folder with the data, and returns the call."""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

IN_BLOCKS = (256, 64, 64, 64)
"""Of float32, in memory, so that a sample is a block of 1 MiB."""
BY_DASK, DIRECTLY = "Dask, 256 blocks of 1 MiB", "the same blocks, one by one"

Side = Callable[[Path], Callable[[], object]]


def _memmap(folder: Path) -> Any:
    return np.load(folder / "x.npy", mmap_mode="r")


def _bare(folder: Path) -> Callable[[], object]:
    """A sum by all threads, nothing else."""
    import numba

    @numba.njit(parallel=True, fastmath=True)  # type: ignore[untyped-decorator]
    def total(x: Any) -> float:
        found = 0.0
        for i in numba.prange(x.size):
            found += x[i]
        return found

    total(_memmap(folder)[:1].reshape(-1))
    return lambda: total(_memmap(folder).reshape(-1))


def _stats(open_: Callable[[Path], Any], **how: Any) -> Side:
    """Return the side that takes our statistics of an array."""

    def side(folder: Path) -> Callable[[], object]:
        import numba_bn as nbn

        nbn.channel_stats(np.array(open_(folder)[:8]), **how)
        return lambda: nbn.channel_stats(open_(folder), progress=False, **how)

    return side


def _dask(folder: Path) -> Callable[[], object]:
    """Mean and variance by dask.array, in one go, in chunks of its own choice."""
    import dask
    import dask.array

    def call() -> object:
        x = dask.array.from_array(_memmap(folder))
        return dask.compute(x.mean((0, 2, 3)), x.var((0, 2, 3)))

    return call


def _blocks() -> Any:
    return np.random.default_rng(0).standard_normal(IN_BLOCKS, np.float32)


def _by_dask(folder: Path) -> Callable[[], object]:
    """Our statistics of many small blocks, by one worker, graph and all."""
    import dask.array

    import numba_bn as nbn

    x = dask.array.from_array(_blocks(), (1, *IN_BLOCKS[1:]), name="x")

    def call(x: Any) -> object:
        return nbn.channel_stats(x).compute(scheduler="threads", num_workers=1)

    call(x[:2])
    return lambda: call(x)


def _directly(folder: Path) -> Callable[[], object]:
    """What the kernels take for those blocks, by one thread as in a task."""
    import numba_bn as nbn

    x = _blocks()

    def call() -> None:
        with nbn.threads(1):
            for i in range(len(x)):
                nbn.channel_stats(x[i : i + 1])

    nbn.channel_stats(x[:1])
    return call


def _zarr(folder: Path) -> Any:
    import zarr

    return zarr.open_array(folder / "x.zarr", mode="r")


def _cold(side: Side) -> Side:
    """Return a side that finds the file not in memory."""

    def prepared(folder: Path) -> Callable[[], object]:
        call = side(folder)
        with open(folder / "x.npy", "rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        return call

    return prepared


def _reading(open_: Callable[[Path], Any]) -> Side:
    """Return the side that reads an array as ours does, and looks at one value of each page.

    No processor has what none has looked at: a virtual machine may get a page only then.
    """
    from numba_bn.chunks.ahead import ahead
    from numba_bn.chunks.plan import blocks
    from numba_bn.chunks.sources import source_of

    def call(folder: Path) -> None:
        source = source_of("chunks.py", "x", open_(folder))
        kept, itemsize = source.chunking(), source.dtype.itemsize
        planned = blocks(source.shape, kept, itemsize, source.limit)
        with ahead(source.read, planned) as parts:
            for block, (part, _) in zip(planned, parts, strict=True):
                part.reshape(-1)[:: mmap.PAGESIZE // itemsize].max()
                source.release(block)

    return lambda folder: lambda: call(folder)


SIDES: dict[str, Side] = {
    "bare sum": _bare,
    "channel_stats": _stats(_memmap),
    "dask.array": _dask,
    "reproducible": _stats(_memmap, reproducible=True),
    "zarr, compressed": _stats(_zarr),
    "zarr, compressed, read alone": _reading(_zarr),
    "cold file": _cold(_stats(_memmap)),
    "cold file, read alone": _cold(_reading(_memmap)),
    BY_DASK: _by_dask,
    DIRECTLY: _directly,
}
