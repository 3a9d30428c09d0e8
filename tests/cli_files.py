"""The files that the commands on data are tried on."""

from functools import cache

import numpy as np
import pytest

import numba_bn as nbn

X = np.random.default_rng(0).normal(50.0, 4.0, (30, 4, 25)).astype(np.float32)


@cache
def statistics():
    """Those of X; found when they are asked for, as tests are collected in several processes."""
    return nbn.channel_stats(X)


def zarr_array(path, **how):
    return pytest.importorskip("zarr").create_array(path, data=X, chunks=(7, 4, 25), **how)


def hdf5_file(path, *names):
    with pytest.importorskip("h5py").File(path, "w") as file:
        for name in names:
            file.create_dataset(name, data=X)


def matlab_file(path):
    """HDF5, after 512 bytes of MATLAB's."""
    with pytest.importorskip("h5py").File(path, "w", userblock_size=512) as file:
        file.create_dataset("x", data=X)
    with open(path, "r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64")


def zarr_group(path):
    group = pytest.importorskip("zarr").create_group(path)
    group.create_array("a", data=X)
    group.create_array("b", data=X[:1])


MAKE = {
    "x.npy": lambda: np.save("x.npy", X),
    "x.npz": lambda: np.savez("x.npz", X),
    "two.npz:a": lambda: np.savez_compressed("two.npz", a=X, b=X[0]),
    "x.zarr": lambda: zarr_array("x.zarr"),
    "group.zarr:a": lambda: zarr_group("group.zarr"),
    "x.h5": lambda: hdf5_file("x.h5", "x"),
    "two.h5:/a/b": lambda: hdf5_file("two.h5", "a/b", "c"),
    "odd:name.npy": lambda: np.save("odd:name.npy", X),
    "x.raw --dtype float32 --shape 30,4,25": lambda: X.tofile("x.raw"),
    "x.mat": lambda: matlab_file("x.mat"),
}


def close(found, expected=None):
    """Tell whether statistics are equal, those of X if no others, but for rounding."""
    expected = statistics() if expected is None else expected
    np.testing.assert_array_equal(found.count, expected.count)
    np.testing.assert_allclose(found.mean, expected.mean, rtol=1e-14)
    np.testing.assert_allclose(found.m2, expected.m2, rtol=1e-12)
