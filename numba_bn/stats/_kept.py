"""Statistics as a value: one state, compared, pickled, and kept in files."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Self

import numpy as np

from numba_bn._arrays import Array
from numba_bn._files import path_of, write
from numba_bn._view import Axes
from numba_bn.stats._exact import Exact, exact_from
from numba_bn.stats._moments import Moments, moments_of


class Kept:
    """What `ChannelStats` has of that; its own name is in the errors."""

    __slots__ = ("_state",)
    __hash__ = None  # type: ignore[assignment]
    _state: Moments | Exact
    """All there is in one, so that an interrupt cannot leave it out of step."""

    @classmethod
    def _with(cls, state: Moments | Exact) -> Self:
        """Return the statistics in a state."""
        self = cls.__new__(cls)
        self._state = state
        return self

    def _arrays(self) -> dict[str, Array]:
        """Return all there is to keep, by name."""
        return self._state.arrays()

    @classmethod
    def _from_arrays(cls, arrays: Mapping[str, Array]) -> Self:
        """Return the statistics in what `_arrays` gave."""
        exact = "exact_version" in arrays
        return cls._with(exact_from(arrays) if exact else moments_of(**arrays))

    def _among(self, place: tuple[slice, ...], channels: Axes) -> Self:
        """Return statistics of all `channels`: of those at `place` these, of the others none."""
        arrays, ndim = self._arrays(), self._state.count.ndim
        last: Any = (..., *place)
        for name, array in arrays.items():
            if array.ndim >= ndim:  # its last axes are the channels'
                shape = array.shape[: array.ndim - ndim] + channels
                whole = np.full(shape, np.nan if name == "mean" else 0, array.dtype)
                whole[last] = array
                arrays[name] = whole
        return self._from_arrays(arrays)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write to a file as ``.npz``, which is replaced whole or not at all.

        Parameters
        ----------
        path : path
            A new file, or a regular one that is there; its name is taken as it is.

        Raises
        ------
        TypeError, ValueError
            If it is no path, or something else than a regular file is there.
        OSError
            If the file cannot be written, as on a full disk; an old one stays.
        """
        write("ChannelStats.save", path, self._arrays())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read what `save` wrote; nothing in the file is executed.

        Parameters
        ----------
        path : path
            The file.

        Returns
        -------
        ChannelStats

        Raises
        ------
        TypeError, ValueError
            If it is no path, or the file is damaged, or of something else.
        OSError
            If it cannot be read.
        """
        name = path_of("ChannelStats.load", "path", path)
        with open(name, "rb") as handle:
            try:
                with np.load(handle, allow_pickle=False) as file:
                    return cls._from_arrays(file)
            except Exception as error:  # a damaged file can raise nearly anything
                raise ValueError(
                    f"ChannelStats.load: {name} is not a file of ChannelStats ({error})"
                ) from error

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Kept):
            return NotImplemented
        mine, theirs = self._arrays(), other._arrays()
        return mine.keys() == theirs.keys() and all(
            np.array_equal(mine[k], theirs[k], equal_nan=True) for k in mine
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self)._from_arrays, (self._arrays(),)
