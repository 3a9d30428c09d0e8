"""What a call depends on, read of its arguments as they are: a later one is known again by it.

It is all that tells two calls apart whose arguments are accepted: where arrays are and how they
lie, but not what is in them.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from functools import cache
from importlib import import_module
from typing import Any

import numpy as np

from numba_bn._device import DeviceArray
from numba_bn._library import Glance
from numba_bn.stats.device import DeviceChannelStats

Look = tuple[Hashable, list[Any], list[int], list[int | None]]
"""What a call depends on; of its arrays, in order, the owners, addresses and streams made on."""

_LIBRARIES = ("cupy", "torch")
"""Packages that have a module here."""
_PLAIN = frozenset((type(None), bool, int, float, str)) | {
    np.dtype(code).type for code in np.typecodes["AllInteger"] + np.typecodes["Float"]
}
"""Classes of options whose equals are alike, if of one class."""


def look(
    function: Callable[..., Any], args: tuple[Any, ...], options: Mapping[str, Any]
) -> Look | None:
    """Return what there is to know of a call, None if there is more to it than this."""
    key: list[Any] = [function, len(args), *options]
    owners, addresses, streams = [], [], []
    out, place = options.get("out"), None
    for value in (*args, *options.values()):
        kind = type(value)
        read = _reader(kind)  # type: ignore[arg-type]
        if read is not None:
            try:
                found = read(value)
            except Exception:  # of which `seen` tells
                return None
            if found is None:
                return None
            owner, pointer, facts, stream = found
            owners.append(owner)
            addresses.append(pointer)
            streams.append(stream)
            key.append(kind)  # as to add a tuple takes longer
            key.append(pointer % 16)
            key.append(facts)
            if value is out:
                place = pointer
        elif kind in _PLAIN:
            key += kind, value
        elif kind in (tuple, list) and _PLAIN.issuperset(map(type, value)):
            key += kind, tuple(map(type, value)), tuple(value)
        else:
            return None
    if place is not None:
        key += [pointer == place for pointer in addresses]
    return tuple(key), owners, addresses, streams


@cache
def _reader(kind: Any) -> Callable[[Any], Glance | None] | None:
    """Return what reads an argument of a class, if it is one of arrays."""
    if kind is DeviceArray:
        return _of_array
    if kind is DeviceChannelStats:
        return _of_statistics
    module = module_of(kind)
    return None if module is None else module.glance


def _of_array(value: DeviceArray) -> Glance:
    library = value.library
    facts = library, value.ordinal, value.shape, value.strides, value.dtype, value.writeable
    return value.owner, value.pointer, facts, library.made_on(value)


def _of_statistics(value: DeviceChannelStats) -> Glance:
    rows, values = value._moments
    owner, pointer, facts, stream = _of_array(rows)
    return owner, pointer, (facts, values, value._view), stream


def library_of(value: Any) -> Any:
    """Return the module for the library of an array on a device, or None."""
    if type(value) is DeviceArray:
        return value.library
    module = module_of(type(value))  # type: ignore[arg-type]
    return module if module is not None and module.owns(value) else None


@cache
def module_of(kind: Any) -> Any:
    """Return the module for arrays of a class, some of which may be on a device."""
    packages = {base.__module__.partition(".")[0] for base in kind.__mro__}
    name = next((name for name in _LIBRARIES if name in packages), None)
    if name is None and hasattr(kind, "__cuda_array_interface__"):
        name = "interface"
    return name and import_module(f"numba_bn._adapters.cuda.{name}")
