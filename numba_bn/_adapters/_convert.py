"""What the adapters of CPU arrays share: see arrays as NumPy's, call, give results back as theirs.

A kind is a module with ``owns(value, lead)``, ``seen(call, name, value)``, which returns the
array's own memory as an ndarray, and ``theirs(result, lead)``, which does the reverse.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Protocol

import numpy as np

from numba_bn._adapters import telling
from numba_bn._arrays import Array

_LEADS = ("x", "weight", "dy")


class Kind(Protocol):
    """A module for one kind of array in the memory of the CPU."""

    def owns(self, value: Any, lead: Any) -> bool:
        """Tell whether ``value`` is of this kind, as ``lead`` is."""

    def seen(self, call: str, name: str, value: Any) -> Array:
        """Return the memory of ``value`` as an ndarray; TypeError if it cannot be had."""

    def theirs(self, result: Array, lead: Any) -> Any:
        """Return ``result`` as an array of this kind, in the same memory."""


@cache
def _names(function: Callable[..., Any]) -> tuple[str, ...]:
    """Return the names of the arguments that may come without one."""
    parameters = inspect.signature(function).parameters.values()
    return tuple(p.name for p in parameters if p.kind is not p.KEYWORD_ONLY)


def named(
    function: Callable[..., Any], args: tuple[Any, ...], options: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the arguments of a call by name; one that Python would refuse is refused by it."""
    given: dict[str, Any] = dict(zip(_names(function), args, strict=False))
    given.update(options)
    if len(given) < len(args) + len(options):
        function(*args, **options)
    return given


def leading(given: Mapping[str, Any]) -> Any:
    """Return the array that the others of a call must match."""
    for name in _LEADS:
        if name in given:
            return given[name]
    return None


def title(function: Callable[..., Any], given: Mapping[str, Any]) -> str:
    """Return the name of a call in its errors, as NumPy arrays have it."""
    if "self" not in given:
        return function.__name__
    layer = type(given["self"]).__name__
    return layer if function.__name__ == "__call__" else f"{layer}.{function.__name__}"


def kind_of(value: Any) -> str:
    """Name the library and class of an array, and the device if it is not the CPU."""
    device = getattr(value, "device", None)
    where = f" on {device}" if "cuda" in str(device).lower() else ""
    return f"{type(value).__module__.partition('.')[0]}.{type(value).__name__}{where}"


def is_array(value: Any) -> bool:
    """Tell whether ``value`` is an array of any library but NumPy's."""
    return _exports(type(value))  # type: ignore[arg-type]


@cache
def _exports(kind: Any) -> bool:
    """Tell whether a class is one of arrays, and not NumPy's."""
    if issubclass(kind, np.ndarray | np.generic):
        return False
    exports = ("__dlpack__", "__cuda_array_interface__", "__array__")
    return any(hasattr(kind, name) for name in exports)


def refuse_mixed(call: str, name: str, value: Any, lead: Any) -> None:
    """Raise if ``value`` is an array of another library than ``lead``; NumPy's may be read."""
    if is_array(value) or (name == "out" and value is not None):
        also = "" if name == "out" else ", or a NumPy array"
        raise TypeError(
            f"{call}: {name} must be of the kind of x, {kind_of(lead)}{also}, got {kind_of(value)}"
        )


def _refuse_all_mixed(call: str, given: Mapping[str, Any], lead: Any) -> None:
    for name, value in given.items():
        if value is not lead:
            refuse_mixed(call, name, value, lead)


def call(
    kind: Kind, function: Callable[..., Any], args: tuple[Any, ...], options: Mapping[str, Any]
) -> Any:
    """Run a function that takes NumPy arrays on arrays of ``kind``; return that kind."""
    given = named(function, args, options)
    lead, what = leading(given), title(function, given)
    ours = kind.owns(lead, lead)
    with telling(function, args, options):
        if ours:
            inside = {name: _inside(kind, what, name, value, lead) for name, value in given.items()}
        elif is_array(lead):
            _refuse_all_mixed(what, given, lead)
    if not ours:
        return function(*args, **options)  # which says what to do
    out = inside.get("out")

    def theirs(item: Any) -> Any:
        if out is not None and item is out:
            return given["out"]
        return kind.theirs(item, lead) if isinstance(item, np.ndarray) else item

    return each(function(**inside), theirs)


def _inside(kind: Kind, call: str, name: str, value: Any, lead: Any) -> Any:
    if kind.owns(value, lead):
        return kind.seen(call, name, value)
    refuse_mixed(call, name, value, lead)
    return value


def each(result: Any, change: Callable[[Any], Any]) -> Any:
    """Return a result of a public function with its arrays changed."""
    if not isinstance(result, tuple):
        return change(result)
    items = [change(item) for item in result]
    return type(result)(*items) if hasattr(result, "_fields") else tuple(items)
