"""The innermost loops over contiguous values, sixteen at a time.

``where`` and ``residual`` are arrays or None; Numba compiles only the branch that is meant. A loop
ends with a masked part, so that nothing beyond its values is read or written.
"""

from __future__ import annotations

from typing import Any

from numba_bn._kernels._compile import block, inline, inlined
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
    outside,
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
from numba_bn._kernels.cpu.precision import fits, gradient_terms


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


@inline
def first_part(lead: int, joined: bool) -> Any:
    """``lead`` values before whole lines → how many of their line came before, a mask of them."""
    back = 16 - lead if joined else 0
    return back, (outside(head(back)) if joined else head(lead))


@inline
def put_first(y: Any, i: int, v: Any, part: Any, back: int, carry: Any) -> None:
    """Such a part v → y; the line is whole if ``back`` values of it were carried here."""
    if back > 0:
        store(y, i, select(head(back), carry, v), True)
    else:
        store_if(y, i, v, part)


@inline
def put_down(y: Any, i: int, carry: Any) -> None:
    """What is carried of the line that y[i] lies in → y, for those who write it otherwise."""
    back = (16 - before_aligned(y, i)) % 16
    store_if(y, i - back, carry, head(back))


@inline
def pick_up(y: Any, i: int, carry: Any) -> Any:
    """Return what is to be carried of the line that y[i] lies in, as lanes like ``carry``."""
    back = (16 - before_aligned(y, i)) % 16
    return load_as_if(y, i - back, head(back), carry)


@inlined
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
    carry: Any,
    joined: bool,
    more: bool,
) -> Any:
    """x[i : i + n] → y = (x - m)·a + b [+ residual], [ReLU]; m, a, b in lanes.

    A streamed line that two runs share is written whole, by the second: the first, with ``more`` to
    come, returns its part, which the second, ``joined``, is given.
    """
    end = i + n
    lead = min(before_aligned(y, i), n) if stream else 0
    if lead > 0:
        back, part = first_part(lead, joined)
        v = _applied(x, residual, i - back, part, m, a, b, relu_too)
        put_first(y, i - back, v, part, back, carry)
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
        part = head(end - i)
        carry = _applied(x, residual, i, part, m, a, b, relu_too)
        if not (stream and more):
            store_if(y, i, carry, part)
    return carry


@inlined
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
    carry: Any,
    joined: bool,
    more: bool,
) -> Any:
    """The same with numbers m, a, b, in the arithmetic that suits."""
    if fits(x, y, m, a, a, b):
        mv, av, bv = fill_as(carry, m), fill_as(carry, a), fill_as(carry, b)
        return run_apply(
            x, y, residual, i, n, ahead, mv, av, bv, relu_too, stream, carry, joined, more
        )
    if stream and joined:
        put_down(y, i, carry)
    for k in range(0, n, 16):
        part = head(n - k)
        v = _applied(x, residual, i + k, part, fill(m), fill(a), fill(b), relu_too)
        store_if(y, i + k, v, part)
    return pick_up(y, i + n, carry)


@block
def _applied(
    x: Any, residual: Any, i: int, part: Any, m: Any, a: Any, b: Any, relu_too: bool
) -> Any:
    """Return y for those of x[i : i + 16] that the mask selects."""
    v = fma(sub(load_as_if(x, i, part, m), m), a, b)
    if residual is not None:
        v = add(v, load_as_if(residual, i, part, m))
    return rectify(v, relu_too)


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


@inlined
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
    carry: Any,
    joined: bool,
    more: bool,
) -> Any:
    """dy, x [i : i + n] → dx = dy·a + (x-m)·b + c; a·dy alone where excluded.

    Shared lines are as in `run_apply`.
    """
    end = i + n
    lead = min(before_aligned(dx, i), n) if stream else 0
    if lead > 0:
        back, part = first_part(lead, joined)
        v = _gradient(dy, x, where, i - back, part, m, a, b, c)
        put_first(dx, i - back, v, part, back, carry)
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
        part = head(end - i)
        carry = _gradient(dy, x, where, i, part, m, a, b, c)
        if not (stream and more):
            store_if(dx, i, carry, part)
    return carry


@inlined
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
    carry: Any,
    joined: bool,
    more: bool,
) -> Any:
    """The same about a mean, with numbers a, b, c, in the arithmetic that suits."""
    m, a, b, c = gradient_terms(x, dx, mean, a, b, c)
    if fits(x, dx, m, a, b, c):
        mv, av, bv, cv = fill_as(carry, m), fill_as(carry, a), fill_as(carry, b), fill_as(carry, c)
        return run_input_gradient(
            dy, x, where, dx, i, n, ahead, mv, av, bv, cv, stream, carry, joined, more
        )
    if stream and joined:
        put_down(dx, i, carry)
    for k in range(0, n, 16):
        part = head(n - k)
        v = _gradient(dy, x, where, i + k, part, fill(m), fill(a), fill(b), fill(c))
        store_if(dx, i + k, v, part)
    return pick_up(dx, i + n, carry)


@block
def _gradient(
    dy: Any, x: Any, where: Any, i: int, part: Any, m: Any, a: Any, b: Any, c: Any
) -> Any:
    """Return dx for those of dy[i : i + 16] that the mask selects."""
    share = fma(sub(load_as_if(x, i, part, m), m), b, c)
    if where is not None:
        share = select(flags_if(where, i, part), share, fill_as(m, 0.0))
    return add(mul(load_as_if(dy, i, part, m), a), share)


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
