"""Arrays on a device that a state holds, and the streams that use them.

Arrays of CuPy and PyTorch do not say what they were made on, and their memory goes back to the
stream that it was allocated for. What a state reads on another stream is ordered here.
"""

from __future__ import annotations

import threading
from typing import Any

from numba_bn._device import DeviceArray

_LEGACY_DEFAULT, _PER_THREAD = 1, 2

Key = tuple[int, object]
"""A stream's handle, and what stands for the thread if it is that thread's own default stream."""

_thread = threading.local()
_in_graphs: list[Any] = []
"""What captured CUDA graphs go on to use: nobody can tell when the last of them is gone."""


class Streams:
    """The stream that arrays were made on, and the others that read them since."""

    def __init__(self, like: DeviceArray, stay: bool = False) -> None:
        """Take note of arrays made now, on the stream of ``like``."""
        self.stay = stay
        """Whether a CUDA graph uses the arrays: updates then have to write to them."""
        self._ordinal, self._home = like.ordinal, _key(like)
        self._kept = [like.library.keeper(like)]
        self._readers: list[Key] = []

    def join(self, like: DeviceArray) -> None:
        """Let the stream of ``like`` wait until the arrays are made, the first time it reads."""
        reader = _key(like)
        if reader != self._home and reader not in self._readers:
            _driver().wait(self._ordinal, reader[0], _address(self._home))
            self._readers.append(reader)
            self._kept.append(like.library.keeper(like))

    def leave(self) -> None:
        """Let the arrays' own stream, which has their memory next, wait for all that read them."""
        for reader in self._readers:
            _driver().wait(self._ordinal, _address(self._home), _address(reader))

    def overwrite(self, like: DeviceArray) -> None:
        """Let the stream of ``like``, which writes to the arrays next, wait for who read them."""
        writer = _key(like)
        for reader in self._readers:
            if reader != writer:
                _driver().wait(self._ordinal, writer[0], _address(reader))

    def capture(self, arrays: list[DeviceArray]) -> None:
        """Have the arrays stay, as a CUDA graph is to use them at each replay."""
        if not self.stay:
            self.stay = True
            _in_graphs.append(arrays)

    def __reduce__(self) -> tuple[Any, ...]:
        """Be None in a copy, whose arrays are made now: wait until those to be copied are there."""
        _driver().synchronize(self._ordinal, _address(self._home))
        return type(None), ()


def captures(like: DeviceArray) -> bool:
    """Tell whether what comes on the stream of ``like`` goes into a CUDA graph."""
    captured: bool = _driver().captures(like.ordinal, like.library.stream(like))
    return captured


def _key(like: DeviceArray) -> Key:
    stream = like.library.stream(like)
    return stream, _this_thread() if stream == _PER_THREAD else None


def _this_thread() -> object:
    """Return what no other thread has, not even one that comes later: idents are used again."""
    try:
        return _thread.token
    except AttributeError:
        _thread.token = object()
        return _thread.token


def _address(key: Key) -> int:
    """Return a handle that means the stream in any thread.

    A thread's own default stream has none, but keeps order with the legacy one, as that with it.
    """
    return _LEGACY_DEFAULT if key[0] == _PER_THREAD else key[0]


def _driver() -> Any:
    from numba_bn._kernels.cuda.driver import driver

    return driver()
