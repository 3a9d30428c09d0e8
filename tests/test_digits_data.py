"""What `examples/digits.py` reads, and what it says of files that are broken."""

from __future__ import annotations

import gzip
import re
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from digits_example import CLASSES, EXAMPLES, SIZE, blobs, save_blobs

sys.path.insert(0, str(EXAMPLES))

from _data import Dataset, Samples, UserError, hold_out, load_dataset


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


@pytest.fixture
def npz(tmp_path: Path) -> Path:
    return save_blobs(tmp_path, np.random.default_rng(7))


def idx(array: np.ndarray) -> bytes:
    """Return the array in the IDX format."""
    return bytes((0, 0, 8, array.ndim)) + np.array(array.shape, ">u4").tobytes() + array.tobytes()


@pytest.fixture
def idx_folder(tmp_path: Path, rng: np.random.Generator) -> Path:
    folder = tmp_path / "mnist"
    folder.mkdir()
    for part, n in (("train", 150), ("t10k", 30)):
        images, labels = blobs(rng, n)
        (folder / f"{part}-images-idx3-ubyte").write_bytes(idx(images))
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(idx(labels.astype(np.uint8)))
    return folder


def same_data(a: Dataset, b: Dataset) -> bool:
    pairs = zip((x for part in a for x in part), (x for part in b for x in part), strict=True)
    return all(np.array_equal(x, y) for x, y in pairs)


def test_data_set_is_split_and_scaled(npz: Path) -> None:
    data = load_dataset(npz, np.random.default_rng(0))
    assert [len(part.labels) for part in data] == [96, 24, 30]
    assert (data.image_size, data.classes) == (SIZE, CLASSES)
    for images, labels in data:
        assert images.shape == (len(labels), 1, *SIZE)
        assert images.dtype == np.float32
        assert len(set(np.bincount(labels))) == 1
    assert data.train.images.max() == 1
    everything = np.concatenate([part.images for part in data])
    assert len(np.unique(everything, axis=0)) == 150
    assert same_data(data, load_dataset(npz, np.random.default_rng(0)))
    assert not same_data(data, load_dataset(npz, np.random.default_rng(1)))


def test_hold_out_keeps_the_share_of_each_class(rng: np.random.Generator) -> None:
    labels = np.repeat([0, 1, 2], [10, 50, 40])
    kept, held = hold_out(Samples(np.zeros((100, 2, 2)), labels), rng)
    assert np.bincount(held.labels).tolist() == [2, 10, 8]
    assert np.bincount(kept.labels).tolist() == [8, 40, 32]


def test_npz_with_a_test_set_of_its_own(tmp_path: Path, rng: np.random.Generator) -> None:
    known, test = blobs(rng, 100), blobs(rng, 30)
    path = tmp_path / "keras.npz"
    np.savez(path, x_train=known[0], y_train=known[1], x_test=test[0], y_test=test[1])
    data = load_dataset(path, rng)
    assert [len(part.labels) for part in data] == [80, 20, 30]
    assert (data.test.labels == test[1]).all()


@pytest.mark.parametrize("packed", ["", ".gz"])
@pytest.mark.parametrize("mark", ["-", "."])
def test_idx_files_under_any_of_their_names(idx_folder: Path, mark: str, packed: str) -> None:
    expected = load_dataset(idx_folder, np.random.default_rng(0))
    assert [len(part.labels) for part in expected] == [120, 30, 30]
    for path in list(idx_folder.iterdir()):
        raw = path.read_bytes()
        path.unlink()
        name = path.name.replace("-idx", f"{mark}idx") + packed
        (idx_folder / name).write_bytes(gzip.compress(raw) if packed else raw)
    assert same_data(load_dataset(idx_folder, np.random.default_rng(0)), expected)


IMAGES, LABELS = np.ones((20, 4, 4)), np.arange(20)
BAD_NPZ = {
    "keys": ({"x": IMAGES, "y": LABELS}, "expected x_train, y_train, .* or .*; found x, y$"),
    "no keys": ({}, "found nothing"),
    "flat": ({"images": IMAGES.reshape(20, -1)}, r"\(N, height, width\).*got .* \(20, 16\)"),
    "tiny": ({"images": IMAGES[:, :1]}, "2×2 pixels at least"),
    "text": ({"images": IMAGES.astype(str)}, "images must be numbers"),
    "nan": ({"images": IMAGES * np.nan}, "images must be finite"),
    "none": ({"images": IMAGES[:0], "labels": LABELS[:0]}, "there are no images"),
    "few": ({"images": IMAGES[:3], "labels": LABELS[:3]}, "too few images to train on: 1"),
    "lengths": ({"labels": LABELS[1:]}, r"integers of shape \(20,\).* got .* \(19,\)"),
    "one-hot": ({"labels": np.eye(20)}, r"one an image, got float64 of shape \(20, 20\)"),
    "negative": ({"labels": LABELS - 1}, "labels must be from 0 to 255, got -1 to 18"),
    "pickle": ({"labels": np.array([object()] * 20)}, "not a readable .npz file of arrays"),
    "sizes": (
        {"x_train": IMAGES, "y_train": LABELS, "x_test": IMAGES[:, 1:], "y_test": LABELS},
        r"must have one size, got \[\(3, 4\), \(4, 4\)\]",
    ),
}


@pytest.mark.parametrize("name", BAD_NPZ)
def test_bad_npz_is_a_clear_error(tmp_path: Path, rng: np.random.Generator, name: str) -> None:
    arrays, message = BAD_NPZ[name]
    if {"images", "labels"} & arrays.keys():
        arrays = {"images": IMAGES, "labels": LABELS} | arrays
    path = tmp_path / "bad.npz"
    np.savez(path, **arrays)
    with pytest.raises(UserError, match=f"^--data {re.escape(str(path))}: .*{message}"):
        load_dataset(path, rng)


@pytest.mark.parametrize("raw", [b"", b"some text", b"PK\x03\x04 cut", b"\x93NUMPY"])
def test_file_that_is_no_npz_is_a_clear_error(
    tmp_path: Path, rng: np.random.Generator, raw: bytes
) -> None:
    path = tmp_path / "bad.npz"
    path.write_bytes(raw)
    with pytest.raises(UserError, match="not a readable"):
        load_dataset(path, rng)


def test_damaged_npz_is_a_clear_error(npz: Path, rng: np.random.Generator) -> None:
    raw = bytearray(npz.read_bytes())
    raw[len(raw) // 2] ^= 0xFF
    npz.write_bytes(raw)
    with pytest.raises(UserError, match="not a readable"):
        load_dataset(npz, rng)


BAD_IDX: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "magic": (lambda raw: b"\x00\x00\x08\x01" + raw[4:], "number 00000803, got 00000801"),
    "empty": (lambda raw: b"", "expected magic number 00000803, got $"),
    "header": (lambda raw: raw[:9], "ends within its header"),
    "short": (lambda raw: raw[:-1], r"6300 values of shape \(150, 7, 6\), got 6299"),
    "long": (lambda raw: raw + b"\x00", r"6300 values of shape \(150, 7, 6\), got 6301"),
    "gzip cut": (lambda raw: gzip.compress(raw)[:-20], "broken gzip"),
    "gzip damaged": (lambda raw: gzip.compress(raw)[:-6] + bytes(6), "broken gzip"),
}


@pytest.mark.parametrize("name", BAD_IDX)
def test_bad_idx_file_is_a_clear_error(
    idx_folder: Path, rng: np.random.Generator, name: str
) -> None:
    damage, message = BAD_IDX[name]
    path = idx_folder / "train-images-idx3-ubyte"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UserError, match=f": train-images-idx3-ubyte: .*{message}"):
        load_dataset(idx_folder, rng)


def test_missing_idx_file_is_named(idx_folder: Path, rng: np.random.Generator) -> None:
    (idx_folder / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(UserError, match=r"no file t10k-labels-idx1-ubyte in it, nor .*\.gz"):
        load_dataset(idx_folder, rng)
