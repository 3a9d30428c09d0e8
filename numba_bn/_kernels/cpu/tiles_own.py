"""The sums over columns that a gradient by x's own statistics needs, in one pass; see ``tiles``."""

from __future__ import annotations

from typing import Any

from numba_bn._kernels._compile import block
from numba_bn._kernels.cpu.lanes import add, fill, fma, head, select, sub
from numba_bn._kernels.cpu.memory import load, load_if, prefetch, store

_ROWS = 8  # whose columns share one load and store of the column's sums
_AHEAD = 8  # rows


@block
def tile_own_sums(
    dy: Any,
    x: Any,
    at: int,
    stride: int,
    rows: int,
    tail: int,
    width: int,
    p: Any,
    s: Any,
    q: Any,
    g: Any,
    t: Any,
) -> None:
    """Rows of dy, x about p (width,), ``tail`` columns after → Σ(x-p), Σ(x-p)², Σdy, Σdy·(x-p)."""
    for j in range(0, width, 16):
        for v in (s, q, g, t):
            store(v, j, fill(0.0), False)
    for k in range(2):
        start, count, wide = (
            (at, rows, width) if k == 0 else (at + rows * stride, 1 if tail > 0 else 0, tail)
        )
        for r in range(0, count, _ROWS):
            some = min(_ROWS, count - r)
            ahead = min(_AHEAD, count - 1 - r) * stride
            for j in range(0, wide, 16):
                pj, sj, qj, gj, tj = load(p, j), load(s, j), load(q, j), load(g, j), load(t, j)
                i, part = start + r * stride + j, head(wide - j)
                for _ in range(some):
                    if j + 16 <= wide:
                        prefetch(x, i + ahead)
                        prefetch(dy, i + ahead)
                        u, d = sub(load(x, i), pj), load(dy, i)
                    else:
                        u = select(part, sub(load_if(x, i, part), pj), fill(0.0))
                        d = load_if(dy, i, part)
                    sj, qj, gj, tj = add(sj, u), fma(u, u, qj), add(gj, d), fma(d, u, tj)
                    i += stride
                store(s, j, sj, False)
                store(q, j, qj, False)
                store(g, j, gj, False)
                store(t, j, tj, False)
