"""Machine code for the device: compiled without one, and kept on disk as the CPU's is.

What is found on disk is loaded without Numba.
"""

from __future__ import annotations

import os
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from hashlib import sha256
from importlib import metadata
from typing import NamedTuple

import numpy as np

from numba_bn._interrupts import uninterrupted
from numba_bn._kernels import _store
from numba_bn._kernels.cuda.kernel import Kernel, Variant

Capability = tuple[int, int]

_PACKAGES = (
    *("numba", "llvmlite", "numba-cuda", "cuda-core", "cuda-bindings", "cuda-toolkit"),
    *("nvidia-nvvm", "nvidia-nvjitlink", "nvidia-cuda-nvrtc"),
    *("nvidia-cuda-nvcc-cu12", "nvidia-nvjitlink-cu12", "nvidia-cuda-nvrtc-cu12"),
)
_ENTRY = re.compile(rb"\0\.text\.([\w$]+)\0")

# taken when the launcher is imported, and again when a cubin is kept: an edit in between is seen
_SOURCES = _store.sources()
_lock = threading.RLock()


class Cubin(NamedTuple):
    """Machine code for one compute capability, and the name of its kernel in it."""

    code: bytes
    entry: str
    compiled: bool
    """Whether this process compiled it; otherwise it was on disk."""


@contextmanager
def needed(what: str) -> Iterator[None]:
    """Say what to install if what is imported here is not there."""
    try:
        yield
    except ImportError as error:
        raise ImportError(
            f"numba_bn: {what}, which cannot be imported ({error}). Install what is missing with "
            "'python -m pip install \"numba-bn[cuda]\"'"
        ) from error


def cubin(kernel: Kernel, variant: Variant, capability: Capability) -> Cubin:
    """Return the machine code of a kernel's variant, from disk if it is there."""
    label = kernel.label(variant)
    about = kernel.module, kernel.name, variant, capability
    made_from = sha256(repr((_stamp(), about)).encode()).digest()
    name = f"{kernel.module}.{label[:80]}.sm_{arch(capability)}.{made_from.hex()[:16]}.nbc"
    with _lock:  # Numba's CUDA target is not safe in threads that compile at once
        found = None
        if _SOURCES is not None:
            found = _store.load(_stamp(), name, made_from, bytes)
        code = found or _compiled(kernel, variant, capability)
        entry = _entry(code)
        if found is None and _SOURCES is not None and _store.sources() == _SOURCES:
            _store.keep(_stamp(), name, made_from, lambda: code)
    return Cubin(code, entry, found is None)


def arch(capability: Capability) -> str:
    """Return (9, 0) as the 90 of sm_90."""
    return f"{capability[0]}{capability[1]}"


def _compiled(kernel: Kernel, variant: Variant, capability: Capability) -> bytes:
    """Python → LTO-IR → machine code; needs neither device nor driver."""
    with uninterrupted():
        with needed("kernels for NVIDIA GPUs are compiled by numba-cuda and cuda-core"):
            from cuda.core import Linker, LinkerOptions, ObjectCode

            from numba_bn._kernels.cuda import target
        ir = target.compiled(kernel, variant, capability)
        options = LinkerOptions(arch=f"sm_{arch(capability)}", link_time_optimization=True)
        linked = Linker(ObjectCode.from_ltoir(ir), options=options).link("cubin")
        return bytes(linked.code)


def _entry(code: bytes) -> str:
    """Return the name of the one kernel in a cubin, from its ELF's section names."""
    match = _ENTRY.search(code)
    if match is None:
        raise ValueError(f"numba_bn: no kernel in {len(code)} bytes of machine code")
    return match.group(1).decode()


@cache
def _stamp() -> str:
    """Return a hash of the package's sources, and of those who compile them for the device."""
    versions = tuple(_version(package) for package in _PACKAGES)
    about = _SOURCES, versions, np.__version__, sys.version, sys.flags.optimize
    return sha256(repr(about).encode()).hexdigest()[:16]


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _after_fork() -> None:
    """Let a forked child begin with a free lock."""
    global _lock
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
