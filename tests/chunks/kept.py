"""Arrays as they are kept: memory maps, HDF5, zarr, and a class of one's own. No tests."""

import numpy as np
import pytest

SHAPE = (11, 7, 9, 5)
DTYPES = ["float32", "float64", "uint8", "uint16", "float16", ">f4", "int32"]


def data(dtype="float32", shape=SHAPE, seed=0):
    """Values far from zero, so that a variance that cancels is seen."""
    values = np.random.default_rng(seed).normal(100.0, 3.0, shape)
    return np.round(values).astype(dtype) if np.dtype(dtype).kind in "iu" else values.astype(dtype)


class Own:
    """An array that only slices, notes how, and may fail."""

    def __init__(self, array, chunks, fails_at=None):
        self.array, self.chunks, self.fails_at = array, chunks, fails_at
        self.shape, self.dtype, self.read = array.shape, array.dtype, []

    def __getitem__(self, block):
        if len(self.read) == self.fails_at:
            raise OSError("the disk is gone")
        self.read.append(block)
        return self.array[block]

    def __setitem__(self, block, part):
        self.array[block] = part


def memmap(path, x):
    np.save(path, x)
    return np.load(path, mmap_mode="r")


def hdf5(path, x, **how):
    h5py = pytest.importorskip("h5py")
    return h5py.File(path, "a").create_dataset("x", data=x, **how)


def zarr(path, x, chunks, **how):
    module = pytest.importorskip("zarr")
    return module.create_array(path, data=x, chunks=chunks, **how)


KINDS = {
    "memmap": lambda folder, x: memmap(folder / "x.npy", x),
    "fortran": lambda folder, x: memmap(folder / "f.npy", np.asfortranarray(x)),
    "part": lambda folder, x: memmap(folder / "p.npy", np.concatenate([x, x]))[len(x) :],
    "strided": lambda folder, x: memmap(folder / "s.npy", np.repeat(x[..., ::-1], 2, 3))[..., ::-2],
    "private": lambda folder, x: np.load(memmap(folder / "c.npy", x).filename, mmap_mode="c"),
    "contiguous": lambda folder, x: hdf5(folder / "1.h5", x),
    "chunked": lambda folder, x: hdf5(folder / "2.h5", x, chunks=(4, 3, 2, 5)),
    "compressed": lambda folder, x: hdf5(folder / "3.h5", x, chunks=(4, 3, 2, 5), compression=1),
    "one chunk": lambda folder, x: hdf5(folder / "4.h5", x, chunks=x.shape),
    "zarr": lambda folder, x: zarr(folder / "x.zarr", x, (4, 3, 2, 5)),
    "whole channels": lambda folder, x: zarr(folder / "c.zarr", x, (3, 7, 9, 5)),
    "shards": lambda folder, x: zarr(folder / "s.zarr", x, (2, 3, 3, 5), shards=(4, 6, 9, 5)),
    "own": lambda folder, x: Own(x, (4, 3, 2, 5)),
    "own, unchunked": lambda folder, x: Own(x, None),
}
