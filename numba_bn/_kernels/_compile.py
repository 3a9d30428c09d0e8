"""How kernels and their helpers are compiled: machine code is made once, for the whole kernel.

Numba turns every function it compiles into machine code of its own, although helpers only ever run
as inlined copies, the body of a ``prange`` three times over, and links what a helper calls to each
that calls it. Made for kernels alone, and linked once, it takes a third of the time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
from numba import extending
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import Compiler

FLAGS = {"error_model": "numpy", "nogil": True, "no_cfunc_wrapper": True}


class _Parts(JITCodeLibrary):  # type: ignore[misc]
    """Code that is optimized and turned into machine code only as part of what links it.

    Left as it comes, it also runs faster once it is inlined: up to 1.1 ×.
    """

    def _optimize_functions(self, ll_module: Any) -> None:
        ll_module.data_layout = self._codegen._data_layout

    def finalize(self) -> None:
        """Link nothing: who calls a helper takes those that the helper calls as well."""
        self._finalized = True

    def get_pointer_to_function(self, name: str) -> int:
        self._ensure_finalized()
        return 0


class _PartsCodegen:
    """Numba's code generator, whose new libraries are parts."""

    def __init__(self, codegen: Any) -> None:
        self._codegen = codegen

    def create_library(self, name: str) -> _Parts:
        return _Parts(self, name)

    def set_env(self, name: str, env: Any) -> None:
        """Do nothing: only machine code has a place for it."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._codegen, name)


class _Block(Compiler):  # type: ignore[misc]
    """Compile a helper."""

    def __init__(self, typingctx: Any, targetctx: Any, library: Any, *rest: Any) -> None:
        codegen = _PartsCodegen(targetctx.codegen())
        super().__init__(typingctx, targetctx.subtarget(_internal_codegen=codegen), library, *rest)


def _callers_first(libraries: list[Any]) -> list[Any]:
    """Return libraries, and those they need, in the order to link: LLVM drops what nobody calls."""
    callees_first: dict[Any, None] = {}

    def visit(needed: list[Any]) -> None:
        for library in needed:
            if library not in callees_first:
                visit(library._linking_libraries)
                callees_first[library] = None

    visit(libraries)
    return [*reversed(callees_first)]


class _Once(JITCodeLibrary):  # type: ignore[misc]
    """A kernel with all its parts, optimized in one go; Numba does so twice, for references."""

    _linking_libraries: list[Any]

    def finalize(self) -> None:
        """Link every part once; Numba links what a part calls to each part that calls it."""
        self._linking_libraries = _callers_first(self._linking_libraries)
        super().finalize()

    def _optimize_final_module(self) -> None:
        made = self._codegen._module_pass_manager()
        passes, *builder = made if isinstance(made, tuple) else (made,)  # alone until Numba 0.62
        passes.run(self._final_module, *builder)


class _Whole(_Block):
    """Compile a kernel, whatever Numba makes of it on the way being parts."""

    def __init__(self, typingctx: Any, targetctx: Any, library: Any, *rest: Any) -> None:
        library = _Once(targetctx.codegen(), "kernel")
        library.enable_object_caching()
        super().__init__(typingctx, targetctx, library, *rest)


def block(function: Callable[..., Any]) -> Any:
    """Compile a helper of kernels that allocates nothing; it is cached with those who call it.

    It does not count references either: counters that two threads share cost more than a short run.
    """
    return _helper(function, allocates=False)


def inlined(function: Callable[..., Any]) -> Any:
    """Compile a helper as `block` does, for LLVM to put into its callers: small, or with few.

    To pass some arrays, of seven fields each, takes as long as a short run. Numba, where it puts
    functions into others, compiles each copy anew: kernels took 1.3 × as long to compile.
    """
    return _helper(function, allocates=False, forceinline=True)


def unit(function: Callable[..., Any]) -> Any:
    """Compile a helper of kernels that allocates."""
    return _helper(function, allocates=True)


def _helper(function: Callable[..., Any], *, allocates: bool, forceinline: bool = False) -> Any:
    options = {"no_cpython_wrapper": True, "_nrt": allocates, "forceinline": forceinline}
    compiled = numba.njit(**options, **FLAGS)(function)
    compiled._compiler.pipeline_class = _Block
    return compiled


def overload(function: Callable[..., Any]) -> Any:
    """Compile what a decorated function returns for types: a `unit` in place of ``function``."""
    options = {"pipeline_class": _Block, **FLAGS}
    # strict would compare annotations
    return extending.overload(function, strict=False, jit_options=options)


def whole(function: Callable[..., Any], *, parallel: bool) -> Any:
    """Compile a kernel."""
    return numba.njit(parallel=parallel, pipeline_class=_Whole, **FLAGS)(function)
