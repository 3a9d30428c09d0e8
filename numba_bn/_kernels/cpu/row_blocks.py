"""The innermost loops over some short rows at once, which are one run of memory.

What is to go past the caches is made in a buffer that stays in the L1 and then put down line by
line: rows begin anywhere in a line, and the buffer costs less than to write each in parts.
"""

from __future__ import annotations

from typing import Any

from numba_bn._kernels._compile import block, inlined
from numba_bn._kernels.cpu.asking import claim, near, prefetch
from numba_bn._kernels.cpu.lanes import (
    add,
    fill_as,
    fma,
    head,
    mul,
    outside,
    select,
    sub,
    suit,
)
from numba_bn._kernels.cpu.memory import (
    before_aligned,
    load_as,
    load_as_if,
    load_own,
    store,
    store_if,
)
from numba_bn._kernels.cpu.row_loops import gradient_of, sums_after, sums_before


@inlined
def rows_apply(
    x: Any,
    y: Any,
    i: int,
    o: int,
    rows: int,
    n: int,
    terms: Any,
    gamma: Any,
    beta: Any,
    j: int,
    like: Any,
    claims: bool,
) -> None:
    """Rows of n from x[i] on → y[o :] = ((x - m)·r + z)·gamma[j :] + beta[j :]; terms (3, 16).

    gamma and beta begin anew after their last value.
    """
    whole = n - n % 16
    part = head(n - whole)
    for k in range(rows):
        m, r, z = (
            fill_as(like, terms[k]),
            fill_as(like, terms[16 + k]),
            fill_as(like, terms[32 + k]),
        )
        for e in range(0, whole, 16):
            if claims:
                claim(y, o + e + near(y) // 4)
            v = fma(sub(load_as(x, i + e, m), m), r, z)
            store(y, o + e, fma(v, load_as(gamma, j + e, m), load_as(beta, j + e, m)), False)
        if whole < n:
            g, b = load_as_if(gamma, j + whole, part, m), load_as_if(beta, j + whole, part, m)
            v = fma(sub(load_as_if(x, i + whole, part, m), m), r, z)
            store_if(y, o + whole, fma(v, g, b), part)
        i, o, j = i + n, o + n, j + n
        if j == gamma.size:
            j = 0


@inlined
def row_products(
    dy: Any, x: Any, gamma: Any, i: int, n: int, j: int, p: Any, like: Any, dy_too: bool
) -> Any:
    """dy, x [i : i + n], gamma[j :], pivot p → Σ(x-p), Σ(x-p)², Σgamma·dy, Σgamma·dy·(x-p).

    They are in lanes of p's kind, of products in that of ``like``: of short rows, as dx is made of
    them. No gamma is one of ones. Here dy is asked for, too, unless it is while dx is written: of
    short rows, a twentieth faster so.
    """
    whole, zero = n - n % 16, fill_as(p, 0.0)
    s, q, g, t = zero, zero, zero, zero
    for e in range(0, whole, 16):
        prefetch(x, i + e + near(x))
        if dy_too:
            prefetch(dy, i + e + near(x))
        u, d = sub(load_as(x, i + e, p), p), load_as(dy, i + e, like)
        if gamma is not None:
            d = mul(d, load_as(gamma, j + e, like))
        v = suit(d, p)
        s, q, g, t = add(s, u), fma(u, u, q), add(g, v), fma(v, u, t)
    if whole < n:
        part = head(n - whole)
        u = select(part, sub(load_as_if(x, i + whole, part, p), p), zero)
        d = load_as_if(dy, i + whole, part, like)
        if gamma is not None:
            d = mul(d, load_as_if(gamma, j + whole, part, like))
        v = suit(d, p)
        s, q, g, t = add(s, u), fma(u, u, q), add(g, v), fma(v, u, t)
    return s, q, g, t


@inlined
def rows_gradient(
    dy: Any,
    x: Any,
    gamma: Any,
    dx: Any,
    sums: Any,
    i: int,
    o: int,
    rows: int,
    n: int,
    j: int,
    terms: Any,
    zero: Any,
    like: Any,
) -> None:
    """Rows of n from dy[i], x[i] on → dx[o :] = (dy·gamma + (x-m)·b + c)·r, sums; terms (5, 16).

    Rows share one load of what belongs to a column; sums take dy and dy·((x-m)·r + z), they are of
    the kind of ``zero``. dy·gamma is rounded, as c was: what ought to cancel does.
    """
    whole, full = n - n % 16, head(16)
    for e in range(0, whole, 16):
        g = load_as(gamma, j + e, like)
        s, t = sums_before(sums, j + e, full, zero)
        for k in range(rows):
            at = k * n + e
            prefetch(dy, i + at + rows * n)  # the next rows'
            d, m = load_as(dy, i + at, like), fill_as(like, terms[k])
            v, w = gradient_of(d, sub(load_as(x, i + at, like), m), g, terms, k)
            store(dx, o + at, v, False)
            s, t = add(s, suit(d, zero)), add(t, suit(w, zero))
        sums_after(sums, j + e, full, s, t)
    if whole < n:
        part = head(n - whole)
        g = load_as_if(gamma, j + whole, part, like)
        s, t = sums_before(sums, j + whole, part, zero)
        for k in range(rows):
            at = k * n + whole
            d, m = load_as_if(dy, i + at, part, like), fill_as(like, terms[k])
            u = sub(load_as_if(x, i + at, part, like), m)
            v, w = gradient_of(d, u, g, terms, k)
            store_if(dx, o + at, v, part)
            s, t = add(s, suit(d, zero)), add(t, suit(w, zero))
        sums_after(sums, j + whole, part, s, t)


@block
def put_lines(y: Any, i: int, n: int, buffer: Any, joined: bool, more: bool) -> Any:
    """buffer → y[i : i + n], sixteen at least, past the caches; it begins where y[i]'s line does.

    Of the first line only what begins at y[i] is meant if it is not ``joined`` to what came before.
    What is left of a line is returned if there is ``more`` to come.
    """
    back = (16 - before_aligned(y, i)) % 16
    e, end, start = 0, back + n, i - back
    if back > 0 and not joined:
        store_if(y, start, load_own(buffer, 0), outside(head(back)))
        e = 16
    while e + 16 <= end:
        store(y, start + e, load_own(buffer, e), True)
        e += 16
    rest = load_own(buffer, e)
    if e < end and not more:
        store_if(y, start + e, rest, head(end - e))
    return rest
