"""What needs no statistics: the gradient through a ReLU, parameters as kernels take them."""

from __future__ import annotations

from typing import Any

from numba import prange

from numba_bn._kernels._launch import Kernel
from numba_bn._kernels.cpu.gradient_loops import relu_gradient_run
from numba_bn._kernels.cpu.moments import BLOCK, pieces_of


@Kernel
def relu_gradient(dy: Any, y: Any, out: Any) -> None:
    """dy, y, flat → dy where y is above 0 (or NaN), else 0."""
    for u in prange(pieces_of(1, y.size)[0]):
        i = u * BLOCK
        relu_gradient_run(dy, y, out, i, min(BLOCK, y.size - i))


@Kernel
def repeat(p: Any, out: Any) -> None:
    """p (channels,) → each so many times as out has room for, in out's precision."""
    each = out.size // p.size
    for i in prange(p.size):
        for k in range(each):
            out[i * each + k] = p[i]
