"""Calls that were made before are made again at once: allocations and launches, no more.

What a call does, and whether it raises, depends on what `looks.look` takes in and on nothing else.
The first of its kind is traced, and any, the first too, is what the trace says: made by the arrays'
library and launched on its current stream. An error is raised by the trace, which is then not kept.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Any, NamedTuple

from numba_bn._adapters._convert import each
from numba_bn._adapters.cuda.looks import Look
from numba_bn._device import DeviceArray, DeviceMoments, extent
from numba_bn._kernels.cuda import driver, launch
from numba_bn._kernels.cuda.launch import Prepared
from numba_bn._kernels.cuda.trace import Make, Node, Trace, Untraceable
from numba_bn._library import Library
from numba_bn.stats.device import DeviceChannelStats

_MOST = 4096


class Program(NamedTuple):
    """What a call does: its steps in order, and its result, an array being its node."""

    steps: tuple[Make | Prepared, ...]
    result: Any
    library: Library
    ordinal: int
    first: int
    """Which of the arrays that are given decides on the stream."""
    out: int | None
    """Which of them is written, where one is; of these that alone is ever returned."""
    extents: tuple[tuple[int, int], ...]
    """Where the bytes of each begin and end, counted from its address."""

    def fits(self, addresses: list[int]) -> bool:
        """Tell whether what is written is apart from all that does not begin there."""
        if self.out is None:
            return True
        at, (first, last) = addresses[self.out], self.extents[self.out]
        begin, end = at + first, at + last
        for address, (low, high) in zip(addresses, self.extents, strict=True):
            if address != at and address + low < end and begin < address + high:
                return False
        return True

    def run(self, look: Look, out: Any) -> Any:
        """Do it on the arrays of a call; return arrays as their library's."""
        _, owners, addresses, streams = look
        driver.driver()  # or say that it is of no use since this process was forked
        library, ordinal = self.library, self.ordinal
        stream = library.current(ordinal, streams[self.first])
        if library.FOREIGN:
            wait(ordinal, stream, streams)
        for step in self.steps:
            if isinstance(step, Prepared):
                launch.run(step, addresses, stream)
                continue
            if step.source is None:
                new = library.empty(step.shape, step.dtype, ordinal, stream)
            else:
                new = library.cast(_viewed(step.source, library, owners), step.dtype)
            owners.append(new)
            addresses.append(library.address(new))
        if self.out is not None:
            owners[self.out] = out
            if library.FOREIGN:
                be_waited_for(ordinal, stream, library.current(ordinal, streams[self.out]))
        if type(self.result) is Node:
            return _viewed(self.result, library, owners)
        return each(self.result, lambda item: _theirs(item, library, owners))


def wait(ordinal: int, ours: int, others: Iterable[int | None]) -> None:
    """Let the stream of a call wait for those that its arrays say they are made on."""
    for other in set(others):
        if other is not None and other != ours:
            driver.driver().wait(ordinal, ours, other)


def be_waited_for(ordinal: int, ours: int, theirs: int) -> None:
    """Let the stream that an output says it is made on wait for the call's, where it was written.

    Who reads it looks at that stream alone.
    """
    if theirs != ours:
        driver.driver().wait(ordinal, theirs, ours)


def _theirs(item: Any, library: Library, owners: list[Any]) -> Any:
    if isinstance(item, Node):
        return _viewed(item, library, owners)
    if isinstance(item, DeviceChannelStats):
        rows = owners[item._moments.rows.owner.slot]
        return _with_rows(item, library.seen("", "", rows))
    return item


def _viewed(node: Node, library: Library, owners: list[Any]) -> Any:
    owner = owners[node.slot]
    for what, how in node.views:
        owner = owner[how] if what == "row" else getattr(library, what)(owner, how)
    return owner


def _with_rows(stats: DeviceChannelStats, rows: DeviceArray) -> DeviceChannelStats:
    return DeviceChannelStats(DeviceMoments(rows, stats._moments.values), stats._view)


_programs: dict[Hashable, Program | None] = {}
"""None: what cannot be said before it is done. The oldest comes first."""
_keeping = threading.Lock()
_UNKNOWN: Any = object()


def kept(look: Look) -> Program | None:
    """Return what a call does, if one like it was made before."""
    program = _programs.get(look[0])
    return program if program is not None and program.fits(look[2]) else None


def program(
    look: Look, function: Callable[..., Any], first: DeviceArray, inside: Mapping[str, Any]
) -> Program | None:
    """Return what a call does, if that can be said before it is done."""
    key, out, arrays = look[0], inside.get("out"), _arrays(inside)
    if isinstance(out, DeviceArray) and any(_partly(out, a) for a in arrays):
        return None
    found: Program | None = _programs.get(key, _UNKNOWN)
    if found is _UNKNOWN:
        found = _traced(function, first, inside, arrays)
        with _keeping:
            if len(_programs) >= _MOST:  # shapes that change with every call come to no end
                _programs.pop(next(iter(_programs)))
            _programs[key] = found
    return found


def _arrays(inside: Mapping[str, Any]) -> list[DeviceArray]:
    """Return the arrays among arguments as the calls see them, those of statistics too."""
    rows = (v._moments.rows if type(v) is DeviceChannelStats else v for v in inside.values())
    return [v for v in rows if type(v) is DeviceArray]


def is_of(look: Look, inside: Mapping[str, Any]) -> bool:
    """Tell whether a look at arguments saw all arrays that were made of them."""
    return len(look[1]) == len(_arrays(inside))


def _partly(out: DeviceArray, a: DeviceArray) -> bool:
    """Tell whether an array shares memory with ``out`` and is not the very same."""
    if a.pointer == out.pointer and (a.shape, a.strides) == (out.shape, out.strides):
        return a.dtype != out.dtype
    return out.overlaps(a)


def _traced(
    function: Callable[..., Any],
    first: DeviceArray,
    inside: Mapping[str, Any],
    arrays: list[DeviceArray],
) -> Program | None:
    """Return what a call does; errors are those of the call."""
    trace, out = Trace(first.library.CONVERTS), inside.get("out")
    place = out.pointer if isinstance(out, DeviceArray) else None

    def traced(value: Any) -> Any:
        if isinstance(value, DeviceArray):
            return trace.argument(value, value.pointer == place)
        if isinstance(value, DeviceChannelStats):
            return _with_rows(value, trace.argument(value._moments.rows))
        return value

    try:
        result = function(**{name: traced(value) for name, value in inside.items()})
    except Untraceable:
        return None
    known = DeviceArray, DeviceChannelStats, type(None)
    items = result if isinstance(result, tuple) else (result,)
    if not all(isinstance(item, known) for item in items):
        return None
    number = {id(array): i for i, array in enumerate(arrays)}
    extents = tuple(extent(a.shape, a.strides, a.itemsize) for a in arrays)
    where = first.library, first.ordinal, number[id(first)], number.get(id(out))
    result = each(result, lambda item: item.owner if isinstance(item, DeviceArray) else item)
    return Program(tuple(trace.steps), result, *where, extents)
