"""Reading ahead, in a thread or several."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Generic, NamedTuple, TypeVar

_T = TypeVar("_T")
_R = TypeVar("_R")


class Part(NamedTuple, Generic[_R]):
    """What was read, and whether the caller had to wait for it: the reader is the slower one."""

    value: _R
    late: bool


@contextmanager
def ahead(
    read: Callable[[_T], _R], items: Iterable[_T], threads: int = 1
) -> Iterator[Iterator[Part[_R]]]:
    """Give ``read(item)`` of every item in order, the next ones being read while the caller works.

    What one thread gave before may be overwritten by the read after the next. Threads have ended
    when the block ends, however it ends; an error of `read` comes where its result would have.
    """
    readers = ThreadPoolExecutor(threads, "numba_bn-reader")
    try:
        yield _results(readers, read, items, threads)
    finally:
        readers.shutdown(cancel_futures=True)


def _results(
    readers: ThreadPoolExecutor, read: Callable[[_T], _R], items: Iterable[_T], threads: int
) -> Iterator[Part[_R]]:
    """Yield what was read, in order."""
    pending = deque[Future[_R]]()
    late = False  # the first one had no time to be early
    for item in items:
        # asked for before the one at hand is given: no reader waits for a word
        pending.append(readers.submit(read, item))
        if len(pending) > threads:
            yield Part(pending.popleft().result(), late)
            late = not pending[0].done()
    while pending:
        yield Part(pending.popleft().result(), late)
