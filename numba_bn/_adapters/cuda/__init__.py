"""Arrays on NVIDIA GPUs: CuPy's, PyTorch's, Numba's, and others by their interface."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from importlib import import_module
from typing import Any

import numpy as np

from numba_bn._adapters import telling
from numba_bn._adapters._convert import each, kind_of, leading, named, refuse_mixed, title
from numba_bn._adapters.cuda import replay
from numba_bn._arrays import as_array
from numba_bn._device import DeviceArray
from numba_bn._kernels.cuda import driver
from numba_bn.stats.device import DeviceChannelStats

_LIBRARIES = ("cupy", "torch")
"""Packages that have a module here."""
_ARRAYS = frozenset(
    ("x", "dy", "y", "gamma", "beta", "mean", "var", "where", "residual", "bias"),
)
_OPTIONS = frozenset((str, bool))
"""Classes of what is no array, but for an argument of `_ARRAYS`: ``where`` may be True."""


def call(function: Callable[..., Any], args: tuple[Any, ...], options: Mapping[str, Any]) -> Any:
    """Run a public function on arrays of one device; return arrays of the same library."""
    given = named(function, args, options)
    lead, what = leading(given), title(function, given)
    library = library_of(lead)
    try:
        if library is None:
            _refuse_lead(what, given, lead)
        else:
            driver.driver()  # or what to install
            first = lead if isinstance(lead, DeviceArray) else library.seen(what, "x", lead)
            inside = _inside(library, what, given, first, lead)
            if library.FOREIGN:
                _wait(library, first, inside)
    except Exception:
        with telling(function, args, options):
            raise
    if library is None:
        return function(*args, **options)  # which says what to do
    result = _result(function, first, inside, given.get("out"))
    if library.FOREIGN:
        _be_waited_for(library, first, inside.get("out"))
    return result


def _result(
    function: Callable[..., Any], first: DeviceArray, inside: Mapping[str, Any], out: Any
) -> Any:
    """Do what is asked, and return arrays as their library's, ``out`` as the caller's."""
    program, arrays = replay.program(function, first, inside)
    if program is not None:
        return program.run(first, arrays, out)
    written = inside.get("out")

    def theirs(item: Any) -> Any:
        if written is not None and item is written:
            return out
        return item.owner if isinstance(item, DeviceArray) else item

    return each(function(**inside), theirs)


def library_of(value: Any) -> Any:
    """Return the module for the library of an array on a device, or None."""
    if type(value) is DeviceArray:
        return value.library
    module = _module_of(type(value))  # type: ignore[arg-type]
    return module if module is not None and module.owns(value) else None


@cache
def _module_of(kind: Any) -> Any:
    """Return the module for arrays of a class, some of which may be on a device."""
    packages = {base.__module__.partition(".")[0] for base in kind.__mro__}
    name = next((name for name in _LIBRARIES if name in packages), None)
    if name is None and hasattr(kind, "__cuda_array_interface__"):
        name = "interface"
    return name and import_module(f"{__name__}.{name}")


def _refuse_lead(call: str, given: Mapping[str, Any], lead: Any) -> None:
    """Raise if an array is on a device and x is not."""
    for name, value in given.items():
        if library_of(value) is not None:
            raise TypeError(
                f"{call}: all arrays must be on one device, got x of kind {kind_of(lead)} and "
                f"{name} of kind {kind_of(value)}"
            )


def _inside(
    library: Any, call: str, given: Mapping[str, Any], first: DeviceArray, lead: Any
) -> dict[str, Any]:
    """Return the arguments as the calls see them; NumPy's arrays and lists go to the device."""
    kind, inside = type(first.owner), {}
    for name, value in given.items():
        if value is lead:
            inside[name] = first
            continue
        if type(value) is kind:  # as nearly always
            seen = library.seen(call, name, value)
            if seen.ordinal == first.ordinal:
                inside[name] = seen
                continue
        elif value is None or (type(value) in _OPTIONS and name not in _ARRAYS):
            inside[name] = value
            continue
        inside[name] = _other(library, call, name, value, first, lead)
    return inside


def _other(library: Any, call: str, name: str, value: Any, first: DeviceArray, lead: Any) -> Any:
    """Return an argument that need not be an array on the device of ``first``."""
    if library_of(value) is library:
        seen = value if isinstance(value, DeviceArray) else library.seen(call, name, value)
        return _beside(call, name, seen, first)
    if isinstance(value, DeviceChannelStats | DeviceArray):
        return _of_library(library, call, name, value, first)
    refuse_mixed(call, name, value, lead)
    if name not in _ARRAYS or value is None:
        return value
    host = as_array(call, name, value)
    if host.dtype.kind == "O":  # is refused as NumPy's is
        return host
    return library.seen(call, name, library.upload(np.ascontiguousarray(host), first))


def _of_library(library: Any, call: str, name: str, value: Any, first: DeviceArray) -> Any:
    """Return what a layer or statistics hold, which must be of the library of ``first``."""
    array = value if isinstance(value, DeviceArray) else value._moments.rows
    if array.library is library:
        return _beside(call, name, value, first)
    hint = "" if array is value else f"; pass {name}.get()"
    raise TypeError(
        f"{call}: {name} must be of the kind of x, {kind_of(first.owner)}, got "
        f"{kind_of(array.owner)} on cuda:{array.ordinal}{hint}"
    )


def _beside(call: str, name: str, value: Any, first: DeviceArray) -> Any:
    """Return what is on a device, which must be that of ``first``."""
    if value.ordinal != first.ordinal:
        raise TypeError(
            f"{call}: all arrays must be on one device, got x on cuda:{first.ordinal} and "
            f"{name} on cuda:{value.ordinal}"
        )
    return value


def _wait(library: Any, first: DeviceArray, inside: Mapping[str, Any]) -> None:
    """Let the stream of the call wait for those that other arrays say they are made on."""
    ours, others = library.stream(first), set()
    for value in inside.values():
        if isinstance(value, DeviceChannelStats):
            others.add(library.made_on(value._moments.rows))
        elif isinstance(value, DeviceArray):
            others.add(library.made_on(value))
    for other in others - {None, ours}:
        driver.driver().wait(first.ordinal, ours, other)


def _be_waited_for(library: Any, first: DeviceArray, out: DeviceArray | None) -> None:
    """Let the stream that an output says it is made on wait for the call's, where it was written.

    Who reads it looks at that stream alone.
    """
    if out is not None and (theirs := library.stream(out)) != (ours := library.stream(first)):
        driver.driver().wait(first.ordinal, theirs, ours)
