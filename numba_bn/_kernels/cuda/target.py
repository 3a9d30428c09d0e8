"""Numba's CUDA target: the one module that imports it, and how kernels are compiled by it."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from importlib import import_module
from types import ModuleType
from typing import Any

import numpy as np

from numba_bn._kernels.cuda.kernel import THREADS, Kernel, Variant

Capability = tuple[int | str, ...]
"""(9, 0), or (9, 0, "a") for an architecture's own instructions."""


def _load() -> ModuleType:
    """Import numba-cuda; it asks NumPy for a name that 2.5 no longer has, so lend it that."""
    name = "row_stack"
    lend = not hasattr(np, name)
    if lend:
        setattr(np, name, np.vstack)
    try:
        from numba import cuda
        from numba.cuda.np import arrayobj  # noqa: F401  # it is this that asks
    finally:
        if lend:
            delattr(np, name)
    return cuda  # type: ignore[no-any-return]


cuda: Any = _load()
compiling_for: ContextVar[tuple[Any, ...]] = ContextVar("compiling_for", default=(9, 0))
"""The compute capability that kernels are being compiled for."""
types: Any = cuda.types
extending: Any = import_module("numba.cuda.extending")
_compiler: Any = import_module("numba.cuda.compiler")


def inline(function: Callable[..., Any]) -> Any:
    """Make a function part of the kernels that call it.

    NVVM puts it there. Were it Numba, each copy would be compiled anew: kernels took 2 × as long.
    What is compiled once serves all kernels, for one capability at a time. Its arrays in shared
    memory are the same for all callers in a kernel, of which there may be one alone.
    """
    helper = cuda.jit(device=True)(function)
    compiled_for: Capability = ()

    def compile_device(args: tuple[Any, ...], return_type: Any = None) -> Any:
        """Do as Numba's own, which asks a driver what to compile for."""
        nonlocal compiled_for
        if compiled_for != compiling_for.get():
            while helper.overloads:
                _, made = helper.overloads.popitem()
                made.target_context.remove_user_function(made.entry_point)
            compiled_for = compiling_for.get()
        if args not in helper.overloads:
            made = _compiler.compile_cuda(
                function, return_type, args, forceinline=True, cc=compiled_for
            )
            made.target_context.insert_user_function(made.entry_point, made.fndesc, [made.library])
            helper.overloads[args] = made
        return helper.overloads[args]

    helper.compile_device = compile_device
    return helper


def compiled(
    kernel: Kernel, variant: Variant, capability: Capability, output: str = "ltoir"
) -> Any:
    """Compile a variant for a compute capability, without a driver: LTO-IR (bytes), or PTX (str).

    The name of the entry is Numba's mangled one; the only entry there is.
    """
    function, signature = kernel.build(variant)
    token = compiling_for.set(tuple(capability))
    try:
        code, _ = cuda.compile(
            function,
            signature,
            cc=capability,
            device=False,
            abi="numba",
            output=output,
            launch_bounds=(THREADS, 2),
        )
    finally:
        compiling_for.reset(token)
    return code
