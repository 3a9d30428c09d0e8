"""From a kind of array to the module with its kernels; the only file that knows the devices."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from types import ModuleType

from numba_bn._interrupts import uninterrupted

_REFERENCE, _CPU = "numba_bn._kernels.reference", "numba_bn._kernels.cpu"
_BACKENDS = {"numpy": _CPU, "cuda": "numba_bn._kernels.cuda.backend"}


@cache
def backend(kind: str = "numpy") -> ModuleType:
    """Return the backend for arrays of ``kind``; its functions are those of ``reference``."""
    name = _BACKENDS[kind]
    with uninterrupted():
        return import_module(_REFERENCE if name == _CPU and not _compiles() else name)


def _compiles() -> bool:
    """Tell whether Numba compiles; NUMBA_DISABLE_JIT asks for plain Python instead."""
    try:
        from numba.core import config
    except Exception as error:  # a broken installation can raise nearly anything
        raise ImportError(
            "numba_bn: arrays are computed on by Numba, which cannot be imported "
            f"({type(error).__name__}: {error}). Install it, or what it misses, with "
            "'python -m pip install --upgrade numba'. ChannelStats, RunningStats and "
            "fold_batch_norm work without it"
        ) from error
    return not config.DISABLE_JIT
