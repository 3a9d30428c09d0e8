"""The one place that compiles, caches and launches CPU kernels.

A kernel is one body with ``prange``; it becomes a serial and a parallel twin, each compiled on
first use and cached on disk by a cache that can only help: its key holds the flags and the sources
of the whole package, and whatever goes wrong with a file costs a warning and a compilation.
"""

from __future__ import annotations

import hashlib
import os
import threading
import types
import warnings
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import numba
from numba.core.caching import FunctionCache, IndexDataCacheFile

from numba_bn._kernels._compile import whole

_PARALLEL_BYTES = 1 << 18  # below, waking threads costs more than they save
_FORK_SAFE = ("tbb", "workqueue")

_PACKAGE = Path(__file__).resolve().parents[1]


@cache
def _package_stamp() -> str:
    """Return a hash of Numba's version and every source file of the package."""
    digest = hashlib.sha256(numba.__version__.encode())
    for path in sorted(_PACKAGE.rglob("*.py")):
        digest.update(str(path.relative_to(_PACKAGE)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


class _Cache(FunctionCache):  # type: ignore[misc]
    """Numba's on-disk cache, stamped with the whole package; its failures stay its own."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)
        self._cache_file = IndexDataCacheFile(
            cache_path=self._cache_path,
            filename_base=self._impl.filename_base,
            source_stamp=_package_stamp(),
        )

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        try:
            result = super().load_overload(sig, target_context)
            if result is not None and tuple(result.signature.args) != tuple(sig):
                raise ValueError("an entry is for another signature")
            return result
        except Exception as error:
            self._give_up(error)
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        try:
            super().save_overload(sig, data)
        except Exception as error:
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        warnings.warn(
            f"numba_bn: the cache of compiled kernels in {self._cache_path} cannot be used "
            f"({type(error).__name__}: {error}); compiling instead",
            RuntimeWarning,
            stacklevel=2,
        )
        try:
            self.flush()
        except Exception:
            self.disable()


class Kernel:
    """One body, two twins: the same results, bit for bit."""

    def __init__(self, body: Callable[..., Any]) -> None:
        self._body = body
        self._twins: dict[bool, Any] = {}
        self.__doc__ = body.__doc__

    def twin(self, parallel: bool) -> Any:
        """Return the parallel or the serial twin."""
        if parallel not in self._twins:
            body = self._body
            named = types.FunctionType(body.__code__, body.__globals__, body.__name__)
            named.__qualname__ = f"{body.__qualname__}.{'parallel' if parallel else 'serial'}"
            named.__module__ = body.__module__
            compiled = whole(named, parallel=parallel)
            with suppress(RuntimeError):  # no directory to write to: compile in memory
                compiled._cache = _Cache(compiled.py_func)
            self._twins[parallel] = compiled
        return self._twins[parallel]

    def __call__(self, nbytes: int, *args: Any) -> None:
        """Run on ``args``, in parallel if that pays for ``nbytes`` and is safe here and now."""
        if nbytes < _PARALLEL_BYTES or not _policy.enter():
            self.twin(False)(*args)
            return
        try:
            self.twin(True)(*args)
        finally:
            _policy.leave()


class _Policy:
    """When a parallel launch is safe."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.forked = False
        self._held = threading.local()

    def after_fork(self) -> None:
        self.lock = threading.Lock()
        self.forked = True

    def enter(self) -> bool:
        """Tell whether this thread may go parallel; if so, `leave` must follow."""
        layer = _layer()
        if self.forked and layer not in _FORK_SAFE:
            return False
        self._held.lock = None
        if layer in ("omp", "tbb"):
            return True
        # workqueue aborts the process under two callers; an unknown layer may turn out to be that
        lock = self.lock
        if not lock.acquire(blocking=layer is None):
            return False
        self._held.lock = lock
        return True

    def leave(self) -> None:
        """End what `enter` allowed."""
        lock = self._held.lock
        self._held.lock = None
        if lock is not None:
            lock.release()


def _layer() -> str | None:
    """Return the threading layer, or None before anything was launched."""
    try:
        return str(numba.threading_layer())
    except ValueError:
        return None


_policy = _Policy()
os.register_at_fork(after_in_child=_policy.after_fork)
