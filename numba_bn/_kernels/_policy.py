"""When a launch may be parallel, and by how many threads: decided here, for every kernel.

Serial is always right, as both twins give the same bits. A launch is parallel only where that
neither ends nor hangs the process: not from several threads under Numba's workqueue, which aborts;
not in a forked child whose parent may have left an OpenMP runtime or TBB half alive; not within
another parallel loop. Callers at once share the threads.
"""

from __future__ import annotations

import ctypes
import os
import re
import threading
import warnings
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from threading import get_ident
from typing import Any, NamedTuple

import numba
from numba.core.compiler_lock import global_compiler_lock

from numba_bn import _threads

_LIBRARIES = {"omp": "omppool", "tbb": "tbbpool", "workqueue": "workqueue"}
_FORKED = 0x40  # Linux's PF_FORKNOEXEC: a process that was forked, and has run no program since
_OPENMP = re.compile(r"lib(gomp|iomp|omp)[^/]*$", re.MULTILINE)


class _Pool(NamedTuple):
    """Numba's threads, once started, and what to ask them at a twentieth of what Numba takes."""

    layer: str
    starter: int | None
    """The thread that started them, if this package did."""
    mask: Callable[[], int]
    """How many threads `numba.set_num_threads` left to this thread."""
    set_mask: Callable[[int], None]
    inside: Callable[[], int]
    """Not 0 within a parallel loop."""


class Policy:
    """Says how a launch is to be, and makes the parallel ones."""

    def __init__(self) -> None:
        self._pool: _Pool | None = None
        self._forked = False
        self._serial = False
        self._busy: set[int] = set()
        self._starting = threading.Lock()

    def threads(self) -> int:
        """Return by how many threads a large launch may go here and now; 1 is the serial twin."""
        number = _threads.asked()
        if number == 1 or self._serial:
            return 1
        pool = self._pool or self._start()
        if pool is None or pool.inside():
            return 1
        if pool.layer == "workqueue" and get_ident() != threading.main_thread().ident:
            return 1  # it aborts under two callers, and another library may be the other one
        mask = pool.mask()
        if mask < number:
            number = mask
        if self._busy:
            number //= len(self._busy - {get_ident()}) + 1
        return number if number > 1 else 1

    def launch(self, threads: int, twin: Callable[..., Any], args: tuple[Any, ...]) -> None:
        """Run a parallel twin by as many threads as `threads` allowed."""
        pool, me = self._pool, get_ident()
        assert pool is not None
        mask = pool.mask()
        try:
            self._busy.add(me)
            if threads != mask:
                pool.set_mask(threads)
            twin(*args)
        finally:
            if threads != mask:
                pool.set_mask(mask)
            self._busy.discard(me)

    def after_fork(self) -> None:
        """Take a forked child for serial, unless its layer is known to live through a fork."""
        pool, self._forked = self._pool, True
        # TBB ends its threads before a fork if it is made by the thread that started them
        ended = pool is not None and pool.layer == "tbb" and pool.starter == get_ident()
        if pool is not None and pool.layer != "workqueue" and (self._busy or not ended):
            self._serial = True
        self._busy.clear()
        self._starting = threading.Lock()

    def _start(self) -> _Pool | None:
        """Start Numba's pool, or take over one that runs; None where that is unsafe or fails."""
        with self._starting:
            if self._pool is None and not self._serial:
                layer = _layer()
                if self._may_start(layer):
                    self._pool = _started(layer)
                self._serial = self._pool is None
            return self._pool

    def _may_start(self, layer: str | None) -> bool:
        """Tell whether threads may be started, or those of a running layer be used."""
        if layer == "workqueue" or not (self._forked or _forked_earlier()):
            return True
        # what hangs after a fork is an OpenMP that had threads before: here there never was one
        return layer is None and not _openmp_is_loaded()


def _layer() -> str | None:
    """Return Numba's threading layer, or None before its threads were started."""
    try:
        return str(numba.threading_layer())
    except ValueError:
        return None


def _started(layer: str | None) -> _Pool | None:
    """Start Numba's pool if no layer runs yet, and return it; None if no layer can be loaded."""
    try:
        numba.get_num_threads()
    except ValueError as error:
        text = f"numba_bn: Numba has no threads to use, so calls take one ({error})"
        warnings.warn(text, RuntimeWarning, stacklevel=2)
        return None
    return _pool_of(numba.threading_layer(), None if layer else get_ident())


def _pool_of(layer: str, starter: int | None) -> _Pool:
    """Return what there is to ask of a layer; PYFUNCTYPE, as letting go of the GIL takes longer."""
    library = import_module(f"numba.np.ufunc.{_LIBRARIES[layer]}")
    mask = ctypes.PYFUNCTYPE(ctypes.c_int)(library.get_num_threads)
    set_mask = ctypes.PYFUNCTYPE(None, ctypes.c_int)(library.set_num_threads)
    inside: Any = ctypes.PYFUNCTYPE(ctypes.c_int)(library.get_thread_id)
    if layer == "omp":
        # the thread that opened a loop works in it too, under id 0: OpenMP itself knows better
        inside = getattr(ctypes.PyDLL(library.__file__), "omp_in_parallel", inside)
    elif layer == "workqueue":
        inside = int  # always 0: the main thread, which alone may launch, only waits for loops
    return _Pool(layer, starter, mask, set_mask, inside)


def _forked_earlier() -> bool:
    """Tell whether this process was forked, even before this module was loaded; Linux tells."""
    try:
        stat = Path("/proc/self/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return bool(int(stat.rpartition(")")[2].split()[6]) & _FORKED)


def _openmp_is_loaded() -> bool:
    """Tell whether an OpenMP runtime, of PyTorch for one, is in this process; Linux tells."""
    try:
        maps = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return True
    return _OPENMP.search(maps) is not None


def _after_fork_in_child() -> None:
    global_compiler_lock.release()
    policy.after_fork()


policy = Policy()
if hasattr(os, "register_at_fork"):
    # a child forked while another thread compiles would wait for that thread, which it has not
    os.register_at_fork(
        before=global_compiler_lock.acquire,
        after_in_parent=global_compiler_lock.release,
        after_in_child=_after_fork_in_child,
    )
