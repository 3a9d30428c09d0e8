"""Arrays of other libraries: each kind has an adapter, which is imported when one of them comes.

An adapter is a module with ``call(function, args, options)``: it runs a public function, given as
it is for NumPy arrays, on arguments of which at least one is of its kind, and returns its kind.
"""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ParamSpec, TypeVar

import numpy as np

from numba_bn._device import DeviceArray
from numba_bn._mpi import Ranks

_P = ParamSpec("_P")
_R = TypeVar("_R")

CUDA = "numba_bn._adapters.cuda"
_HOMES = {
    "xarray": "numba_bn._adapters.xarray",
    "dask": "numba_bn._adapters.dask",
    "torch": "numba_bn._adapters.tensors",
    "jaxlib": "numba_bn._adapters.dlpack",
    "cupy": CUDA,
}
"""The package that an array's class comes from → the adapter, outermost kind first."""

_PROTOCOLS = {
    "__cuda_array_interface__": CUDA,
    "__array_namespace__": "numba_bn._adapters.dlpack",
}
"""What a class has → the adapter of arrays that no package above answers for."""


def adapted(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Let a public function on NumPy arrays, or a method, take those of other libraries."""
    first = int(function.__code__.co_varnames[:1] == ("self",))

    @functools.wraps(function)
    def call(*args: _P.args, **options: _P.kwargs) -> _R:
        # as nearly always: the rest costs microseconds
        if len(args) > first:
            kind = type(args[first])
            if kind is np.ndarray:
                return function(*args, **options)
            again = known.get(kind)
            if again is not None:
                done: _R = again(function, args, options)
                if done is not NEW:
                    return done
        home = home_of((*args, *options.values()))
        if home is None:
            return function(*args, **options)
        result: _R = adapter(home, function, args, options).call(function, args, options)
        return result

    return call


NEW: Any = object()
known: dict[type, Callable[..., Any]] = {}
"""The class of a first argument → an adapter's way to make a call again, `NEW` if it is none."""
_loaded: dict[str, Any] = {}


def adapter(home: str, function: Callable[..., Any], args: Any, options: Any) -> Any:
    """Return an adapter, which is imported for the first call that needs it."""
    found = _loaded.get(home)
    if found is None:
        with telling(function, args, options):
            found = _loaded[home] = importlib.import_module(home)
    return found


def _packages(kind: Any) -> frozenset[str]:
    """Return the packages that a class and its bases come from."""
    return frozenset(base.__module__.partition(".")[0] for base in kind.__mro__)


def home_of(values: tuple[Any, ...]) -> str | None:
    """Return the adapter for the outermost kind among ``values``, or None."""
    return _home_of(*map(type, values))


@functools.lru_cache(maxsize=1024)
def _home_of(*kinds: Any) -> str | None:
    if DeviceArray in kinds:  # a layer's, of whatever library
        return CUDA
    packages = frozenset().union(*map(_packages, kinds))
    for package, home in _HOMES.items():
        if package in packages:
            return home
    strangers = [kind for kind in kinds if not issubclass(kind, np.ndarray | np.generic)]
    for name, home in _PROTOCOLS.items():
        if any(hasattr(kind, name) for kind in strangers):
            return home
    return None


def telling(
    function: Callable[..., Any], args: Sequence[Any], options: Mapping[str, Any]
) -> AbstractContextManager[Any]:
    """Return a context whose error the ranks hear of that wait for this one in a call.

    It is for what an adapter does before the function: of its own errors the function tells.
    """
    call = function.__name__
    if args and hasattr(args[0], "_ranks_in"):  # a layer's method
        ranks = args[0]._ranks_in(call)
    else:
        ranks = Ranks.of(call, options.get("comm"))
    return ranks or nullcontext()


def arguments(function: Callable[..., Any], args: tuple[Any, ...], options: Any) -> dict[str, Any]:
    """Return the arguments of a call by name, those that are None left out."""
    try:
        bound = inspect.signature(function).bind(*args, **options)
    except TypeError as error:
        raise TypeError(f"{function.__name__}: {error}") from None
    bound.apply_defaults()
    return {name: value for name, value in bound.arguments.items() if value is not None}
