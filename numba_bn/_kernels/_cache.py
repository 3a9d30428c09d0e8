"""A cache of compiled kernels on disk that can only help.

A kernel is found again only if nothing has changed that its machine code depends on; whatever goes
wrong with a file costs one warning in the process, and a compilation.
"""

from __future__ import annotations

import pickle
import sys
from contextlib import suppress
from functools import cache
from hashlib import sha256
from typing import Any

import llvmlite
import numba
import numpy as np
from numba.core import config
from numba.core.caching import NullCache
from numba.core.compiler import CompileResult
from numba.core.serialize import dumps

from numba_bn._kernels import _store

# settings of Numba that change the code; the CPU's are in its code generator's own words
_SETTINGS = (
    *("BOUNDSCHECK", "OPT", "LOOP_VECTORIZE", "SLP_VECTORIZE", "USING_SVML"),
    *("DEBUGINFO_DEFAULT", "EXTEND_VARIABLE_LIFETIMES", "ENABLE_PROFILING", "JIT_COVERAGE"),
    *("DEBUG_NRT", "DEBUG_ARRAY_OPT_RUNTIME", "LLVM_REFPRUNE_PASS", "LLVM_REFPRUNE_FLAGS"),
)

# taken while the kernels are imported, and again when one is kept: an edit in between is seen
_SOURCES = _store.sources()


@cache
def _stamp() -> str:
    """Return a hash of the package's sources, and of those who compile them."""
    versions = (numba.__version__, llvmlite.__version__, np.__version__, sys.version)
    about = repr((_SOURCES, versions, sys.flags.optimize))
    return sha256(about.encode()).hexdigest()[:16]


class _Cache(NullCache):  # type: ignore[misc]
    """What one function of Numba's asks before it compiles, and gives what it has compiled."""

    def __init__(self, compiled: Any) -> None:
        function = compiled.py_func
        module = function.__module__.rpartition(".")[2]
        self._name = f"{module}.{function.__qualname__}"
        pipeline = compiled._compiler.pipeline_class.__qualname__
        options = sorted(compiled.targetoptions.items())
        self._about = function.__module__, self._name, pipeline, options

    @property
    def cache_path(self) -> str | None:
        folders = _store.places().folders
        return str(folders[0]) if folders else None

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Return the compiled function for a signature, or None."""
        target_context.refresh()
        made_from, name = self._identity(sig, target_context.codegen())
        return _store.load(
            _stamp(),
            name,
            made_from,
            lambda content: CompileResult._rebuild(target_context, *pickle.loads(content)),
        )

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep a compiled function, in the first place that takes it."""
        # dynamic globals are addresses in this process
        if data.library.has_dynamic_globals or _store.sources() != _SOURCES:
            return
        made_from, name = self._identity(sig, data.codegen)
        _store.keep(_stamp(), name, made_from, lambda: dumps(data._reduce()))

    def _identity(self, sig: Any, codegen: Any) -> tuple[bytes, str]:
        """Return a digest of all that the machine code depends on, and the name of its file."""
        args = tuple(getattr(sig, "args", sig))
        settings = [getattr(config, name, None) for name in _SETTINGS]
        about = _stamp(), self._about, args, codegen.magic_tuple(), settings
        made_from = sha256(repr(about).encode()).digest()
        return made_from, f"{self._name}.{made_from.hex()[:16]}.nbc"


def use(compiled: Any) -> None:
    """Let ``compiled``, a function of Numba's, find its machine code on disk and leave it there."""
    # the stamp of this package says nothing about others' functions
    ours = compiled.py_func.__module__.partition(".")[0] == __name__.partition(".")[0]
    with suppress(OSError):  # there is no current folder for a relative one to be in
        if ours and _SOURCES is not None and _store.places().folders:
            compiled._cache = _Cache(compiled)
