"""Plans are prepared once and launched often: on one stream, in order, with its own work space.

Nothing here waits for a device.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

import numpy as np

from numba_bn._kernels.cuda import driver
from numba_bn._kernels.cuda.kernel import Plan, Step

_WORKSPACE = "workspace"
_WORDS = 512
"""Words of eight bytes that all arguments of a kernel fit in: the driver takes no more."""

Place = tuple[int, Any, int]
"""Place among the arguments, what the buffer goes by, offset into it."""


class _Launch(NamedTuple):
    """A step whose kernel is loaded; of its arguments the addresses are missing."""

    how: Any
    arguments: memoryview
    places: tuple[Place, ...]
    """Of the caller's buffers."""
    rooms: tuple[Place, ...]
    """Of the work space."""


class Prepared(NamedTuple):
    """A plan for one device: kernels loaded, arguments packed."""

    ordinal: int
    launches: tuple[_Launch, ...]
    workspace: int

    def bound(self, places: Mapping[str, tuple[int, int]]) -> Prepared:
        """Return the plan with buffers by number: name → number, and offset into that one."""

        def by_number(place: Place) -> Place:
            at, name, offset = place
            number, more = places[name]
            return at, number, offset + more

        placed = (
            each._replace(places=tuple(map(by_number, each.places))) for each in self.launches
        )
        return self._replace(launches=tuple(placed))


class _Queue:
    """What the launches on one stream share, of which one plan at a time is launched."""

    def __init__(self, stream: int) -> None:
        self.lock = threading.Lock()
        self.stream = driver.driver().stream(stream)
        words = np.zeros(_WORDS, np.int64)
        self.arguments = words.data
        """The driver copies them at each launch."""
        self._addresses = words.ctypes.data + words.itemsize * np.arange(_WORDS)
        self.parameters = self._addresses.ctypes.data
        self.nbytes = 0
        self.workspace = 0
        self._owners: list[Any] = []
        """A CUDA graph captured on the stream goes on to use the work space of its time."""

    def grow(self, ordinal: int, stream: int, nbytes: int) -> None:
        """Have a work space so large, and twice the last: all before take no more than it does."""
        d, nbytes = driver.driver(), max(nbytes, 2 * self.nbytes)
        if d.captures(ordinal, stream):  # it would be there for as long as the graph runs
            raise RuntimeError(
                "numba_bn: a CUDA graph that is being captured cannot allocate work space; make "
                "the same calls once on that stream before"
            )
        self.workspace, owner = d.zeros(ordinal, nbytes, stream)
        self.nbytes = nbytes
        self._owners.append(owner)


_queues: dict[tuple[int, int], _Queue] = {}
"""By device and stream. A stream keeps its own until the process ends: some 100 KB for batch norm,
for samples with channels last 32 bytes a channel of each, three times that for their gradients.

CUDA gives a destroyed stream's handle to another one, which has its queue then.
"""
_LEGACY_DEFAULT, _PER_THREAD = 1, 2
"""Handles: of a default stream for all threads, and of one that each thread has of its own."""
_left: dict[int, list[_Queue]] = {}
"""By device, the queues of threads that ended: there are no more than threads at one time."""


class _Own:
    """By device, the queues of a thread's own default streams; others have them when it ends."""

    def __init__(self) -> None:
        self.queues: dict[int, _Queue] = {}

    def __del__(self, left: dict[int, list[_Queue]] = _left) -> None:
        for ordinal, queue in self.queues.items():
            left.setdefault(ordinal, []).append(queue)


_thread = threading.local()


def _own_queue(ordinal: int) -> _Queue:
    """Return the queue of this thread's own default stream."""
    try:
        own = _thread.own
    except AttributeError:
        own = _thread.own = _Own()
    queue: _Queue | None = own.queues.get(ordinal)
    if queue is None:
        try:
            queue = _left[ordinal].pop()
        except LookupError:
            queue = _Queue(_PER_THREAD)
        else:  # the legacy stream keeps order with those of all threads, ended ones too
            driver.driver().wait(ordinal, _PER_THREAD, _LEGACY_DEFAULT)
        own.queues[ordinal] = queue
    return queue


def prepare(plan: Plan, ordinal: int) -> Prepared:
    """Compile or load a plan's kernels, for a device."""
    d = driver.driver()
    entered = d.enter(ordinal)
    try:
        launches = tuple(_packed(d.how(ordinal, step), step) for step in plan.steps)
    finally:
        if entered:
            d.leave()
    return Prepared(ordinal, launches, plan.workspace)


def _packed(how: Any, step: Step) -> _Launch:
    words = np.zeros(len(step.arguments), np.int64)
    places: list[Place] = []
    rooms: list[Place] = []
    for i, argument in enumerate(step.arguments):
        if isinstance(argument, str):
            name, _, offset = argument.partition("+")
            (rooms if name == _WORKSPACE else places).append((i, name, int(offset or 0)))
        elif isinstance(argument, int | float):
            words.view(np.float64 if isinstance(argument, float) else np.int64)[i] = argument
        else:  # the kernel would read its bits as those of another kind
            raise TypeError(
                f"{step.kernel.name}: argument {i} must be a str, int or float, got {argument!r}"
            )
    return _Launch(how, words.data, tuple(places), tuple(rooms))


def run(prepared: Prepared, addresses: Mapping[str, int] | Sequence[int], stream: int) -> None:
    """Launch a plan on a stream; ``addresses`` are those of its buffers, by name or number."""
    d, buffers = driver.driver(), cast("Mapping[Any, int]", addresses)
    ordinal, launches, nbytes = prepared
    if stream == _PER_THREAD:
        queue = _own_queue(ordinal)
    else:
        queue = _queues.get((ordinal, stream)) or _queues.setdefault(
            (ordinal, stream), _Queue(stream)
        )
    entered = d.enter(ordinal)
    try:
        with queue.lock:
            if queue.nbytes < nbytes:
                queue.grow(ordinal, stream, nbytes)
            arguments = queue.arguments
            for how, packed, places, rooms in launches:
                arguments[: len(packed)] = packed
                for place, buffer, offset in places:
                    arguments[place] = buffers[buffer] + offset
                for place, _, offset in rooms:
                    arguments[place] = queue.workspace + offset
                d.launch(how, queue.stream, queue.parameters)
    finally:
        if entered:
            d.leave()
