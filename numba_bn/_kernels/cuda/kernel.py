"""What a plan is made of: kernels by name, their variants, launches. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any, NamedTuple

THREADS = 256
"""Threads of a block, at most; what kernels are bounded to."""

Dims = tuple[int, int, int]
Variant = tuple[str | int, ...]


class Kernel(NamedTuple):
    """A kernel by the names of its module and its factory: variant → Python body, signature."""

    module: str
    name: str

    def build(self, variant: Variant) -> tuple[Callable[..., None], Any]:
        """Return the Python body of a variant and its Numba signature; imports Numba's CUDA."""
        factory = getattr(import_module(f"numba_bn._kernels.cuda.{self.module}"), self.name)
        function, signature = factory(*variant)
        function.__name__ = function.__qualname__ = self.label(variant)
        return function, signature

    def label(self, variant: Variant) -> str:
        """Return a name for a variant: stable, and an identifier."""
        return "_".join([self.name, *map(str, variant)])


class Step(NamedTuple):
    """One launch."""

    kernel: Kernel
    variant: Variant
    grid: Dims
    block: Dims
    arguments: tuple[str | int | float, ...]
    """A str names a buffer ("x", "gamma", "workspace", "workspace+65536"), whose address it is;
    ints are passed as int64 (0 also for an array that there is not), floats as float64."""


class Plan(NamedTuple):
    """Launches in order, and the bytes of work space they share.

    The first ``COUNTERS`` bytes of the work space must be zero before the first plan ever and are
    zero again after each; the rest may hold anything.
    """

    steps: tuple[Step, ...]
    workspace: int


COUNTERS = 1 << 16
"""Bytes of counters at the start of every work space."""


class Device(NamedTuple):
    """What a plan depends on."""

    multiprocessors: int
    threads: int
    """Threads that a multiprocessor holds."""
    l2_bytes: int
