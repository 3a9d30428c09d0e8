"""Images and labels: scikit-learn's digits, an .npz file, or a folder of MNIST's IDX files."""

from __future__ import annotations

import gzip
import importlib
import math
import zipfile
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

PACKAGES = {"sklearn": "scikit-learn"}
EXTRAS = {"dask": "dask", "distributed": "dask", "mpi4py": "examples,mpi", "zarr": "zarr"}
NPZ_KEYS = ("x_train", "y_train", "x_test", "y_test"), ("images", "labels")
IDX_DIMS = {"images": 3, "labels": 1}
IDX_UBYTE = 0x08
GZIP_MAGIC = b"\x1f\x8b"
HELD_OUT = 5
"""One sample in so many is held out, for the test set and again for validation: 80/20."""
MAX_LABEL = 255


class UserError(Exception):
    """Something the user can mend; its text says what."""


class Samples(NamedTuple):
    """Images and their classes."""

    images: Array
    labels: Array


class Dataset(NamedTuple):
    """Images of shape (N, 1, H, W), float32 up to 1, and labels, in three parts."""

    train: Samples
    val: Samples
    test: Samples

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width."""
        height, width = self.train.images.shape[2:]
        return height, width

    @property
    def classes(self) -> int:
        """Number of classes."""
        return 1 + max(int(part.labels.max()) for part in self)


def require(module: str) -> Any:
    """Import a module that only the examples need."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        missing = (error.name or module).partition(".")[0]
        package = PACKAGES.get(missing, missing)
        extra = EXTRAS.get(missing, "examples")
        raise UserError(f'{package} is missing: pip install "numba-bn[{extra}]"') from error


def load_dataset(path: Path | None, rng: np.random.Generator) -> Dataset:
    """Read a data set, scikit-learn's digits by default, and split off what it does not split."""
    if path is None:
        return prepare([sklearn_digits()], rng)
    try:
        parts = read_idx_folder(path) if path.is_dir() else read_npz(path)
        for part in parts:
            check(part)
        if len(sizes := {part.images.shape[1:] for part in parts}) > 1:
            raise UserError(f"training and test images must have one size, got {sorted(sizes)}")
        return prepare(parts, rng)
    except FileNotFoundError as error:
        raise UserError(f"--data {path}: no such file") from error
    except OSError as error:
        raise UserError(f"--data {path}: {error.strerror or error}") from error
    except UserError as error:
        raise UserError(f"--data {path}: {error}") from error


def sklearn_digits() -> Samples:
    """Return the 1797 images of 8×8 pixels that come with scikit-learn."""
    digits = require("sklearn.datasets").load_digits()
    return Samples(digits.images, digits.target)


def read_npz(path: Path) -> list[Samples]:
    """Read images and labels, as training and test set (Keras' names) or as one."""
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            keys = next((keys for keys in NPZ_KEYS if set(keys) <= set(file)), None)
            if keys is None:
                wanted = " or ".join(", ".join(keys) for keys in NPZ_KEYS)
                raise UserError(f"expected {wanted}; found {', '.join(sorted(file)) or 'nothing'}")
            arrays = [np.asarray(file[key]) for key in keys]
    except (ValueError, TypeError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError("not a readable .npz file of arrays") from error
    return [Samples(*pair) for pair in zip(arrays[::2], arrays[1::2], strict=True)]


def read_idx_folder(folder: Path) -> list[Samples]:
    """Read the training and test set of a folder with MNIST's four files."""
    return [
        Samples(*(read_idx(find_idx(folder, part, kind), dims) for kind, dims in IDX_DIMS.items()))
        for part in ("train", "t10k")
    ]


def find_idx(folder: Path, part: str, kind: str) -> Path:
    """Return the file of that kind, under any of the names it is known by."""
    stem, ending = f"{part}-{kind}", f"idx{IDX_DIMS[kind]}-ubyte"
    names = [f"{stem}{mark}{ending}{packed}" for mark in "-." for packed in ("", ".gz")]
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise UserError(f"no file {names[0]} in it, nor {names[1]}")


def read_idx(path: Path, dims: int) -> Array:
    """Read an array of bytes in the IDX format, packed by gzip or not.

    A magic number, 0 0 8 dims; as many lengths, big-endian, of 4 bytes; then the values.
    """
    raw = path.read_bytes()
    if raw.startswith(GZIP_MAGIC):
        try:
            raw = gzip.decompress(raw)
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise UserError(f"{path.name}: broken gzip ({error})") from error
    magic = bytes((0, 0, IDX_UBYTE, dims))
    if raw[:4] != magic:
        raise UserError(f"{path.name}: expected magic number {magic.hex()}, got {raw[:4].hex()}")
    start = 4 + 4 * dims
    if len(raw) < start:
        raise UserError(f"{path.name}: ends within its header")
    shape = tuple(int(length) for length in np.frombuffer(raw[4:start], ">u4"))
    if len(raw) - start != math.prod(shape):
        raise UserError(
            f"{path.name}: expected {math.prod(shape)} values of shape {shape}, "
            f"got {len(raw) - start}"
        )
    return np.frombuffer(raw, np.uint8, offset=start).reshape(shape)


def check(samples: Samples) -> None:
    """Raise unless these are images with a label each."""
    images, labels = samples
    if images.ndim != 3 or images.dtype.kind not in "uif" or min(images.shape[1:]) < 2:
        raise UserError(
            "images must be numbers of shape (N, height, width), of 2×2 pixels at least, "
            f"got {images.dtype} of shape {images.shape}"
        )
    if labels.shape != images.shape[:1] or labels.dtype.kind not in "ui":
        raise UserError(
            f"labels must be integers of shape {images.shape[:1]}, one an image, "
            f"got {labels.dtype} of shape {labels.shape}"
        )
    if not labels.size:
        raise UserError("there are no images")
    if not np.isfinite(images).all():
        raise UserError("images must be finite")
    if labels.min() < 0 or labels.max() > MAX_LABEL:
        raise UserError(
            f"labels must be from 0 to {MAX_LABEL}, got {labels.min()} to {labels.max()}"
        )


def prepare(parts: list[Samples], rng: np.random.Generator) -> Dataset:
    """Split into training, validation and test set, and scale by the largest training value."""
    rest, test = parts if len(parts) == 2 else hold_out(parts[0], rng)
    train, val = hold_out(rest, rng)
    if len(train.labels) < 2:
        raise UserError(f"too few images to train on: {len(train.labels)}")
    largest = max(float(train.images.max()), -float(train.images.min())) or 1.0

    def scaled(samples: Samples) -> Samples:
        images = (samples.images[:, None] / largest).astype(np.float32)
        return Samples(images, samples.labels.astype(np.int64))

    return Dataset(scaled(train), scaled(val), scaled(test))


def hold_out(samples: Samples, rng: np.random.Generator) -> tuple[Samples, Samples]:
    """Split off every fifth sample, drawn at random, of each class."""
    by_class = np.lexsort((rng.random(len(samples.labels)), samples.labels))
    held = np.zeros(len(by_class), bool)
    held[by_class[::HELD_OUT]] = True
    kept = Samples(samples.images[~held], samples.labels[~held])
    return kept, Samples(samples.images[held], samples.labels[held])
