"""From a kind of array to the module with its kernels; the only file that knows the devices."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from types import ModuleType

_BACKENDS = {"numpy": "numba_bn._kernels.cpu"}


@cache
def backend(kind: str = "numpy") -> ModuleType:
    """Return the backend for arrays of ``kind``; its functions are those of ``reference``."""
    return import_module(_BACKENDS[kind])
