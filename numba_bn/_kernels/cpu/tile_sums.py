"""The innermost loops over columns that sum: some rows at a time, sixteen columns of each.

Their vectors are as in ``tiles``. Sums of a column are its own, so how wide a tile is changes no
bit.
"""

from __future__ import annotations

from typing import Any

from numba_bn._kernels._compile import block, inlined
from numba_bn._kernels.cpu.asking import asks, near, prefetch
from numba_bn._kernels.cpu.columns_layout import Tile, tail_of
from numba_bn._kernels.cpu.lanes import (
    add,
    both,
    either,
    fill,
    finite,
    fma,
    head,
    mul,
    select,
    sub,
    suit,
)
from numba_bn._kernels.cpu.memory import flags, flags_if, load, load_as, load_as_if, load_if, store
from numba_bn._kernels.cpu.precision import exactly, go_on, put_onto
from numba_bn._kernels.cpu.tiles import segment

# rows whose columns share one load and store of the column's sums, as measured best from caches
_ROWS, _GRADIENT_ROWS = 8, 4
_AHEAD = 8  # rows to ask for, of one array; of two half as many: 16, which the L1 loses, take 1.2 ×


@inlined
def _values(x: Any, i: int, left: int) -> Any:
    """x[i : i + 16] in float64, 0 from ``left`` on."""
    if left >= 16:
        return load(x, i)
    return load_if(x, i, head(left))


@inlined
def _about(x: Any, i: int, left: int, p: Any) -> Any:
    """The same less p."""
    if left >= 16:
        return sub(load(x, i), p)
    part = head(left)
    return select(part, sub(load_if(x, i, part), p), fill(0.0))


@inlined
def _onto(s: Any, t: Any, j: int, d: Any, u: Any) -> None:
    """s[j : j + 16] += d, t[j : j + 16] += d·u."""
    store(s, j, add(load(s, j), d), False)
    store(t, j, fma(d, u, load(t, j)), False)


@block
def _row_sums(x: Any, i: int, width: int, ahead: int, p: Any, s: Any, q: Any) -> None:
    """x[i : i + width] → s += Σ(x-p), q += Σ(x-p)²."""
    for j in range(0, width, 16):
        prefetch(x, i + j + ahead)
        u = _about(x, i + j, width - j, load(p, j))
        _onto(s, q, j, u, u)


@block
def _row_gradients(dy: Any, x: Any, i: int, width: int, ahead: int, m: Any, s: Any, t: Any) -> None:
    """dy, x[i : i + width] → s += Σdy, t += Σdy·(x-m)."""
    for j in range(0, width, 16):
        prefetch(x, i + j + ahead)
        prefetch(dy, i + j + ahead)
        u = _about(x, i + j, width - j, load(m, j))
        _onto(s, t, j, _values(dy, i + j, width - j), u)


@block
def _row_own_sums(
    dy: Any, x: Any, i: int, width: int, ahead: int, p: Any, s: Any, q: Any, g: Any, t: Any
) -> None:
    """The same of both: s and q as of x, g and t as of dy."""
    for j in range(0, width, 16):
        prefetch(x, i + j + ahead)
        prefetch(dy, i + j + ahead)
        u = _about(x, i + j, width - j, load(p, j))
        _onto(s, q, j, u, u)
        _onto(g, t, j, _values(dy, i + j, width - j), u)


@block
def tile_sums(x: Any, where: Any, tile: Tile, far: int, p: Any, s: Any, q: Any, n: Any) -> None:
    """Whole rows of a tile about p (width,) → s += Σ(x-p), q += Σ(x-p)², with a mask n += count.

    What comes after its columns stays as it is: they may be the last row's, of fewer columns.
    ``far`` is 0 for what caches hold: there to ask for more than the L1 keeps takes 1.25 × as long.
    It is 2 for what none of them holds and the CPU reads fastest row by row, as it lies.
    """
    at, stride, rows, width = tile.at, tile.stride, tile.rows, tile.width
    if where is None and far > 1:
        for r in range(rows):
            ahead = min(_AHEAD // 2, rows - 1 - r) * stride
            _row_sums(x, at + r * stride, width, ahead, p, s, q)
        return
    zero, kept = exactly(x), asks(far > 0) or _AHEAD * stride <= 2 * near(x)
    for r in range(0, rows, _ROWS):
        some = min(_ROWS, rows - r)
        ahead = min(_AHEAD, rows - 1 - r) * stride if kept else 0
        for j in range(0, width, 16):
            pj, sj, qj, nj = suit(load(p, j), zero), load(s, j), load(q, j), load(n, j)
            sk, qk = go_on(zero, sj), go_on(zero, qj)
            i = at + r * stride + j
            part = head(width - j)
            for _ in range(some):
                if j + 16 <= width:
                    prefetch(x, i + ahead)
                    d = sub(load_as(x, i, zero), pj)
                    if where is not None:
                        keep = flags(where, i)
                        d = select(keep, d, zero)
                        nj = add(nj, select(keep, fill(1.0), fill(0.0)))
                else:
                    d = select(part, sub(load_as_if(x, i, part, zero), pj), zero)
                    if where is not None:
                        keep = flags_if(where, i, part)
                        d = select(keep, d, zero)
                        nj = add(nj, select(keep, fill(1.0), fill(0.0)))
                sk = add(sk, d)
                qk = fma(d, d, qk)
                i += stride
            store(s, j, put_onto(sj, sk), False)
            store(q, j, put_onto(qj, qk), False)
            if where is not None:
                store(n, j, nj, False)


@block
def tile_gradients(
    dy: Any, x: Any, where: Any, tile: Tile, far: int, m: Any, s: Any, t: Any
) -> None:
    """A tile, means m (width,) → s += Σdy, t += Σdy·(x-m); what is excluded if finite."""
    at, stride, rows, width, tail = tile.at, tile.stride, tile.rows, tile.width, tile.tail
    if where is None and far > 1:
        for r in range(rows + (1 if tail > 0 else 0)):
            wide, ahead = width if r < rows else tail, max(min(_AHEAD // 2, rows - 1 - r), 0)
            _row_gradients(dy, x, at + r * stride, wide, ahead * stride, m, s, t)
        return
    for k in range(4):
        start, count, _, wide = segment(k, tile, 0, False)
        for r in range(0, count, _GRADIENT_ROWS):
            some = min(_GRADIENT_ROWS, count - r)
            ahead = min(_AHEAD // 2, count - 1 - r) * stride if asks(far > 0) else 0
            for j in range(0, wide, 16):
                mj, sj, tj = load(m, j), load(s, j), load(t, j)
                i = start + r * stride + j
                part = head(wide - j)
                for _ in range(some):
                    if j + 16 <= wide:
                        prefetch(x, i + ahead)
                        prefetch(dy, i + ahead)
                        d, u = load(dy, i), sub(load(x, i), mj)
                        if where is not None:
                            usable = either(flags(where, i), finite(mul(d, u)))
                            d, u = select(usable, d, fill(0.0)), select(usable, u, fill(0.0))
                    else:
                        d, u = load_if(dy, i, part), sub(load_if(x, i, part), mj)
                        usable = part
                        if where is not None:
                            sound = finite(mul(d, u))
                            usable = both(part, either(flags_if(where, i, part), sound))
                        d, u = select(usable, d, fill(0.0)), select(usable, u, fill(0.0))
                    sj, tj = add(sj, d), fma(d, u, tj)
                    i += stride
                store(s, j, sj, False)
                store(t, j, tj, False)


@block
def tile_own_sums(
    dy: Any, x: Any, tile: Tile, in_order: bool, p: Any, s: Any, q: Any, g: Any, t: Any
) -> None:
    """A tile about p (width,) → Σ(x-p), Σ(x-p)², Σdy, Σdy·(x-p)."""
    at, stride, rows, width, tail = tile.at, tile.stride, tile.rows, tile.width, tile.tail
    for j in range(0, width, 16):
        for v in (s, q, g, t):
            store(v, j, fill(0.0), False)
    if in_order:
        for r in range(rows + (1 if tail > 0 else 0)):
            wide = width if r < rows else tail
            _row_own_sums(dy, x, at + r * stride, wide, _AHEAD // 2 * stride, p, s, q, g, t)
        return
    for k in range(2):
        part = tile if k == 0 else tail_of(tile)
        for r in range(0, part.rows, _ROWS):
            some = min(_ROWS, part.rows - r)
            ahead = min(_AHEAD // 2, part.rows - 1 - r) * stride
            for j in range(0, part.width, 16):
                pj, sj, qj, gj, tj = load(p, j), load(s, j), load(q, j), load(g, j), load(t, j)
                i = part.at + r * stride + j
                for _ in range(some):
                    prefetch(x, i + ahead)
                    prefetch(dy, i + ahead)
                    u, d = _about(x, i, part.width - j, pj), _values(dy, i, part.width - j)
                    sj, qj, gj, tj = add(sj, u), fma(u, u, qj), add(gj, d), fma(d, u, tj)
                    i += stride
                store(s, j, sj, False)
                store(q, j, qj, False)
                store(g, j, gj, False)
                store(t, j, tj, False)
