"""Reading ahead, in one thread."""

from __future__ import annotations

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
def ahead(read: Callable[[_T], _R], items: Iterable[_T]) -> Iterator[Iterator[Part[_R]]]:
    """Give ``read(item)`` of every item, the next one being read while the caller works.

    What was given before may be overwritten by the read after the next. The thread has ended when
    the block ends, however it ends; an error of `read` comes where its result would have.
    """
    reader = ThreadPoolExecutor(1, "numba_bn-reader")
    try:
        yield _results(reader, read, items)
    finally:
        reader.shutdown(cancel_futures=True)


def _results(
    reader: ThreadPoolExecutor, read: Callable[[_T], _R], items: Iterable[_T]
) -> Iterator[Part[_R]]:
    """Yield what was read, in order."""
    pending: Future[_R] | None = None
    late = False  # the first one had no time to be early
    for item in items:
        # asked for before the one at hand is given: the reader never waits for a word
        pending, ready = reader.submit(read, item), pending
        if ready is not None:
            yield Part(ready.result(), late)
            late = not pending.done()
    if pending is not None:
        yield Part(pending.result(), late)
