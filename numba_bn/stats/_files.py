"""Statistics on disk: a file is written whole or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import numpy as np

from numba_bn._arrays import Array


def write(path: str | os.PathLike[str], arrays: Mapping[str, Array]) -> None:
    """Write arrays to `path` as ``.npz``."""
    path = os.path.realpath(os.fsdecode(path))
    if os.path.exists(path) and not os.path.isfile(path):
        raise ValueError(
            f"ChannelStats.save: path must be that of a regular file or a new one, got {path}"
        )
    named: dict[str, Any] = dict(arrays)
    aside = f"{path}.{secrets.token_hex(8)}.tmp"  # not tempfile: others could not read it
    try:
        with open(aside, "xb") as file:
            np.savez(file, **named)
            file.flush()
            os.fsync(file.fileno())  # else the name may outlive a power cut, but not the data
        os.replace(aside, path)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(aside)
        raise
