"""Arrays by the names that the command line gives them."""

from __future__ import annotations

import glob
import math
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from typing import Any

import numpy as np

from numba_bn._arrays import dtype_named
from numba_bn._files import are_one_file, file_of
from numba_bn.chunks.sources import Source

_NUMPY, _ZIP, _HDF5 = b"\x93NUMPY", b"PK\x03\x04", b"\x89HDF\r\n\x1a\n"
_MATLAB = 512
"""Bytes that it puts before the HDF5 in its files."""


def expanded(
    names: list[str], output: str | None = None, what: Callable[[str], object] = file_of
) -> list[str]:
    """Return the names with wildcards replaced by the files that match, in order, each once.

    None may be that of the output, which the wildcards of a second run match too. ``what`` returns
    what all names of one thing have in common.
    """
    found: dict[object, str] = {}
    for name in names:
        path, inner = _parted(name)
        matches = [path] if os.path.exists(path) or "://" in path else sorted(glob.glob(path))
        if not matches:
            raise FileNotFoundError(f"there is no file {path}")
        for match in matches:
            given = f"{match}:{inner}" if inner else match
            if output and are_one_file(match, output):
                raise ValueError(f"--output must not be one of the files read, got {output}")
            it = what(given)
            if it in found:
                raise ValueError(f"{given} is given twice, first as {found[it]}")
            found[it] = given
    return list(found.values())


def array_of(name: str, raw: bool = False) -> object:
    """Return what all names of one array have in common: links, and no name for an only array."""
    path, inner = _parted(name)
    start = b"" if raw else _start(path)
    if start.startswith(_ZIP):
        with _archive(path) as file:  # not `opened`, as that reads the array
            return file_of(path), inner or "".join(file.files[:1])
    if raw or not (start.startswith(_HDF5) or _is_zarr(path)):
        return file_of(path)
    with opened(name) as x:
        if start.startswith(_HDF5):
            h5o = _library("h5py.h5o", "hdf5")
            return file_of(x.file.filename), h5o.get_info(x.id).addr
        return file_of(Source(x).name)


@contextmanager
def opened(
    name: str, dtype: str | None = None, shape: tuple[int, ...] | None = None
) -> Iterator[Any]:
    """Give the array of a name: ``.npy``, ``file.npz:name``, zarr, ``file.h5:/dataset``, raw."""
    path, inner = _parted(name)
    if dtype or shape:
        yield _raw(path, dtype, shape)
        return
    start = _start(path)
    if start.startswith(_HDF5):
        h5py = _library("h5py", "hdf5")
        with _open(h5py.File, path, "HDF5") as file:
            yield _member(file, inner, path, "HDF5")
    elif _is_zarr(path):
        zarr = _library("zarr", "zarr")
        kept = _open(zarr.open, path, "zarr", mode="r")
        yield kept if hasattr(kept, "dtype") and not inner else _member(kept, inner, path, "zarr")
    elif start.startswith(_NUMPY):
        yield _open(np.load, path, ".npy", mmap_mode="r")
    elif start.startswith(_ZIP):
        yield _unzipped(path, inner)
    else:
        raise ValueError(
            f"{path} is not .npy, .npz, HDF5 or zarr; raw values need --dtype and --shape"
        )


def check_apart(source: str, target: str) -> None:
    """Raise if what is read and what is written are in one file, which cannot be open for both."""
    if are_one_file(_parted(source)[0], _parted(target)[0]):
        raise ValueError(f"SOURCE and TARGET must be different files, got {source} and {target}")


@contextmanager
def created(
    name: str, like: Any, dtype: np.dtype[Any], again: bool, checkpoint: str | None
) -> Iterator[Any]:
    """Give a new array, of the kind that its name says; ``again`` is for one that is there.

    A new one is removed after an error, unless a checkpoint is there to go on from.
    """
    path, inner = _parted(name)
    chunks, shards = (getattr(like, n, None) for n in ("chunks", "shards"))
    shape = tuple(like.shape)
    there = os.path.exists(path)
    if path.endswith((".h5", ".hdf5")):
        if not inner:
            raise ValueError(f"TARGET must name a dataset, as in {path}:/name, got {name}")
        _check_new(there and again, name, again, checkpoint)
        h5py = _library("h5py", "hdf5")
        make = partial(_open, h5py.File, kind="HDF5") if there else h5py.File
        with _undone(_remove, path, there, checkpoint), make(path, mode="a") as file:
            there = inner in file
            _check_new(there, name, again, checkpoint)
            if chunks:  # HDF5 has none that are larger than the array, and none of nothing
                chunks = tuple(map(min, chunks, shape)) if all(shape) else None
            y = (
                _member(file, inner, path, "HDF5")
                if again
                else file.create_dataset(inner, shape, dtype, chunks=chunks)
            )
            with _undone(file.pop, inner, there, checkpoint):
                yield y
    elif path.endswith(".npy"):
        _check_new(there, name, again, checkpoint)
        with _undone(_remove, path, there, checkpoint):
            yield (
                _open(np.load, path, ".npy", mmap_mode="r+")
                if again
                else np.lib.format.open_memmap(path, "w+", dtype, shape)
            )
    elif path.endswith(".zarr"):
        zarr = _library("zarr", "zarr")
        _check_new(there, name, again, checkpoint)
        with _undone(_remove, path, there, checkpoint):
            yield (
                _open(zarr.open_array, path, "zarr", mode="r+")
                if again
                else zarr.create_array(
                    path, shape=shape, dtype=dtype, chunks=chunks or "auto", shards=shards
                )
            )
    else:
        raise ValueError(f"{name} must end in .npy or .zarr, or be file.h5:/dataset")


@contextmanager
def _undone(
    remove: Callable[[str], object], place: str, there: bool, checkpoint: str | None
) -> Iterator[None]:
    """Remove what an error left at a place, unless it was there or a checkpoint needs it."""
    try:
        yield
    except BaseException:
        if not there and not (checkpoint and os.path.exists(checkpoint)):
            remove(place)
        raise


def _remove(path: str) -> None:
    """Remove a file or a folder, if one was made."""
    if os.path.isdir(path):
        shutil.rmtree(path)
    elif os.path.exists(path):
        os.unlink(path)


def _parted(name: str) -> tuple[str, str]:
    """Return the path and what follows its colon: the name of an array within the file."""
    path, colon, inner = name.rpartition(":")
    if not colon or os.path.exists(name) or inner.startswith("//") or len(path) == 1:
        return name, ""
    return path, inner


def _is_zarr(path: str) -> bool:
    return os.path.isdir(path) or path.endswith(".zarr") or "://" in path


def _start(path: str) -> bytes:
    """Return the first bytes of a file, which say what it is, or HDF5's after MATLAB's own."""
    if not os.path.isfile(path):
        return b""
    with open(path, "rb") as file:
        start = file.read(len(_HDF5))
        file.seek(_MATLAB)
        return file.read(len(_HDF5)) if start == b"MATLAB 7" else start


@contextmanager
def _reading(path: str, kind: str) -> Iterator[None]:
    """Let an error of the library that reads a file say which file that is."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:  # a damaged file can raise nearly anything
        raise ValueError(f"{path} cannot be read as {kind} ({error})") from error


def _open(by: Callable[..., Any], path: str, kind: str, **how: Any) -> Any:
    """Return a file that is there, opened; an error says which that is."""
    with _reading(path, kind):
        return by(path, **how)


def _member(file: Any, inner: str, path: str, kind: str) -> Any:
    """Return an array in a file of several; the only one need not be named."""
    with _reading(path, kind):
        held = list(file)
        names = [inner] if inner else held
        found = file[names[0]] if len(names) == 1 and names[0] in file else None
    if hasattr(found, "dtype"):
        return found
    among = ", ".join(held) or "nothing"
    raise ValueError(f"{path} needs the name of an array in it, as in {path}:name; it has {among}")


@contextmanager
def _archive(path: str) -> Iterator[Any]:
    """Give what is in a ``.npz`` file, none of it read."""
    with open(path, "rb") as handle, _reading(path, ".npz"), np.load(handle) as file:
        yield file


def _unzipped(path: str, inner: str) -> Any:
    """Return an array in a ``.npz`` file; the others are not read."""
    with _archive(path) as file:
        alone = len(file.files) == 1
        found = {k: file[k] if alone or k == inner else None for k in file.files}
    return _member(found, inner, path, ".npz")


def _raw(path: str, dtype: str | None, shape: tuple[int, ...] | None) -> Any:
    """Return a file of nothing but values."""
    if not dtype or not shape:
        raise ValueError("--dtype and --shape go together")
    if min(shape) < 0:
        raise ValueError(f"--shape must have no negative lengths, got {shape}")
    try:
        kind = dtype_named(dtype)
    except TypeError as error:
        raise ValueError(f"--dtype must name a dtype, got {dtype}") from error
    size, needed = os.path.getsize(path), math.prod(shape) * kind.itemsize
    if size != needed:
        raise ValueError(f"{path} has {size} bytes; {kind} of shape {shape} has {needed}")
    return np.memmap(path, kind, "r", shape=shape) if size else np.empty(shape, kind)


def _check_new(there: bool, name: str, again: bool, checkpoint: str | None) -> None:
    """Raise unless an array is there to go on with, or is not there."""
    if there and not again:
        raise FileExistsError(
            f"{name} is there already; remove it, or give the --checkpoint of the job that made it"
        )
    if again and not there:
        raise FileNotFoundError(
            f"{name} is not there, and checkpoint {checkpoint} says it was begun; remove it to "
            "begin anew"
        )


def _library(name: str, extra: str) -> Any:
    """Return a library that is not one of those always there."""
    try:
        return import_module(name)
    except ImportError as error:
        text = f"this needs {name}: python -m pip install 'numba-bn[{extra}]'"
        raise ImportError(text) from error
