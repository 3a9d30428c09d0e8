"""How many threads large calls may use, and who said so; needs no Numba, and starts no thread.

The first of these that says something holds: `threads` or threadpoolctl, for the code within;
`set_num_threads`; ``NUMBA_BN_NUM_THREADS``; ``OMP_NUM_THREADS``; the CPUs this process may use, by
affinity and cgroup quota. Numba's own pool and mask are a ceiling on all of them.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from functools import cache

from numba_bn import _validate as check
from numba_bn._processors import affinity, available

_here: ContextVar[int | None] = ContextVar("numba_bn.threads", default=None)
_process: int | None = None


def set_num_threads(n: int | None) -> None:
    """Let large calls of this process use at most `n` threads.

    It holds for calls from every thread, those that start later too. Results do not depend on it.

    Parameters
    ----------
    n : int or None
        At least 1; more than Numba's pool has are not used. None is for what the environment and
        the machine say: ``NUMBA_BN_NUM_THREADS``, else ``OMP_NUM_THREADS``, else CPU affinity and
        cgroup quota, whichever is less.

    Raises
    ------
    TypeError, ValueError
        If `n` is not an integer, or below 1.

    Examples
    --------
    >>> import numba_bn as nbn
    >>> nbn.set_num_threads(1)
    >>> nbn.get_num_threads()
    1
    >>> nbn.set_num_threads(None)
    """
    global _process
    _process = None if n is None else check.positive_int("set_num_threads", "n", n)


def get_num_threads() -> int:
    """Return how many threads a large call from here may use.

    It is a ceiling: small calls, calls that find others at work, and calls from a place where
    threads would be dangerous take fewer. Asking starts no thread.

    Returns
    -------
    int
        At least 1.

    Examples
    --------
    >>> import numba_bn as nbn
    >>> with nbn.threads(1):
    ...     nbn.get_num_threads()
    1
    """
    return origin()[0]


def threads(n: int) -> AbstractContextManager[None]:
    """Let large calls within a ``with`` block use at most `n` threads.

    It holds for calls of the thread, or asyncio task, that runs the block, and goes before
    `set_num_threads`. Results do not depend on it.

    Parameters
    ----------
    n : int
        At least 1; more than Numba's pool has are not used.

    Returns
    -------
    context manager

    Raises
    ------
    TypeError, ValueError
        If `n` is not an integer, or below 1.

    Examples
    --------
    >>> import numpy as np
    >>> import numba_bn as nbn
    >>> with nbn.threads(1):
    ...     y = nbn.layer_norm(np.eye(2))
    """
    return _scope(check.positive_int("threads", "n", n))


@contextmanager
def _scope(n: int) -> Iterator[None]:
    before = _here.get()
    try:  # an interrupt from here on leaves the number as it was
        _here.set(n)
        yield
    finally:
        _here.set(before)


def limit(n: int) -> None:
    """Set the number of threads of this thread from here on, as threadpoolctl does and undoes."""
    # it undoes by setting the number it found: if nobody had set one here, nobody has again
    token = _here.set(None)
    if n != get_num_threads():
        _here.reset(token)
        _here.set(n)


def asked() -> int:
    """Return the number of threads that was asked for here, whatever Numba has."""
    return _here.get() or _process or _default()[0]


def origin() -> tuple[int, str]:
    """Return how many threads a large call from here may use, and what that number is from."""
    if here := _here.get():
        found = here, "numba_bn.threads or threadpoolctl"
    elif _process:
        found = _process, "numba_bn.set_num_threads"
    else:
        found = _default()
    ceilings = [(_mask(), "numba.set_num_threads"), (_pool_size(), "NUMBA_NUM_THREADS")]
    for number, name in ceilings:
        if number is not None and number < found[0]:
            found = number, name
    return found


@cache
def _default() -> tuple[int, str]:
    """Return what the environment says, else the machine; read once, at the first call."""
    for name in ("NUMBA_BN_NUM_THREADS", "OMP_NUM_THREADS"):
        if number := _variable(name):
            return number, name
    text = os.environ.get("NUMBA_BN_NUM_THREADS")
    if text:
        warnings.warn(
            f"numba_bn: NUMBA_BN_NUM_THREADS must be a positive integer, got {text!r}; ignored",
            RuntimeWarning,
            stacklevel=2,
        )
    return available()


def _variable(name: str) -> int | None:
    """Return a number from the environment; of OpenMP's lists, by level of nesting, the first."""
    first = os.environ.get(name, "").partition(",")[0].strip()
    return int(first) or None if first.isdecimal() else None


def _pool_size() -> int:
    """Return how many threads Numba's pool has or would have, without loading Numba."""
    config = sys.modules.get("numba.core.config")
    if config is not None and hasattr(config, "NUMBA_NUM_THREADS"):
        return int(config.NUMBA_NUM_THREADS)
    return _variable("NUMBA_NUM_THREADS") or affinity()


def _mask() -> int | None:
    """Return what `numba.set_num_threads` left of the pool; None before there is a pool."""
    numba = sys.modules.get("numba")
    try:
        numba.threading_layer()  # type: ignore[union-attr]
        return int(numba.get_num_threads())  # type: ignore[union-attr]
    except (AttributeError, ValueError, RuntimeError):  # no Numba, no pool, a pool lost in a fork
        return None
