"""Files of compiled kernels: where they lie, and reading and writing them so that none can hurt.

A file is one kernel for one signature. It holds a digest of what it was made from and one of what
it contains, so a damaged or misplaced file is known before anything in it is believed; it is
written aside and renamed, so two processes cannot mix. Files of one content of the package share a
folder, ``kernels-<stamp>``; of those folders only the ones used last are kept.

The files are executed: whoever can write to their place can run code here, as whoever can write to
the package can.
"""

from __future__ import annotations

import errno
import os
import secrets
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from glob import glob
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple, TypeVar

PACKAGE = Path(__file__).resolve().parents[1]

_T = TypeVar("_T")

_FOLDERS_KEPT = 4  # a few versions may share a place, and an edit is often taken back
_DIGEST = sha256().digest_size
_NOT_WRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR)

_warned = False


class Places(NamedTuple):
    """The folders that are searched for compiled kernels, and what chose them."""

    origin: str
    """A variable of the environment, or "default"."""
    folders: tuple[Path, ...]
    """Read from all; written to the first that takes a file."""


class DamagedError(Exception):
    """A file does not hold what its name says."""


@cache
def places() -> Places:
    """Return where compiled kernels are kept, as the environment says when they are first needed.

    ``NUMBA_BN_CACHE`` is 0 (nowhere) or a folder; 1 is as if it were not set. Then it is in
    ``NUMBA_CACHE_DIR``, as for all of Numba, if that is set. Else it is ``__pycache__`` in the
    package, and the user's cache folder: both are read, so that what was compiled when an image was
    built, by another user, is found.
    """
    own = os.environ.get("NUMBA_BN_CACHE", "")
    if own == "0":
        return Places("NUMBA_BN_CACHE", ())
    if own not in ("", "1"):
        return Places("NUMBA_BN_CACHE", (Path(own).absolute(),))
    if numbas := os.environ.get("NUMBA_CACHE_DIR"):
        return Places("NUMBA_CACHE_DIR", (Path(numbas).absolute() / "numba_bn",))
    users = _users_cache()
    return Places("default", (PACKAGE / "__pycache__", *([users] if users else [])))


def _users_cache() -> Path | None:
    """Return the user's cache folder, if the user has a home."""
    try:
        home = Path.home()
    except RuntimeError:
        return None
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA", home / "AppData" / "Local"))
    elif sys.platform == "darwin":
        base = home / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache")
    # a home that is not there is not to be made: build machines name one to catch who does
    return base / "numba_bn" if base.is_absolute() and os.path.isdir(home) else None


def sources() -> bytes | None:
    """Return a digest of every source file of the package, or None if they cannot be read."""
    digest = sha256()
    try:
        for path in _sources_in(PACKAGE):
            content = path.read_bytes()
            digest.update(f"{path.relative_to(PACKAGE)}\0{len(content)}\0".encode() + content)
    except OSError:  # a package in a zip file
        return None
    return None if digest.digest() == sha256().digest() else digest.digest()


def _sources_in(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.suffix == ".py":
            yield path
        elif "." not in path.name and path.name != "__pycache__" and path.is_dir():
            yield from _sources_in(path)


def load(stamp: str, name: str, made_from: bytes, rebuilt: Callable[[bytes], _T]) -> _T | None:
    """Return what is rebuilt from the first file of that name that is whole, or None."""
    for place in places().folders:
        try:
            content = read(place, stamp, name, made_from)
            if content is not None:
                return rebuilt(content)
        except Exception as error:  # a damaged file can raise nearly anything
            _warn(place, error)
    return None


def keep(stamp: str, name: str, made_from: bytes, content: Callable[[], bytes]) -> None:
    """Write a file in the first place that takes it."""
    made = None
    for place in places().folders:
        try:
            made = made or content()
            write(place, stamp, name, made_from, made)
            return
        except Exception as error:
            _warn(place, error)


def _warn(place: Path, error: Exception) -> None:
    """Say once in a process what went wrong; that nobody offered a place is not wrong."""
    global _warned
    refused = isinstance(error, OSError) and error.errno in _NOT_WRITABLE
    if _warned or (refused and places().origin == "default"):
        return
    _warned = True
    warnings.warn(
        f"numba_bn: the cache of compiled kernels in {place} cannot be used "
        f"({type(error).__name__}: {error}); compiling instead. NUMBA_BN_CACHE names another "
        "folder for it, or is 0 for none",
        RuntimeWarning,
        stacklevel=3,
    )


def read(place: Path, stamp: str, name: str, made_from: bytes) -> bytes | None:
    """Return the content of a file, or None without one; a wrong one is a `DamagedError`."""
    path = _folder(place, stamp) / name
    try:
        data = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    content = data[2 * _DIGEST :]
    if data[: 2 * _DIGEST] != made_from + sha256(content).digest():
        raise DamagedError(f"{path} is not what was written there")
    _touch(path.parent)
    return content


def write(place: Path, stamp: str, name: str, made_from: bytes, content: bytes) -> None:
    """Write a file, whole or not at all."""
    folder = _folder(place, stamp)
    new = not folder.is_dir()
    folder.mkdir(parents=True, exist_ok=True)
    aside = folder / f"{name}.{secrets.token_hex(4)}.tmp"
    try:
        with open(aside, "xb") as file:
            file.write(made_from + sha256(content).digest() + content)
        os.replace(aside, folder / name)
    except BaseException:
        with suppress(OSError):
            aside.unlink()
        raise
    if new:
        _sweep(place)


def usage(place: Path) -> tuple[int, int]:
    """Return how many compiled kernels of any version lie in a place, and their bytes."""
    sizes = []
    for file in glob("kernels-*/*.nbc", root_dir=place):  # Path.glob raises where it may not look
        with suppress(OSError):
            sizes.append((place / file).stat().st_size)
    return len(sizes), sum(sizes)


def _folder(place: Path, stamp: str) -> Path:
    return place / f"kernels-{stamp}"


@cache
def _touch(folder: Path) -> None:
    """Note, once a process, that a folder is in use."""
    with suppress(OSError):
        os.utime(folder)


def _sweep(place: Path) -> None:
    """Remove the folders that were not used for longest; a process that uses one compiles again."""
    with suppress(OSError):
        folders = sorted(place.glob("kernels-*"), key=lambda f: f.stat().st_mtime)
        for folder in folders[:-_FOLDERS_KEPT]:
            for file in folder.iterdir():
                if file.suffix in (".nbc", ".tmp"):
                    file.unlink()
            folder.rmdir()
