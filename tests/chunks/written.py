"""Arrays that are written, as they are kept, and what is to be in them. No tests."""

import numpy as np
import pytest

import numba_bn as nbn

X = np.ones((4, 3), np.float32)


def memmap(path, shape, dtype, **how):
    return np.lib.format.open_memmap(path, "w+", dtype, shape, **how)


def hdf5(path, shape, dtype, **how):
    h5py = pytest.importorskip("h5py")
    return h5py.File(path, "w").create_dataset("y", shape, dtype, **how)


def zarr(path, shape, dtype, **how):
    module = pytest.importorskip("zarr")
    return module.create_array(path, shape=shape, dtype=dtype, **how)


TARGETS = {
    "memmap": lambda folder, *a: memmap(folder / "y.npy", *a),
    "fortran": lambda folder, *a: memmap(folder / "z.npy", *a, fortran_order=True),
    "swapped": lambda folder, s, t: memmap(folder / "w.npy", s, np.dtype(t).newbyteorder()),
    "contiguous": lambda folder, *a: hdf5(folder / "1.h5", *a),
    "compressed": lambda folder, *a: hdf5(folder / "2.h5", *a, chunks=(3, 7, 2, 5), compression=1),
    "zarr": lambda folder, *a: zarr(folder / "y.zarr", *a, chunks=(3, 2, 9, 5)),
    "shards": lambda folder, *a: zarr(
        folder / "s.zarr", *a, chunks=(1, 2, 9, 5), shards=(4, 2, 9, 5)
    ),
    "memory": lambda folder, *a: np.empty(*a),
}


def whole(x, stats, **options):
    return nbn.batch_norm(x, mean=stats.mean, var=stats.var(), **options)


def stats_of(channels):
    return nbn.ChannelStats(np.ones(channels), np.ones(channels), np.ones(channels))
