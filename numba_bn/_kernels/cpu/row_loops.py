"""The innermost loops over a row whose values have a scale and a shift each, sixteen at a time.

Lanes of m, of a gradient those of ``carry`` or ``like``, say in which arithmetic a row is written,
those of zero in which its gradients are summed.
"""

from __future__ import annotations

from typing import Any

from numba_bn._kernels._compile import block, inlined
from numba_bn._kernels.cpu.asking import Way, ask, asks, claim, near, prefetch
from numba_bn._kernels.cpu.lanes import (
    add,
    fill,
    fill_as,
    fma,
    head,
    mul,
    outside,
    select,
    sub,
    suit,
)
from numba_bn._kernels.cpu.loops import first_part, put_first
from numba_bn._kernels.cpu.memory import (
    before_aligned,
    load_as,
    load_as_if,
    load_if,
    store,
    store_if,
)
from numba_bn._kernels.cpu.precision import go_on, put_onto


@inlined
def row_apply(
    x: Any,
    y: Any,
    i: int,
    n: int,
    m: Any,
    r: Any,
    z: Any,
    gamma: Any,
    beta: Any,
    j: int,
    way: Way,
    stream: bool,
    carry: Any,
    joined: bool,
    more: bool,
) -> Any:
    """x[i : i + n] → y = ((x - m)·r + z)·gamma[j :] + beta[j :]; m, r, z in lanes.

    A streamed line that two rows share is written whole, by the second: the first, with ``more`` to
    come, returns its part, which the second, ``joined``, is given.
    """
    end = i + n
    lead = min(before_aligned(y, i), n) if stream else 0
    if lead > 0:
        back, part = first_part(lead, joined)
        v = _applied(x, i - back, part, m, r, z, gamma, beta, j - back)
        put_first(y, i - back, v, part, back, carry)
    i += lead
    j += lead
    while i + 16 <= end:
        ask(x, i, way)
        v = fma(sub(load_as(x, i, m), m), r, z)
        if not stream:
            claim(y, i + near(y) // 4)
        store(y, i, fma(v, load_as(gamma, j, m), load_as(beta, j, m)), stream)
        i += 16
        j += 16
    if i < end:
        part = head(end - i)
        carry = _applied(x, i, part, m, r, z, gamma, beta, j)
        if not (stream and more):
            store_if(y, i, carry, part)
    return carry


@block
def row_apply_wide(
    x: Any, y: Any, i: int, n: int, m: float, r: float, z: float, gamma: Any, beta: Any, j: int
) -> None:
    """The same in float64; so rarely needed for short x that it is short, not fast."""
    mv, rv, zv = fill(m), fill(r), fill(z)
    for k in range(0, n, 16):
        part = head(n - k)
        store_if(y, i + k, _applied(x, i + k, part, mv, rv, zv, gamma, beta, j + k), part)


@block
def _applied(
    x: Any, i: int, part: Any, m: Any, r: Any, z: Any, gamma: Any, beta: Any, j: int
) -> Any:
    """Return y for those of x[i : i + 16] that the mask selects."""
    v = fma(sub(load_as_if(x, i, part, m), m), r, z)
    return fma(v, load_as_if(gamma, j, part, m), load_as_if(beta, j, part, m))


@block
def rows_input_gradient(
    dy: Any,
    x: Any,
    gamma: Any,
    dx: Any,
    sums: Any,
    i: int,
    rows: int,
    n: int,
    j: int,
    terms: Any,
    zero: Any,
    stream: bool,
    carry: Any,
    joined: bool,
    more: bool,
) -> Any:
    """Rows of n from dy[i], x[i] on → dx = (dy·gamma + (x-m)·b + c)·r; sums take dy and dy·x̂.

    The terms m, b, c, r, z of rows are (5, 16), x̂ = (x-m)·r + z. Rows that begin alike in their
    lines of memory share one load of what belongs to a column, and sums over them are of the kind
    of ``zero``; shared lines are as in `row_apply`. dy·gamma is rounded, as c was: what ought to
    cancel does.
    """
    lead = before_aligned(dx, i) if stream else 0
    last, full = (n - lead) % 16, head(16)
    if stream:
        carry = _edges(
            dy,
            x,
            gamma,
            dx,
            sums,
            i,
            rows,
            n,
            j,
            terms,
            zero,
            lead,
            last,
            carry,
            joined,
            more,
        )
    for e in range(lead, n - last, 16):
        g = load_as(gamma, j + e, carry)
        s, t = sums_before(sums, j + e, full, zero)
        for k in range(rows):
            at = i + k * n + e
            if asks(stream):
                prefetch(x, at + rows * n)  # the next rows': a tenth faster than what is near
                prefetch(dy, at + rows * n)
            if not stream:
                claim(dx, at + near(dx) // 4)
            d, u = load_as(dy, at, carry), sub(load_as(x, at, carry), fill_as(carry, terms[k]))
            v, w = gradient_of(d, u, g, terms, k)
            store(dx, at, v, stream)
            s, t = add(s, suit(d, zero)), add(t, suit(w, zero))
        sums_after(sums, j + e, full, s, t)
    if last > 0 and not stream:
        part, e = head(last), n - last
        s, t = sums_before(sums, j + e, part, zero)
        for k in range(rows):
            at = i + k * n + e
            v, d, w = _part_gradient(dy, x, gamma, at, j + e, part, terms, k, carry)
            store_if(dx, at, v, part)
            s, t = add(s, suit(d, zero)), add(t, suit(w, zero))
        sums_after(sums, j + e, part, s, t)
    return carry


@block
def _edges(
    dy: Any,
    x: Any,
    gamma: Any,
    dx: Any,
    sums: Any,
    i: int,
    rows: int,
    n: int,
    j: int,
    terms: Any,
    zero: Any,
    lead: int,
    last: int,
    carry: Any,
    joined: bool,
    more: bool,
) -> Any:
    """The same of the ``lead`` values before whole lines and the ``last`` ones after them."""
    back, end = 16 - lead, n - last
    before, after = outside(head(back)), head(last)
    s, t = sums_before(sums, j - back, before, zero)
    p, q = sums_before(sums, j + end, after, zero)
    for k in range(rows):
        at = i + k * n
        if lead > 0:
            v, d, w = _part_gradient(dy, x, gamma, at - back, j - back, before, terms, k, carry)
            s, t = add(s, suit(d, zero)), add(t, suit(w, zero))
            if joined or k > 0:
                store(dx, at - back, select(before, v, carry), True)
            else:
                store_if(dx, at - back, v, before)
        if last > 0:
            carry, d, w = _part_gradient(dy, x, gamma, at + end, j + end, after, terms, k, carry)
            p, q = add(p, suit(d, zero)), add(q, suit(w, zero))
            if not (more or k + 1 < rows):
                store_if(dx, at + end, carry, after)
    sums_after(sums, j - back, before, s, t)
    sums_after(sums, j + end, after, p, q)
    return carry


@inlined
def sums_before(sums: Any, j: int, part: Any, zero: Any) -> Any:
    """Return what sums over dy and dy·x̂ of some columns begin with."""
    s, t = load_if(sums, j, part), load_if(sums, sums.size // 2 + j, part)
    return go_on(zero, s), go_on(zero, t)


@inlined
def sums_after(sums: Any, j: int, part: Any, s: Any, t: Any) -> None:
    """Keep what they end with."""
    other = sums.size // 2 + j
    store_if(sums, j, put_onto(load_if(sums, j, part), s), part)
    store_if(sums, other, put_onto(load_if(sums, other, part), t), part)


@inlined
def gradient_of(d: Any, u: Any, g: Any, terms: Any, k: int) -> Any:
    """Return dx = (dy·gamma + u·b + c)·r and dy·x̂, x̂ = u·r + z, u = x - m, in lanes; of row k."""
    b, c = fill_as(d, terms[16 + k]), fill_as(d, terms[32 + k])
    r, z = fill_as(d, terms[48 + k]), fill_as(d, terms[64 + k])
    return mul(add(mul(d, g), fma(u, b, c)), r), mul(d, fma(u, r, z))


@inlined
def _part_gradient(
    dy: Any, x: Any, gamma: Any, i: int, j: int, part: Any, terms: Any, k: int, like: Any
) -> Any:
    """Return dx, dy and dy·x̂ of those of x[i : i + 16] that the mask selects."""
    d, u = load_as_if(dy, i, part, like), load_as_if(x, i, part, like)
    u = sub(u, fill_as(like, terms[k]))
    v, w = gradient_of(d, u, load_as_if(gamma, j, part, like), terms, k)
    return v, d, w
