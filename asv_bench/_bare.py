"""Bare loops: what a norm cannot do without, for values that have no channels.

Every value is loaded, summed and written in the lanes the kernels use, in float64 sums as theirs.
Nothing is checked or merged, no factor belongs to a channel, no run ends anywhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import product
from typing import Any

import numba
from _targets import together
from benchmarks.cases import Case
from benchmarks.workloads import Call, Work

from numba_bn._kernels._compile import block, whole
from numba_bn._kernels.cpu.asking import ask, by_pages
from numba_bn._kernels.cpu.caches import far_bytes, held_bytes, l2_bytes
from numba_bn._kernels.cpu.elements import kernel_array
from numba_bn._kernels.cpu.lanes import add, fill, fill_as, fma, total
from numba_bn._kernels.cpu.memory import before_aligned, load, load_as, store
from numba_bn._kernels.cpu.precision import arithmetic

_PIECES = (1 << 12, 1 << 14, 1 << 16)
"""Values summed and then written in one go: within a core's cache, whose size decides which."""
_WALK = 256
"""Bytes of a row: to walk down the rows by so many takes 1.5 to 2.4 × as long as to read them."""

_loop = partial(whole, parallel=True)


@block
def _span(u: int, piece: int, lead: int, size: int) -> Any:
    """u-th piece of the whole sixteens that lie on lines of the result → where it is."""
    end = lead + (size - lead) // 16 * 16
    return min(lead + u * piece, end), min(lead + (u + 1) * piece, end)


@block
def _sums(x: Any, far: bool, i: int, end: int) -> float:
    """x[i : end] → of Σx, Σx² a number that needs both."""
    s, q, way = fill(0.0), fill(0.0), by_pages(x, far, i, end - i, 0)
    for k in range(i, end, 16):
        ask(x, k, way)
        v = load(x, k)
        s, q = add(s, v), fma(v, v, q)
    return float(total(add(s, q)))


@block
def _products(dy: Any, x: Any, own: Any, far: bool, i: int, end: int) -> float:
    """→ the same of Σdy, Σdy·x, with ``own`` of Σx, Σx² too."""
    s, t, r, q = fill(0.0), fill(0.0), fill(0.0), fill(0.0)
    way = by_pages(x, far, i, end - i, 0)
    for k in range(i, end, 16):
        ask(x, k, way)
        ask(dy, k, way)
        d, v = load(dy, k), load(x, k)
        s, t = add(s, d), fma(d, v, t)
        if own is not None:
            r, q = add(r, v), fma(v, v, q)
    return float(total(add(add(s, t), add(r, q))))


@block
def _apply(x: Any, y: Any, stream: bool, a: float, i: int, end: int) -> None:
    """x[i : end] → y = a·x + a."""
    av, way = fill_as(arithmetic(x, y), a), by_pages(x, stream, i, end - i, 0)
    for k in range(i, end, 16):
        if stream:
            ask(x, k, way)
        store(y, k, fma(load_as(x, k, av), av, av), stream)


@block
def _differentiate(dy: Any, x: Any, dx: Any, stream: bool, a: float, i: int, end: int) -> None:
    """→ dx = a·dy + a·x + a."""
    av, way = fill_as(arithmetic(x, dx), a), by_pages(x, stream, i, end - i, 0)
    for k in range(i, end, 16):
        if stream:
            ask(x, k, way)
            ask(dy, k, way)
        v = fma(load_as(x, k, av), av, av)
        store(dx, k, fma(load_as(dy, k, av), av, v), stream)


@_loop
def statistics(x: Any, far: bool, piece: int) -> float:
    """x (n,) → sums, which are returned as nobody may leave them out."""
    found = 0.0
    for u in numba.prange((x.size + piece - 1) // piece):
        i, end = _span(u, piece, 0, x.size)
        found += _sums(x, far, i, end)
    return found


@_loop
def inference(x: Any, y: Any, stream: bool, piece: int) -> None:
    """x (n,) → y."""
    for u in numba.prange((x.size + piece - 1) // piece):
        i, end = _span(u, piece, before_aligned(y, 0), x.size)
        _apply(x, y, stream, 3.0, i, end)


@_loop
def forward(x: Any, y: Any, stream: bool, sweeps: Any, piece: int) -> None:
    """x (n,) → y by sums of each piece; with ``sweeps`` by those of all, from the end."""
    pieces, a = (x.size + piece - 1) // piece, 0.0
    if sweeps is not None:
        for u in numba.prange(pieces):
            i, end = _span(u, piece, before_aligned(y, 0), x.size)
            a += _sums(x, stream, i, end)
    for u in numba.prange(pieces):
        i, end = _span(pieces - 1 - u, piece, before_aligned(y, 0), x.size)
        _apply(x, y, stream, a if sweeps is not None else _sums(x, stream, i, end), i, end)


@_loop
def backward(dy: Any, x: Any, dx: Any, own: Any, stream: bool, sweeps: Any, piece: int) -> None:
    """dy, x (n,) → dx likewise."""
    pieces, a = (x.size + piece - 1) // piece, 0.0
    if sweeps is not None:
        for u in numba.prange(pieces):
            i, end = _span(u, piece, before_aligned(dx, 0), x.size)
            a += _products(dy, x, own, stream, i, end)
    for u in numba.prange(pieces):
        i, end = _span(pieces - 1 - u, piece, before_aligned(dx, 0), x.size)
        b = a if sweeps is not None else _products(dy, x, own, stream, i, end)
        _differentiate(dy, x, dx, stream, b, i, end)


def in_sweeps(operation: str, case: Case) -> bool:
    """Tell whether what is summed at the least before a value is written is gone when it is."""
    near = held_bytes() if 2 * case.nbytes >= far_bytes(False) else l2_bytes()
    if operation not in ("train", "backward"):
        return together(operation, case) > near
    least = case.channel_bytes
    if case.layout == "last" or len(case.shape) == 2:
        least = min(least * (_WALK // case.numpy_dtype.itemsize), case.nbytes)
    return least * (2 if operation == "backward" else 1) > near


def loops(work: Work, operation: str) -> Iterator[Call]:
    """Return the ways to do it, of which the fastest is its bound."""
    x, out = kernel_array(work.x), kernel_array(work.out)
    share = -(-x.size // numba.get_num_threads() // 16) * 16
    sweeps = True if in_sweeps(operation, work.case) else None
    own = None if operation == "backward" else True
    for piece, stream in product(sorted({min(piece, share) for piece in _PIECES}), (False, True)):
        if operation == "statistics":
            yield partial(statistics, x, stream, piece)
        elif operation == "inference":
            yield partial(inference, x, out, stream, piece)
        elif operation.endswith("backward"):
            yield partial(backward, kernel_array(work.dy), x, out, own, stream, sweeps, piece)
        else:
            yield partial(forward, x, out, stream, sweeps, piece)
