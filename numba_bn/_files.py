"""Files that are written whole or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import BinaryIO


@contextmanager
def replaced(call: str, path: str | os.PathLike[str] | bytes) -> Iterator[BinaryIO]:
    """Give a file to write, which takes the place of `path` at the end, unless an error came."""
    path = os.path.realpath(os.fsdecode(path))
    if os.path.exists(path) and not os.path.isfile(path):
        raise ValueError(f"{call}: path must be that of a regular file or a new one, got {path}")
    aside = f"{path}.{secrets.token_hex(8)}.tmp"  # not tempfile: others could not read it
    try:
        with open(aside, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())  # else the name may outlive a power cut, but not the data
        os.replace(aside, path)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(aside)
        raise
