"""The one place that compiles, caches and launches CPU kernels.

A kernel is one body with ``prange``; it becomes a serial and a parallel twin, each compiled on
first use. Where they are kept is `_cache`'s to say, when a parallel launch is safe `_policy`'s.
"""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

import numba

from numba_bn._interrupts import uninterrupted
from numba_bn._kernels import _cache
from numba_bn._kernels._compile import whole
from numba_bn._kernels._policy import policy

_PARALLEL_BYTES = 1 << 19  # below, waking threads costs about what they save, or far more

kernels: list[Kernel] = []
"""All there are."""


class Kernel:
    """One body, two twins: the same results, bit for bit."""

    def __init__(self, body: Callable[..., Any]) -> None:
        self._body = body
        self._twins: dict[bool, Any] = {}
        self.__doc__ = body.__doc__
        kernels.append(self)

    def twin(self, parallel: bool) -> Any:
        """Return the parallel or the serial twin."""
        if parallel not in self._twins:
            body = self._body
            named = types.FunctionType(body.__code__, body.__globals__, body.__name__)
            named.__qualname__ = f"{body.__qualname__}.{'parallel' if parallel else 'serial'}"
            named.__module__ = body.__module__
            compiled = whole(named, parallel=parallel)
            _cache.use(compiled)
            compiled.compile = uninterrupted()(compiled.compile)
            self._twins.setdefault(parallel, compiled)  # threads that race here compile once
        return self._twins[parallel]

    def __call__(self, nbytes: int, *args: Any) -> None:
        """Run on ``args``, in parallel if that pays for ``nbytes`` and is safe here and now."""
        self.run(nbytes, args)

    def run(self, nbytes: int, args: tuple[Any, ...]) -> None:
        """Do the same with a tuple."""
        threads = 1 if nbytes < _PARALLEL_BYTES else policy.threads()
        if threads == 1:
            (self._twins.get(False) or self.twin(False))(*args)
        else:
            policy.launch(threads, self.twin(True), args)

    def entry(self, args: tuple[Any, ...], parallel: bool) -> Callable[..., None]:
        """Return a twin for arguments of just the types of these."""
        entry: Callable[..., None] = self.twin(parallel).compile(tuple(map(numba.typeof, args)))
        return entry

    def complete(self) -> tuple[int, int]:
        """Compile or load each twin for what either has run on; return how often it was which."""
        signatures = {s for twin in self._twins.values() for s in twin.signatures}
        twins = [self.twin(parallel) for parallel in (False, True)] if signatures else []
        for twin in twins:
            for signature in signatures:
                twin.compile(signature)
        stats = [twin.stats for twin in twins]
        return (
            sum(sum(s.cache_misses.values()) for s in stats),
            sum(sum(s.cache_hits.values()) for s in stats),
        )


class Prepared:
    """A kernel for arguments that have the same types and as many bytes at every call.

    Numba need not look at them again, which takes it 0.3 µs, and 2 to 4 where other work has driven
    its code from the caches. It still refuses what is no array of the right itemsize and
    dimensions, and no more: the caller answers for the rest.
    """

    __slots__ = ("_entries", "_kernel", "run")

    def __init__(self, kernel: Kernel, nbytes: int) -> None:
        self._kernel, self._entries = kernel, dict[bool, Callable[..., None]]()
        self.run: Callable[..., None] = self._small if nbytes < _PARALLEL_BYTES else self._large

    def _small(self, *args: Any) -> None:
        """Run on arguments, and find out what is to run on all that follow."""
        self.run = self._entry(args, False)
        self.run(*args)

    def _large(self, *args: Any) -> None:
        """Run on arguments, in parallel if that is safe here and now."""
        threads = policy.threads()
        entry = self._entries.get(threads > 1) or self._entry(args, threads > 1)
        if threads == 1:
            entry(*args)
        else:
            policy.launch(threads, entry, args)

    def _entry(self, args: tuple[Any, ...], parallel: bool) -> Callable[..., None]:
        return self._entries.setdefault(parallel, self._kernel.entry(args, parallel))
