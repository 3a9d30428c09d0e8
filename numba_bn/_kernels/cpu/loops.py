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
    fill_as,
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
    load_as,
    load_as_if,
    load_if,
    near,
    prefetch,
    store,
    store_if,
)
from numba_bn._kernels.cpu.precision import arithmetic, fits, gradient_terms


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
        v = fma(sub(load_as(x, i, m), m), a, b)
        if residual is not None:
            v = add(v, load_as(residual, i, m))
        if not stream:
            claim(y, i + near(y) // 4)
        store(y, i, rectify(v, relu_too), stream)
        i += 16
    if i < end:
        _part_apply(x, y, residual, i, head(end - i), m, a, b, relu_too)


@block
def apply_values(
    x: Any,
    y: Any,
    residual: Any,
    i: int,
    n: int,
    ahead: int,
    m: float,
    a: float,
    b: float,
    relu_too: bool,
    stream: bool,
) -> None:
    """The same with numbers m, a, b, in the arithmetic that suits."""
    if fits(x, y, m, a, a, b):
        zero = arithmetic(x, y)
        mv, av, bv = fill_as(zero, m), fill_as(zero, a), fill_as(zero, b)
        run_apply(x, y, residual, i, n, ahead, mv, av, bv, relu_too, stream)
    else:
        for k in range(0, n, 16):
            part = head(n - k)
            _part_apply(x, y, residual, i + k, part, fill(m), fill(a), fill(b), relu_too)


@block
def _part_apply(
    x: Any, y: Any, residual: Any, i: int, part: Any, m: Any, a: Any, b: Any, relu_too: bool
) -> None:
    v = fma(sub(load_as_if(x, i, part, m), m), a, b)
    if residual is not None:
        v = add(v, load_as_if(residual, i, part, m))
    store_if(y, i, rectify(v, relu_too), part)


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
        share = fma(sub(load_as(x, i, m), m), b, c)
        if where is not None:
            share = select(flags(where, i), share, fill_as(m, 0.0))
        if not stream:
            claim(dx, i + near(dx) // 4)
        store(dx, i, add(mul(load_as(dy, i, m), a), share), stream)
        i += 16
    if i < end:
        _part_input_gradient(dy, x, where, dx, i, head(end - i), m, a, b, c)


@block
def gradient_values(
    dy: Any,
    x: Any,
    where: Any,
    dx: Any,
    i: int,
    n: int,
    ahead: int,
    mean: float,
    a: float,
    b: float,
    c: float,
    stream: bool,
) -> None:
    """The same about a mean, with numbers a, b, c, in the arithmetic that suits."""
    m, a, b, c = gradient_terms(x, dx, mean, a, b, c)
    if fits(x, dx, m, a, b, c):
        zero = arithmetic(x, dx)
        mv, av, bv, cv = fill_as(zero, m), fill_as(zero, a), fill_as(zero, b), fill_as(zero, c)
        run_input_gradient(dy, x, where, dx, i, n, ahead, mv, av, bv, cv, stream)
    else:
        for k in range(0, n, 16):
            mw, aw, bw, cw = fill(m), fill(a), fill(b), fill(c)
            _part_input_gradient(dy, x, where, dx, i + k, head(n - k), mw, aw, bw, cw)


@block
def _part_input_gradient(
    dy: Any, x: Any, where: Any, dx: Any, i: int, part: Any, m: Any, a: Any, b: Any, c: Any
) -> None:
    share = fma(sub(load_as_if(x, i, part, m), m), b, c)
    if where is not None:
        share = select(flags_if(where, i, part), share, fill_as(m, 0.0))
    store_if(dx, i, add(mul(load_as_if(dy, i, part, m), a), share), part)


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
