"""Arrays on NVIDIA GPUs: CuPy's, PyTorch's, Numba's, and others by their interface."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from numba_bn._adapters import NEW, known, telling
from numba_bn._adapters._convert import each, kind_of, leading, named, refuse_mixed, title
from numba_bn._adapters.cuda import looks, replay
from numba_bn._adapters.cuda.looks import Look, library_of
from numba_bn._arrays import as_array
from numba_bn._device import DeviceArray
from numba_bn._kernels.cuda import driver
from numba_bn.stats.device import DeviceChannelStats

_ARRAYS = frozenset(
    ("x", "dy", "y", "gamma", "beta", "mean", "var", "where", "residual", "bias"),
)
_OPTIONS = frozenset((str, bool))
"""Classes of what is no array, but for an argument of `_ARRAYS`: ``where`` may be True."""


def call(function: Callable[..., Any], args: tuple[Any, ...], options: Mapping[str, Any]) -> Any:
    """Run a public function on arrays of one device; return arrays of the same library."""
    done = again(function, args, options)
    if done is not NEW:
        return done
    try:
        checked = _checked(function, args, options)
    except Exception:
        with telling(function, args, options):
            raise
    if checked is None:
        return function(*args, **options)  # which says what to do
    return _result(function, looks.look(function, args, options), *checked, options.get("out"))


def again(function: Callable[..., Any], args: tuple[Any, ...], options: Mapping[str, Any]) -> Any:
    """Do what `call` does if a call like this was made before, or return `NEW`."""
    look = looks.look(function, args, options)
    program = None if look is None else replay.kept(look)
    return NEW if look is None or program is None else program.run(look, options.get("out"))


known[DeviceArray] = again


def _checked(
    function: Callable[..., Any], args: tuple[Any, ...], options: Mapping[str, Any]
) -> tuple[DeviceArray, dict[str, Any]] | None:
    """Return x and all arguments as the calls see them, None if x is not on a device."""
    given = named(function, args, options)
    lead, what = leading(given), title(function, given)
    library = library_of(lead)
    if library is None:
        _refuse_lead(what, given, lead)
        return None
    driver.driver()  # or what to install
    first = lead if isinstance(lead, DeviceArray) else library.seen(what, "x", lead)
    return first, _inside(library, what, given, first, lead)


def _result(
    function: Callable[..., Any],
    look: Look | None,
    first: DeviceArray,
    inside: Mapping[str, Any],
    out: Any,
) -> Any:
    """Do what is asked for the first time, and return arrays as their library's."""
    if look is None or not replay.is_of(look, inside):  # some are made of what is the host's
        look = looks.look(function, (), inside)
    program = look and replay.program(look, function, first, inside)
    if look and program:
        known[type(first.owner)] = again
        return program.run(look, out)
    library, written, stream = first.library, inside.get("out"), first.library.stream(first)
    if library.FOREIGN:
        replay.wait(first.ordinal, stream, map(_made_on, inside.values()))

    def theirs(item: Any) -> Any:
        if written is not None and item is written:
            return out
        return item.owner if isinstance(item, DeviceArray) else item

    result = each(function(**inside), theirs)
    if library.FOREIGN and written is not None:
        replay.be_waited_for(first.ordinal, stream, library.stream(written))
    return result


def _made_on(value: Any) -> int | None:
    array = value._moments.rows if isinstance(value, DeviceChannelStats) else value
    return array.library.made_on(array) if isinstance(array, DeviceArray) else None


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
