"""Numba's CUDA target: the one module that imports it, and how kernels are compiled by it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
_ir: Any = import_module("numba.cuda.core.ir")
_compiling: Any = import_module("numba.cuda.core.compiler_lock").global_compiler_lock


@contextmanager
def _light_copies() -> Iterator[None]:
    """Let Numba's inliner copy instructions alone: two fifths of its time are saved.

    With every block of a function it copies all of the function's variables as well, and where in
    the source each thing stands; both may be shared.
    """
    shared = _ir.Scope, _ir.Loc
    with _compiling:  # nobody else compiles meanwhile
        before = [vars(kind).get("__deepcopy__") for kind in shared]
        for kind in shared:
            kind.__deepcopy__ = lambda self, memo: self
        try:
            yield
        finally:
            for kind, own in zip(shared, before, strict=True):
                if own is None:
                    del kind.__deepcopy__
                else:
                    kind.__deepcopy__ = own


def inline(function: Callable[..., Any]) -> Any:
    """Make a function part of the kernels that call it; that alone needs no driver to compile."""
    return cuda.jit(device=True, inline="always")(function)


def compiled(
    kernel: Kernel, variant: Variant, capability: Capability, output: str = "ltoir"
) -> Any:
    """Compile a variant for a compute capability, without a driver: LTO-IR (bytes), or PTX (str).

    The name of the entry is Numba's mangled one; the only entry there is.
    """
    function, signature = kernel.build(variant)
    token = compiling_for.set(tuple(capability))
    try:
        with _light_copies():
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
