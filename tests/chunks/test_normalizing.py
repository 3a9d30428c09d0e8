"""Normalizing in blocks gives what `batch_norm` gives of the whole, wherever it is written."""

import os

import numpy as np
import pytest
from kept import DTYPES, KINDS, SHAPE, Own, data
from written import TARGETS, X, stats_of, whole

import numba_bn as nbn

pytestmark = pytest.mark.usefixtures("small")


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("source", ["memmap", "fortran", "compressed", "zarr", "own"])
def test_any_source_into_any_target(source, target, tmp_path):
    x, axis = data(), {"channel_axis": (1, 3)}
    stats = nbn.channel_stats(x, **axis)
    parameters = np.random.default_rng(1).normal(size=(2, 7, 5))
    y = TARGETS[target](tmp_path, SHAPE, "f4")
    done = nbn.normalize_chunks(KINDS[source](tmp_path, x), y, stats, *parameters, **axis)
    assert done is y
    gamma, beta = parameters
    np.testing.assert_array_equal(y[...], whole(x, stats, gamma=gamma, beta=beta, **axis))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("target", ["memmap", "zarr", "compressed"])
def test_any_dtype(dtype, target, tmp_path):
    x = data(dtype)
    stats = nbn.channel_stats(x)
    expected = whole(x, stats, activation="relu", eps=0.5)
    y = TARGETS[target](tmp_path, SHAPE, expected.dtype)
    nbn.normalize_chunks(KINDS["memmap"](tmp_path, x), y, stats, activation="relu", eps=0.5)
    np.testing.assert_array_equal(y[...], expected)


def test_the_file_holds_it_afterwards(tmp_path):
    x = data()
    stats = nbn.channel_stats(x)
    nbn.normalize_chunks(x, TARGETS["memmap"](tmp_path, SHAPE, "f4"), stats)
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), whole(x, stats))


def test_compressed_chunks_are_written_whole(tmp_path):
    class Notes(Own):
        def __setitem__(self, block, part):
            written.append(block)
            self.array[block] = part

    written = []
    target = Notes(np.empty((12, 8), np.float32), (4, 2))
    nbn.normalize_chunks(Own(np.ones((12, 8), np.float32), (3, 8)), target, stats_of(8))
    assert [(b[0].start % 4, b[1].start % 2) for b in written] == [(0, 0)] * len(written)
    assert (target.array == 0).all()


def test_an_empty_source(tmp_path):
    y = np.empty((0, 3), np.float32)
    assert nbn.normalize_chunks(np.empty((0, 3), np.float32), y, stats_of(3)) is y


def repeated():
    return np.lib.stride_tricks.as_strided(X[0].copy(), X.shape, (0, 4))


def read_only(array):
    array.flags.writeable = False
    return array


@pytest.mark.parametrize(
    ("target", "stats", "options", "kind", "text"),
    [
        (np.ones((3, 4), "f4"), stats_of(3), {}, ValueError, r"target must have the shape of sou"),
        (np.ones((4, 3)), stats_of(3), {}, TypeError, "target must have dtype float32, got float6"),
        ((1, 2), stats_of(3), {}, TypeError, "target must be an array that is open .* got tuple"),
        ([[0.0]], stats_of(3), {}, TypeError, "target must be an array that is open .* got list"),
        (read_only(X.copy()), stats_of(3), {}, ValueError, "target must be open for writing"),
        (X, stats_of(3), {}, ValueError, "target must not be source"),
        (X[:, ::-1], stats_of(3), {}, ValueError, "target must not be source"),
        (repeated(), stats_of(3), {}, ValueError, r"target must not repeat memory, got strides"),
        (X.copy(), stats_of(4), {}, ValueError, r"stats.mean must have shape \(3,\), got \(4,\)"),
        (X.copy(), np.ones(3), {}, TypeError, "stats must be a ChannelStats, got ndarray"),
        (X.copy(), stats_of(3), {"gamma": [1.0]}, ValueError, "gamma must have shape"),
        (X.copy(), stats_of(3), {"eps": -1}, ValueError, "eps must be finite and >= 0"),
        (X.copy(), stats_of(3), {"activation": "elu"}, ValueError, "activation must be None or"),
        (X.copy(), stats_of(3), {"channel_axis": 2}, np.exceptions.AxisError, "channel_axis must"),
        (X.copy(), nbn.ChannelStats(*np.zeros((3, 3))), {}, ValueError, "stats must have counted"),
    ],
)
def test_wrong_arguments(target, stats, options, kind, text):
    before = np.copy(target)
    with pytest.raises(kind, match=f"^normalize_chunks: {text}"):
        nbn.normalize_chunks(X, target, stats, **options)
    np.testing.assert_array_equal(target, before)


def test_targets_that_would_not_keep_it(tmp_path):
    h5py, module = pytest.importorskip("h5py"), pytest.importorskip("zarr")
    TARGETS["contiguous"](tmp_path, X.shape, "f4").file.close()
    TARGETS["memmap"](tmp_path, X.shape, "f4")
    module.create_array(tmp_path / "y.zarr", shape=X.shape, dtype="f4")
    refused = [
        h5py.File(tmp_path / "1.h5")["y"],
        np.load(tmp_path / "y.npy", mmap_mode="c"),
        np.load(tmp_path / "y.npy", mmap_mode="r"),
        module.open_array(tmp_path / "y.zarr", mode="r"),
    ]
    for target in refused:
        with pytest.raises(ValueError, match=r"^normalize_chunks: target must be open for writing"):
            nbn.normalize_chunks(X, target, stats_of(3))


def test_one_file_opened_twice_is_seen(tmp_path):
    y = TARGETS["memmap"](tmp_path, X.shape, "f4")
    with pytest.raises(ValueError, match="target must not be source"):
        nbn.normalize_chunks(np.load(tmp_path / "y.npy", mmap_mode="r"), y, stats_of(3))


def zarr_by_two_paths(folder):
    y = TARGETS["zarr"](folder, X4.shape, "f4")
    return pytest.importorskip("zarr").open_array("y.zarr", mode="r"), y


def zarr_by_a_link(folder):
    TARGETS["zarr"](folder, X4.shape, "f4")
    (folder / "link.zarr").symlink_to(folder / "y.zarr")
    open_array = pytest.importorskip("zarr").open_array
    return [open_array(folder / f"{name}.zarr", mode="r+") for name in ("y", "link")]


def maps_by_two_names(folder):
    y = TARGETS["memmap"](folder, X4.shape, "f4")
    os.link(folder / "y.npy", folder / "hard.npy")
    return np.load(folder / "hard.npy", mmap_mode="r"), y


def maps_that_overlap(folder):
    y = TARGETS["memmap"](folder, (4, 3), "f4")
    return np.load(folder / "y.npy", mmap_mode="r")[:2], y[1:3]


def hdf5_by_two_names(folder):
    y = TARGETS["contiguous"](folder, X4.shape, "f4")
    y.file["other"] = y
    return y.file["other"], y


X4 = np.ones((4, 3, 9, 5), np.float32)


@pytest.mark.parametrize(
    "pair",
    [
        zarr_by_two_paths,
        zarr_by_a_link,
        maps_by_two_names,
        maps_that_overlap,
        hdf5_by_two_names,
    ],
)
def test_one_array_by_two_names_is_seen(pair, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source, target = pair(tmp_path)
    with pytest.raises(ValueError, match="target must not be source"):
        nbn.normalize_chunks(source, target, stats_of(3))


def test_parts_of_one_file_that_share_nothing_are_two_arrays(tmp_path):
    TARGETS["memmap"](tmp_path, X.shape, "f4")[:] = np.arange(12.0).reshape(4, 3)
    source, target = (np.load(tmp_path / "y.npy", mmap_mode=mode) for mode in ("r", "r+"))
    nbn.normalize_chunks(source[:2], target[2:], stats_of(3))
    np.testing.assert_array_equal(target[2:], whole(np.load(tmp_path / "y.npy")[:2], stats_of(3)))
