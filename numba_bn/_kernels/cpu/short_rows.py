"""Rows of a block at most, up to sixteen at a time, as they share roots and divisions.

Longer rows come fewer at a time than short ones, of which one would wait for its root.

Only what is plain is done here: a mean near enough to the pivot and factors well inside the range
of float32. A row that is not is left to be done by itself, whatever its neighbours are.
"""

from __future__ import annotations

from typing import Any

from numba_bn._kernels._compile import block, inlined
from numba_bn._kernels.cpu.asking import Way, ask
from numba_bn._kernels.cpu.lanes import (
    add,
    at_most,
    both,
    div,
    fill,
    fill_as,
    fma,
    head,
    magnitude,
    mul,
    root,
    select,
    set_bits,
    sub,
    suit,
    total,
    widened,
)
from numba_bn._kernels.cpu.memory import load, load_as, load_as_if, scalar, store, store_if
from numba_bn._kernels.cpu.precision import is_single
from numba_bn._kernels.cpu.row_blocks import row_products
from numba_bn._kernels.cpu.state import DIGITS
from numba_bn._kernels.cpu.totals import totals

SHORT = 256  # values up to which sixteen rows stay in the L1 from one step to the next
ROWS = 16
LANES = ROWS * 16  # lanes of as many rows
_SMALL, _LARGE = 2.0**-80, 2.0**80
_SINGLE_DIGITS = 8.0  # (mean - pivot)²/variance above which float32 sums are too few digits


@block
def _sums(x: Any, i: int, n: int, p: Any, way: Way) -> Any:
    """x[i : i + n], pivot p → Σ(x-p), Σ(x-p)², in lanes of p's kind."""
    whole, s, q = n - n % 16, fill_as(p, 0.0), fill_as(p, 0.0)
    for e in range(i, i + whole, 16):
        ask(x, e, way)
        d = sub(load_as(x, e, p), p)
        s, q = add(s, d), fma(d, d, q)
    if whole < n:
        part = head(n - whole)
        d = select(part, sub(load_as_if(x, i + whole, part, p), p), fill_as(p, 0.0))
        s, q = add(s, d), fma(d, d, q)
    return s, q


@block
def _long_sums(x: Any, i: int, n: int, p: Any, way: Way) -> Any:
    """The same of more values, float64: float32 sums are of as many values as a short row has."""
    s, q, most = fill(0.0), fill(0.0), SHORT if is_single(p) else n
    for e in range(0, n, most):
        some = _sums(x, i + e, min(most, n - e), p, way)
        s, q = add(s, widened(some[0])), add(q, widened(some[1]))
    return s, q


@block
def _long_products(dy: Any, x: Any, gamma: Any, i: int, n: int, p: Any, like: Any) -> Any:
    """The same of `row_products`."""
    s, q, g, t = fill(0.0), fill(0.0), fill(0.0), fill(0.0)
    most = SHORT if is_single(p) else n
    for e in range(0, n, most):
        some = row_products(dy, x, gamma, i + e, min(most, n - e), e, p, like, True)
        s, q = add(s, widened(some[0])), add(q, widened(some[1]))
        g, t = add(g, widened(some[2])), add(t, widened(some[3]))
    return s, q, g, t


@inlined
def _rows_sums(
    x: Any, zero: Any, first: int, count: int, n: int, lines: Any, terms: Any, way: Way
) -> None:
    """Rows of n from the ``first`` on → terms[:3]: p, Σ(x-p), Σ(x-p)²; lines has room for lanes."""
    for k in range(count):
        terms[k] = scalar(x, (first + k) * n + n // 2)
    if n > SHORT:
        for k in range(count):
            sv, qv = _long_sums(x, (first + k) * n, n, fill_as(zero, terms[k]), way)
            terms[ROWS + k], terms[2 * ROWS + k] = total(sv), total(qv)
        return
    for k in range(count):
        s, q = _sums(x, (first + k) * n, n, fill_as(zero, terms[k]), way)
        store(lines, k * 16, s, False)
        store(lines, LANES + k * 16, q, False)
    for i in range(2):
        store(terms, (i + 1) * ROWS, totals(lines, i * LANES), False)


@inlined
def _rows_products(
    dy: Any,
    x: Any,
    gamma: Any,
    like: Any,
    zero: Any,
    at: int,
    count: int,
    n: int,
    lines: Any,
    terms: Any,
) -> None:
    """Rows of n from x[at] on → terms: p, Σ(x-p), Σ(x-p)², Σgamma·dy, Σgamma·dy·(x-p)."""
    for k in range(count):
        terms[k] = scalar(x, at + k * n + n // 2)
    if n > SHORT:
        for k in range(count):
            p = fill_as(zero, terms[k])
            sv, qv, gv, tv = _long_products(dy, x, gamma, at + k * n, n, p, like)
            terms[ROWS + k], terms[2 * ROWS + k] = total(sv), total(qv)
            terms[3 * ROWS + k], terms[4 * ROWS + k] = total(gv), total(tv)
        return
    for k in range(count):
        p = fill_as(zero, terms[k])
        s, q, g, t = row_products(dy, x, gamma, at + k * n, n, 0, p, like, False)
        store(lines, k * 16, s, False)
        store(lines, LANES + k * 16, q, False)
        store(lines, 2 * LANES + k * 16, g, False)
        store(lines, 3 * LANES + k * 16, t, False)
    for i in range(4):
        store(terms, (i + 1) * ROWS, totals(lines, i * LANES), False)


@inlined
def _divided(v: Any, n: int) -> Any:
    """Return v / n; of short rows, which are taken one way only, nearly so in a third of the time.

    Longer ones may go the way of `moments` and `standard` as well, with the same bits; those whose
    sums begin in float32 do not.
    """
    if n > SHORT:
        return div(v, fill(float(n)))
    return mul(v, fill(1.0 / n))


@inlined
def _standard(n: int, zero: Any, terms: Any, eps: float, centred: bool) -> Any:
    """Pivots, Σ(x-p), Σ(x-p)² → mean, low, m2, 1/std, which are plain; as `finish`, `standard`."""
    p, s, q = load(terms, 0), load(terms, ROWS), load(terms, 2 * ROWS)
    step = _divided(s, n)
    m2 = sub(q, mul(s, step))
    high = add(p, step)
    back, rest = sub(high, p), _divided(fma(step, fill(-float(n)), s), n)
    low = add(add(sub(p, sub(high, back)), sub(step, back)), rest)
    mean = add(high, low)
    low = add(sub(high, mean), low)
    var = _divided(m2, n)
    if not centred:
        var = add(var, mul(mean, mean))
    var = add(var, fill(eps))
    digits = _SINGLE_DIGITS if is_single(zero) else DIGITS
    plain = both(at_most(mul(s, s), mul(fill(digits * n), m2)), at_most(fill(_SMALL), var))
    plain = both(plain, both(at_most(var, fill(_LARGE)), at_most(magnitude(mean), fill(_LARGE))))
    return mean, low, m2, div(fill(1.0), root(var)), plain


@inlined
def forward_terms(
    x: Any,
    like: Any,
    zero: Any,
    eps: float,
    centred: bool,
    result: Any,
    first: int,
    count: int,
    n: int,
    lines: Any,
    terms: Any,
    way: Way,
) -> int:
    """Rows of n from the ``first`` on, sixteen at most → terms (4, 16): m, r, z, 1; bits: which.

    y = ((x - m)·r + z)·gamma + beta in the arithmetic of ``like``; lines has room for lanes.
    """
    _rows_sums(x, zero, first, count, n, lines, terms, way)
    mean, low, m2, r, plain = _standard(n, zero, terms, eps, centred)
    if result.size > 0:
        part = head(count)
        store_if(result[0], first, fill(float(n)), part)
        store_if(result[1], first, mean, part)
        store_if(result[2], first, low, part)
        store_if(result[3], first, m2, part)
    if not centred:
        mean, low = fill(0.0), fill(0.0)
    m = widened(suit(mean, like))
    store(terms, 0, m, False)
    store(terms, 16, r, False)
    store(terms, 32, mul(sub(fill(0.0), add(sub(mean, m), low)), r), False)
    store(terms, 48, fill(1.0), False)
    return int(set_bits(plain))


@inlined
def backward_terms(
    dy: Any,
    x: Any,
    gamma: Any,
    like: Any,
    zero: Any,
    eps: float,
    centred: bool,
    at: int,
    count: int,
    n: int,
    lines: Any,
    terms: Any,
) -> int:
    """Rows of n from x[at] on, sixteen at most → terms (5, 16): m, b, c, r, z; bits: which.

    dx = (dy·gamma + (x - m)·b + c)·r, x̂ = (x - m)·r + z; lines has room for twice the lanes.
    """
    _rows_products(dy, x, gamma, like, zero, at, count, n, lines, terms)
    mean, low, _, r, plain = _standard(n, zero, terms, eps, centred)
    p, g, t = load(terms, 0), load(terms, 3 * ROWS), load(terms, 4 * ROWS)
    if not centred:
        mean, low = fill(0.0), fill(0.0)
    share, t = fill(-1.0 / n), sub(t, mul(add(sub(mean, p), low), g))
    b, c = mul(mul(mul(r, t), r), share), (mul(g, share) if centred else fill(0.0))
    m = widened(suit(mean, like))
    lost = add(sub(mean, m), low)
    c, z = sub(c, mul(lost, b)), mul(sub(fill(0.0), lost), r)
    size = magnitude(b)
    held = select(at_most(size, fill(0.0)), fill(1.0), size)
    plain = both(plain, both(at_most(fill(_SMALL), held), at_most(held, fill(_LARGE))))
    plain = both(plain, at_most(magnitude(c), fill(_LARGE)))
    store(terms, 0, m, False)
    store(terms, 16, b, False)
    store(terms, 32, c, False)
    store(terms, 48, r, False)
    store(terms, 64, z, False)
    return int(set_bits(plain))
