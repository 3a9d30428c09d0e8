"""What is asked of the libraries whose arrays are on devices."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from numba_bn._view import Axes

if TYPE_CHECKING:
    from numba_bn._device import DeviceArray

Owner = Any
"""An array as its own library has it."""

Glance = tuple[Owner, int, Hashable, int | None]
"""An array, where it begins, what else calls depend on, and the stream it says it is made on."""


class Library(Protocol):
    """A module of ``numba_bn._adapters.cuda`` for the arrays of one library.

    All but ``upload`` and ``download`` leave the host free to go on.
    """

    __name__: str
    CONVERTS: bool
    """Whether it can copy an array to another dtype."""
    FOREIGN: bool
    """Whether its arrays may be made on another stream than its current one, by ``made_on``."""

    def seen(self, call: str, name: str, value: Owner) -> DeviceArray:
        """Return an array as the calls see it."""

    def glance(self, value: Owner) -> Glance | None:
        """Return what `seen` looks at, None of what it might refuse."""

    def address(self, owner: Owner) -> int:
        """Return where an array begins."""

    def stream(self, like: DeviceArray) -> int:
        """Return the handle of the stream that the caller's work is on."""

    def current(self, ordinal: int, made_on: int | None) -> int:
        """Return the same of an array by its device, and by the stream it says it is made on."""

    def made_on(self, array: DeviceArray) -> int | None:
        """Return the stream that must be waited for before an array is read, if there is one."""

    def keeper(self, like: DeviceArray) -> Any:
        """Return what keeps that stream from being destroyed, if the library has such a thing."""

    def empty(self, shape: Axes, dtype: np.dtype[Any], ordinal: int, stream: int) -> Owner:
        """Return a new C-ordered array on a device, for work on a stream that `current` gave."""

    def upload(self, array: np.ndarray[Any, Any], like: DeviceArray) -> Owner:
        """Return a copy of a NumPy array where another is, for work on its stream."""

    def download(self, owner: Owner) -> np.ndarray[Any, Any]:
        """Return a copy as a NumPy array; waits for the device."""

    def transpose(self, owner: Owner, axes: Axes) -> Owner:
        """Return a view with the axes in another order."""

    def reshape(self, owner: Owner, shape: Axes) -> Owner:
        """Return a view of a C-ordered array."""

    def broadcast(self, owner: Owner, shape: Axes) -> Owner:
        """Return a view, or copy, of a larger shape."""

    def packed(self, owner: Owner, axes: Axes) -> Owner:
        """Return a C-ordered copy with the axes in another order."""

    def cast(self, owner: Owner, dtype: np.dtype[Any]) -> Owner:
        """Return a copy of another dtype."""

    def assign(self, owner: Owner, value: Owner) -> None:
        """Copy ``value`` into an array."""

    def not_nan(self, owner: Owner) -> Owner:
        """Return where an array is not NaN."""

    def both(self, owner: Owner, other: Owner) -> Owner:
        """Return where two masks are both true."""
