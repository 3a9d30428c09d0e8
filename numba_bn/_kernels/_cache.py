"""A cache of compiled kernels on disk that can only help.

Its key holds the flags and the sources of the whole package, and whatever goes wrong with a file
costs a warning and a compilation.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import numba
from numba.core.caching import FunctionCache, IndexDataCacheFile

_PACKAGE = Path(__file__).resolve().parents[1]


@cache
def _package_stamp() -> str:
    """Return a hash of Numba's version and every source file of the package."""
    digest = hashlib.sha256(numba.__version__.encode())
    for path in sorted(_PACKAGE.rglob("*.py")):
        digest.update(str(path.relative_to(_PACKAGE)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


class _Cache(FunctionCache):  # type: ignore[misc]
    """Numba's on-disk cache, stamped with the whole package; its failures stay its own."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)
        self._cache_file = IndexDataCacheFile(
            cache_path=self._cache_path,
            filename_base=self._impl.filename_base,
            source_stamp=_package_stamp(),
        )

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        try:
            result = super().load_overload(sig, target_context)
            if result is not None and tuple(result.signature.args) != tuple(sig):
                raise ValueError("an entry is for another signature")
            return result
        except Exception as error:
            self._give_up(error)
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        try:
            super().save_overload(sig, data)
        except Exception as error:
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        warnings.warn(
            f"numba_bn: the cache of compiled kernels in {self._cache_path} cannot be used "
            f"({type(error).__name__}: {error}); compiling instead",
            RuntimeWarning,
            stacklevel=2,
        )
        try:
            self.flush()
        except Exception:
            self.disable()


def use(compiled: Any) -> None:
    """Let ``compiled``, a function of Numba's, find its machine code on disk and leave it there."""
    with suppress(RuntimeError):  # no directory to write to: compile in memory
        compiled._cache = _Cache(compiled.py_func)
