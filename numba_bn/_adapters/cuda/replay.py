"""Calls that were made before are made again at once: allocations and launches, no more.

What a call does, and whether it raises, depends on what `_key` takes in and on nothing else. The
first of its kind is traced, and any, the first too, is what the trace says: made by the arrays'
library and launched on its current stream. An error is raised by the trace, which is then not kept.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Mapping
from typing import Any, NamedTuple

import numpy as np

from numba_bn._adapters._convert import each
from numba_bn._device import DeviceArray, DeviceMoments, Library
from numba_bn._kernels.cuda import launch
from numba_bn._kernels.cuda.launch import Prepared
from numba_bn._kernels.cuda.trace import Make, Node, Trace, Untraceable
from numba_bn.stats.device import DeviceChannelStats

_PLAIN = frozenset((type(None), bool, int, float, str)) | {
    np.dtype(code).type for code in np.typecodes["AllInteger"] + np.typecodes["Float"]
}
"""Classes of options whose equals are alike, if of one class."""
_MOST = 4096


class Program(NamedTuple):
    """What a call does: its steps in order, and its result, of traced arrays."""

    steps: tuple[Make | Prepared, ...]
    result: Any

    def run(self, first: DeviceArray, arrays: list[DeviceArray], out: Any) -> Any:
        """Do it where ``first`` is, on ``arrays``; return arrays as their library's."""
        library, given = first.library, len(arrays)
        owners, addresses = [a.owner for a in arrays], [a.pointer for a in arrays]
        stream = library.stream(first)
        for step in self.steps:
            if isinstance(step, Prepared):
                launch.run(step, addresses, stream)
                continue
            new = _made(step, first, owners)
            owners.append(new)
            addresses.append(library.address(new))

        def theirs(item: Any) -> Any:
            if isinstance(item, DeviceArray):
                # of the arguments only out is ever returned
                return out if item.owner.slot < given else _viewed(item.owner, library, owners)
            if isinstance(item, DeviceChannelStats):
                rows = owners[item._moments.rows.owner.slot]
                return _with_rows(item, library.seen("", "", rows))
            return item

        return each(self.result, theirs)


def _made(step: Make, first: DeviceArray, owners: list[Any]) -> Any:
    library = first.library
    if step.source is None:
        return library.empty(step.shape, step.dtype, first)
    return library.cast(_viewed(step.source, library, owners), step.dtype)


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


def program(
    function: Callable[..., Any], first: DeviceArray, inside: Mapping[str, Any]
) -> tuple[Program | None, list[DeviceArray]]:
    """Return what a call does, if that can be said before it is done, and its arrays."""
    key, arrays = _key(function, first, inside)
    if key is None:
        return None, arrays
    found = _programs.get(key, _UNKNOWN)
    if found is _UNKNOWN:
        found = _traced(function, first.library, inside)
        with _keeping:
            if len(_programs) >= _MOST:  # shapes that change with every call come to no end
                _programs.pop(next(iter(_programs)))
            _programs[key] = found
    return found, arrays


def _key(
    function: Callable[..., Any], first: DeviceArray, inside: Mapping[str, Any]
) -> tuple[Hashable | None, list[DeviceArray]]:
    """Return what a call depends on, None if there is more to it, and its arrays."""
    arrays: list[DeviceArray] = []
    about: list[Any] = [function, first.library, first.ordinal]
    for name, value in inside.items():
        kind = type(value)
        if kind is DeviceArray:
            arrays.append(value)
            at = value.pointer % 16, value.writeable
            about.append((name, value.shape, value.strides, value.dtype, at))
        elif kind in _PLAIN:
            about.append((name, kind, value))
        elif kind in (tuple, list) and _PLAIN.issuperset(map(type, value)):
            about.append((name, kind, tuple(map(type, value)), tuple(value)))
        elif kind is DeviceChannelStats:
            (rows, values), view = value._moments, value._view
            arrays.append(rows)
            about.append((name, rows.shape, rows.pointer % 16, values, view))
        else:
            return None, arrays
    out = inside.get("out")
    if isinstance(out, DeviceArray):
        if any(_partly(out, a) for a in arrays):
            return None, arrays
        about.append(tuple([a.pointer == out.pointer for a in arrays]))
    return tuple(about), arrays


def _partly(out: DeviceArray, a: DeviceArray) -> bool:
    """Tell whether an array shares memory with ``out`` and is not the very same."""
    if a.pointer == out.pointer and (a.shape, a.strides) == (out.shape, out.strides):
        return a.dtype != out.dtype
    return out.overlaps(a)


def _traced(
    function: Callable[..., Any], library: Library, inside: Mapping[str, Any]
) -> Program | None:
    """Return what a call does; errors are those of the call."""
    trace, out = Trace(library.CONVERTS), inside.get("out")
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
    return Program(tuple(trace.steps), result) if all(isinstance(i, known) for i in items) else None
