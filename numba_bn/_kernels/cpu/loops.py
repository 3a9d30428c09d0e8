"""The innermost loops over contiguous values, sixteen at a time.

``where`` and ``residual`` are arrays or None; Numba compiles only the branch that is meant. A loop
ends with a masked part, so that nothing beyond its values is read or written.
"""

from __future__ import annotations

from typing import Any

from numba_bn._kernels._compile import block, inline
from numba_bn._kernels.cpu.lanes import (
    add,
    both,
    either,
    fill,
    finite,
    fma,
    head,
    how_many,
    mul,
    positive,
    relu,
    select,
    sub,
)
from numba_bn._kernels.cpu.memory import (
    before_aligned,
    claim,
    flags,
    flags_if,
    load,
    load_if,
    prefetch,
    store,
    store_if,
)


@block
def run_count(where: Any, i: int, n: int) -> int:
    """where[i : i + n] → how many are set."""
    end = i + n
    count = 0
    while i + 16 <= end:
        count += how_many(flags(where, i))
        i += 16
    if i < end:
        count += how_many(flags_if(where, i, head(end - i)))
    return count


@inline
def near(x: Any) -> int:
    """How many values ahead to ask for x's memory, where nothing better is known: 8 KB of them.

    Statistics from memory run 1.3 × as fast as without; what is to be written is asked for 2 KB
    ahead: 1.25 × as fast.
    """
    return int(8192 // x.itemsize)


@block
def run_sums(x: Any, where: Any, i: int, n: int, ahead: int, p: Any, s: Any, q: Any) -> Any:
    """x[i : i + n], pivot p → s + Σ(x-p), q + Σ(x-p)²."""
    end = i + n
    while i + 16 <= end:
        prefetch(x, i + ahead)
        d = sub(load(x, i), p)
        if where is not None:
            d = select(flags(where, i), d, fill(0.0))
        s = add(s, d)
        q = fma(d, d, q)
        i += 16
    if i < end:
        part = head(end - i)
        d = sub(load_if(x, i, part), p)
        if where is not None:
            part = flags_if(where, i, part)
        d = select(part, d, fill(0.0))
        s = add(s, d)
        q = fma(d, d, q)
    return s, q


@inline
def rectify(v: Any, relu_too: bool) -> Any:
    """v → ReLU of v, if so asked."""
    if relu_too:
        return relu(v)
    return v


@block
def run_apply(
    x: Any,
    y: Any,
    residual: Any,
    i: int,
    n: int,
    ahead: int,
    m: Any,
    a: Any,
    b: Any,
    relu_too: bool,
    stream: bool,
) -> None:
    """x[i : i + n] → y = (x - m)·a + b [+ residual], [ReLU]; m, a, b in lanes."""
    end = i + n
    lead = min(before_aligned(y, i), n) if stream else 0
    if lead > 0:
        _part_apply(x, y, residual, i, head(lead), m, a, b, relu_too)
        i += lead
    while i + 16 <= end:
        prefetch(x, i + ahead)
        v = fma(sub(load(x, i), m), a, b)
        if residual is not None:
            v = add(v, load(residual, i))
        if not stream:
            claim(y, i + near(y) // 4)
        store(y, i, rectify(v, relu_too), stream)
        i += 16
    if i < end:
        _part_apply(x, y, residual, i, head(end - i), m, a, b, relu_too)


@block
def _part_apply(
    x: Any, y: Any, residual: Any, i: int, part: Any, m: Any, a: Any, b: Any, relu_too: bool
) -> None:
    v = fma(sub(load_if(x, i, part), m), a, b)
    if residual is not None:
        v = add(v, load_if(residual, i, part))
    store_if(y, i, rectify(v, relu_too), part)


@block
def row_apply(
    x: Any, y: Any, i: int, n: int, m: Any, r: Any, gamma: Any, beta: Any, j: int, stream: bool
) -> None:
    """x[i : i + n] → y = (x - m)·r·gamma[j :] + beta[j :]; m, r in lanes."""
    end = i + n
    shift = j - i
    lead = min(before_aligned(y, i), n) if stream else 0
    if lead > 0:
        part = head(lead)
        v = mul(sub(load_if(x, i, part), m), r)
        v = fma(v, load_if(gamma, i + shift, part), load_if(beta, i + shift, part))
        store_if(y, i, v, part)
        i += lead
    while i + 16 <= end:
        prefetch(x, i + near(x))
        v = mul(sub(load(x, i), m), r)
        if not stream:
            claim(y, i + near(y) // 4)
        store(y, i, fma(v, load(gamma, i + shift), load(beta, i + shift)), stream)
        i += 16
    if i < end:
        part = head(end - i)
        v = mul(sub(load_if(x, i, part), m), r)
        v = fma(v, load_if(gamma, i + shift, part), load_if(beta, i + shift, part))
        store_if(y, i, v, part)


@block
def run_gradients(
    dy: Any, x: Any, where: Any, i: int, n: int, ahead: int, m: Any, s: Any, t: Any
) -> Any:
    """dy, x [i : i + n], mean m → s + Σdy, t + Σdy·(x-m); what is excluded counts if finite."""
    end = i + n
    while i + 16 <= end:
        prefetch(x, i + ahead)
        prefetch(dy, i + ahead)
        d = load(dy, i)
        u = mul(d, sub(load(x, i), m))
        if where is not None:
            usable = either(flags(where, i), finite(u))
            d = select(usable, d, fill(0.0))
            u = select(usable, u, fill(0.0))
        s = add(s, d)
        t = add(t, u)
        i += 16
    if i < end:
        part = head(end - i)
        d = load_if(dy, i, part)
        u = mul(d, sub(load_if(x, i, part), m))
        if where is not None:
            part = both(part, either(flags_if(where, i, part), finite(u)))
        s = add(s, select(part, d, fill(0.0)))
        t = add(t, select(part, u, fill(0.0)))
    return s, t


@block
def run_input_gradient(
    dy: Any,
    x: Any,
    where: Any,
    dx: Any,
    i: int,
    n: int,
    ahead: int,
    m: Any,
    a: Any,
    b: Any,
    c: Any,
    stream: bool,
) -> None:
    """dy, x [i : i + n] → dx = dy·a + (x-m)·b + c; a·dy alone where excluded."""
    end = i + n
    lead = min(before_aligned(dx, i), n) if stream else 0
    if lead > 0:
        _part_input_gradient(dy, x, where, dx, i, head(lead), m, a, b, c)
        i += lead
    while i + 16 <= end:
        prefetch(x, i + ahead)
        prefetch(dy, i + ahead)
        share = fma(sub(load(x, i), m), b, c)
        if where is not None:
            share = select(flags(where, i), share, fill(0.0))
        if not stream:
            claim(dx, i + near(dx) // 4)
        store(dx, i, fma(load(dy, i), a, share), stream)
        i += 16
    if i < end:
        _part_input_gradient(dy, x, where, dx, i, head(end - i), m, a, b, c)


@block
def _part_input_gradient(
    dy: Any, x: Any, where: Any, dx: Any, i: int, part: Any, m: Any, a: Any, b: Any, c: Any
) -> None:
    share = fma(sub(load_if(x, i, part), m), b, c)
    if where is not None:
        share = select(flags_if(where, i, part), share, fill(0.0))
    store_if(dx, i, fma(load_if(dy, i, part), a, share), part)


@block
def row_gradients(
    dy: Any, x: Any, gamma: Any, i: int, n: int, j: int, m: Any, s: Any, t: Any
) -> Any:
    """dy, x [i : i + n], gamma[j :], mean m → s + Σgamma·dy, t + Σgamma·dy·(x-m)."""
    end = i + n
    shift = j - i
    while i + 16 <= end:
        prefetch(x, i + near(x))
        prefetch(dy, i + near(x))
        d = mul(load(dy, i), load(gamma, i + shift))
        s = add(s, d)
        t = fma(d, sub(load(x, i), m), t)
        i += 16
    if i < end:
        part = head(end - i)
        d = mul(load_if(dy, i, part), load_if(gamma, i + shift, part))
        s = add(s, d)
        t = add(t, select(part, mul(d, sub(load_if(x, i, part), m)), fill(0.0)))
    return s, t


@block
def row_input_gradient(
    dy: Any,
    x: Any,
    gamma: Any,
    dx: Any,
    sums: Any,
    i: int,
    n: int,
    j: int,
    m: Any,
    r: Any,
    b: Any,
    c: Any,
    stream: bool,
) -> None:
    """dy, x [i : i + n] → dx = dy·gamma·r + (x-m)·b + c; sums[0, 1][j :] take dy and dy·(x-m)·r."""
    end = i + n
    other = sums.size // 2
    lead = before_aligned(dx, i) if stream else 0
    while i < end:
        k = min(lead if lead > 0 else 16, end - i)
        part, lead = head(k), 0
        if k == 16:
            prefetch(x, i + near(x))
            prefetch(dy, i + near(x))
            d, u, g = load(dy, i), sub(load(x, i), m), load(gamma, j)
        else:
            d, u, g = load_if(dy, i, part), sub(load_if(x, i, part), m), load_if(gamma, j, part)
        v = fma(mul(d, g), r, fma(u, b, c))
        w = mul(mul(d, u), r)
        if k == 16:
            store(sums, j, add(load(sums, j), d), False)
            store(sums, other + j, add(load(sums, other + j), w), False)
            if not stream:
                claim(dx, i + near(dx) // 4)
            store(dx, i, v, stream)
        else:
            store_if(sums, j, add(load_if(sums, j, part), d), part)
            store_if(sums, other + j, add(load_if(sums, other + j, part), w), part)
            store_if(dx, i, v, part)
        i += k
        j += k


@block
def relu_gradient_run(dy: Any, y: Any, out: Any, i: int, n: int) -> None:
    """dy, y [i : i + n] → dy where y is above 0 (or NaN), else 0."""
    end = i + n
    while i + 16 <= end:
        store(out, i, select(positive(load(y, i)), load(dy, i), fill(0.0)), False)
        i += 16
    if i < end:
        part = head(end - i)
        through = positive(load_if(y, i, part))
        store_if(out, i, select(through, load_if(dy, i, part), fill(0.0)), part)
