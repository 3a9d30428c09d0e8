"""Jobs that are stopped and go on: what was done and what came of it, in one file."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Mapping
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from numba_bn._arrays import Array
from numba_bn._files import path_of, remove_asides, write
from numba_bn.stats import ChannelStats

Merged = Mapping[str, ChannelStats]
"""Statistics by what they are of: by the channels, where those come in several blocks."""


class State(NamedTuple):
    """How far a job is: the number of blocks done, in their order, and what came of them."""

    done: int
    merged: Merged


class Checkpoint:
    """The file that holds the state of a job."""

    def __init__(
        self, call: str, path: str | os.PathLike[str], every: float, job: Mapping[str, Any]
    ) -> None:
        self._call, self._every = call, every
        self._path = path_of(call, "checkpoint", path)
        self._job: dict[str, Any] = json.loads(json.dumps({"call": call, **job}))
        self._saved = time.monotonic()

    def load(self) -> State:
        """Return what was done so far: nothing, where there is no file."""
        try:
            with open(self._path, "rb") as handle:
                job, state = self._read(handle)
        except FileNotFoundError:
            return State(0, {})
        self._compare([*self._job, *job], job)
        return state

    def begun(self) -> bool:
        """Tell whether there is a file; raise if it is of another call."""
        try:
            with open(self._path, "rb") as handle:
                job, _ = self._read(handle)
        except FileNotFoundError:
            return False
        self._compare(["call"], job)
        return True

    def _compare(self, keys: list[str], job: Mapping[str, Any]) -> None:
        """Raise if what a file is of differs."""
        for key in keys:
            mine, theirs = self._job.get(key), job.get(key)
            if mine != theirs:
                raise ValueError(
                    f"{self._call}: checkpoint {self._path} is of another job, with {key} "
                    f"{theirs}, not {mine}; remove it to begin anew"
                )

    def _read(self, handle: BinaryIO) -> tuple[dict[str, Any], State]:
        """Return the job and its state; nothing in the file is executed."""
        found: dict[str, dict[str, Array]] = {}
        try:
            with np.load(handle, allow_pickle=False) as file:
                job, done = json.loads(str(file["job"])), int(file["done"])
                for name in file.files:
                    key, slash, field = name.rpartition("/")
                    if slash:
                        found.setdefault(key, {})[field] = file[name]
            merged = {key: ChannelStats._from_arrays(arrays) for key, arrays in found.items()}
        except Exception as error:  # a damaged file can raise nearly anything
            text = f"{self._call}: {self._path} is not a checkpoint ({error})"
            raise ValueError(text) from error
        return job, State(done, merged)

    def due(self) -> bool:
        """Tell whether it is time to save."""
        return time.monotonic() - self._saved >= self._every

    def tidy(self) -> None:
        """Remove what was left of saves that were killed."""
        remove_asides(self._path)

    def save(self, state: State) -> None:
        """Write the file, whole or not at all."""
        arrays: dict[str, Any] = {
            f"{key}/{name}": array
            for key, stats in state.merged.items()
            for name, array in stats._arrays().items()
        }
        write(self._call, self._path, {"job": json.dumps(self._job), "done": state.done, **arrays})
        self._saved = time.monotonic()


def digest(array: Array | None) -> str | None:
    """Return a short text that differs between arrays that differ."""
    if array is None:
        return None
    content = hashlib.blake2b(f"{array.dtype.str} {array.shape}".encode(), digest_size=8)
    content.update(np.ascontiguousarray(array).view(np.uint8).data)
    return content.hexdigest()
