"""Files that are written whole or not at all, and whether two names are of one."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import numpy as np

_BYTES = 8  # of what tells files aside apart


def path_of(call: str, name: str, path: object) -> str:
    """Return a path as text; numbers of open files are none."""
    try:
        return os.fsdecode(path)  # type: ignore[arg-type]
    except TypeError:
        kind = type(path).__name__
        raise TypeError(f"{call}: {name} must be a path, got {kind}") from None


def are_one_file(path: str, other: str) -> bool:
    """Tell whether two paths, of files that are there, are of the same one."""
    return os.path.exists(path) and file_of(path) == file_of(other)


def file_of(path: str) -> object:
    """Return what all names of a file have in common, links too; the name where there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return path
    return found.st_dev, found.st_ino


def write(call: str, path: str | os.PathLike[str], arrays: Mapping[str, Any]) -> None:
    """Write arrays to `path` as ``.npz``."""
    path = os.path.realpath(path_of(call, "path", path))
    if os.path.exists(path) and not os.path.isfile(path):
        raise ValueError(f"{call}: path must be that of a regular file or a new one, got {path}")
    named = dict(arrays)
    aside = f"{path}.{secrets.token_hex(_BYTES)}.tmp"  # not tempfile: others could not read it
    try:
        with open(aside, "xb") as file:
            np.savez(file, **named)
            file.flush()
            os.fsync(file.fileno())  # else the name may outlive a power cut, but not the data
        os.replace(aside, path)
    except BaseException as error:
        with suppress(FileNotFoundError):
            os.unlink(aside)
        if isinstance(error, OSError):
            text = f"{call}: cannot write {path} ({error.strerror or error})"
            raise failure(error, text) from error
        raise


def failure(error: Exception, text: str) -> OSError:
    """Return an error of the same number, if it has one, with another text."""
    number = getattr(error, "errno", None)
    return OSError(text) if number is None else OSError(number, text)


def remove_asides(path: str | os.PathLike[str]) -> None:
    """Remove what processes that were killed while they wrote to `path` left beside it."""
    folder, name = os.path.split(os.path.realpath(os.fsdecode(path)))
    aside = re.compile(rf"{re.escape(name)}\.[0-9a-f]{{{2 * _BYTES}}}\.tmp")
    with suppress(OSError):  # they do no harm
        for other in os.listdir(folder):
            if aside.fullmatch(other):
                os.unlink(os.path.join(folder, other))
