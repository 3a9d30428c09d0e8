"""The innermost loops of gradients over contiguous values, sixteen at a time; as in ``loops``."""

from __future__ import annotations

from typing import Any

from numba_bn._kernels._compile import block, inlined
from numba_bn._kernels.cpu.asking import Way, ask, asks, claim, near
from numba_bn._kernels.cpu.lanes import (
    add,
    both,
    either,
    fill,
    fill_as,
    finite,
    fma,
    head,
    mul,
    positive,
    select,
    sub,
)
from numba_bn._kernels.cpu.loops import first_part, pick_up, put_down, put_first, whole
from numba_bn._kernels.cpu.memory import (
    before_aligned,
    flags,
    flags_if,
    load,
    load_as,
    load_as_if,
    load_if,
    store,
    store_if,
)
from numba_bn._kernels.cpu.precision import fits


@block
def run_gradients(
    dy: Any, x: Any, where: Any, i: int, n: int, way: Way, m: Any, s: Any, t: Any
) -> Any:
    """dy, x [i : i + n], mean m → s + Σdy, t + Σdy·(x-m); what is excluded counts if finite."""
    end = i + n
    for k in range(i, end - 15, 16):
        ask(x, k, way)
        ask(dy, k, way)
        d, u = load(dy, k), sub(load(x, k), m)
        if where is not None:
            usable = either(flags(where, k), finite(mul(d, u)))
            d, u = select(usable, d, fill(0.0)), select(usable, u, fill(0.0))
        s, t = add(s, d), fma(d, u, t)
    i = whole(i, end)
    if i < end:
        part = head(end - i)
        d, u = load_if(dy, i, part), sub(load_if(x, i, part), m)
        if where is not None:
            part = both(part, either(flags_if(where, i, part), finite(mul(d, u))))
        d, u = select(part, d, fill(0.0)), select(part, u, fill(0.0))
        s, t = add(s, d), fma(d, u, t)
    return s, t


@block
def gradient(dy: Any, x: Any, where: Any, i: int, m: Any, a: Any, b: Any, c: Any) -> Any:
    """dy, x [i : i + 16] → dx = dy·a + (x-m)·b + c, as lanes; a·dy alone where excluded."""
    share = fma(sub(load_as(x, i, m), m), b, c)
    if where is not None:
        share = select(flags(where, i), share, fill_as(m, 0.0))
    return add(mul(load_as(dy, i, m), a), share)


@block
def gradient_if(
    dy: Any, x: Any, where: Any, i: int, part: Any, m: Any, a: Any, b: Any, c: Any
) -> Any:
    """The same of those that a mask selects."""
    share = fma(sub(load_as_if(x, i, part, m), m), b, c)
    if where is not None:
        share = select(flags_if(where, i, part), share, fill_as(m, 0.0))
    return add(mul(load_as_if(dy, i, part, m), a), share)


@block
def put_gradient(
    dy: Any, x: Any, where: Any, dx: Any, i: int, m: Any, a: Any, b: Any, c: Any
) -> None:
    """dy, x [i : i + 16] → dx, into the caches."""
    claim(dx, i + near(dx) // 4)
    store(dx, i, gradient(dy, x, where, i, m, a, b, c), False)


@inlined
def run_input_gradient(
    dy: Any,
    x: Any,
    where: Any,
    dx: Any,
    i: int,
    n: int,
    way: Way,
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
        v = gradient_if(dy, x, where, i - back, part, m, a, b, c)
        put_first(dx, i - back, v, part, back, carry)
        i += lead
    for k in range(i, end - 15, 16):
        if asks(stream):
            ask(x, k, way)
            ask(dy, k, way)
        if not stream:
            claim(dx, k + near(dx) // 4)
        store(dx, k, gradient(dy, x, where, k, m, a, b, c), stream)
    i = whole(i, end)
    if i < end:
        part = head(end - i)
        carry = gradient_if(dy, x, where, i, part, m, a, b, c)
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
    way: Way,
    m: float,
    a: float,
    b: float,
    c: float,
    stream: bool,
    carry: Any,
    joined: bool,
    more: bool,
) -> Any:
    """The same with numbers m, a, b, c of `gradient_terms`, in the arithmetic that suits."""
    if fits(x, dx, m, a, b, c):
        mv, av, bv, cv = fill_as(carry, m), fill_as(carry, a), fill_as(carry, b), fill_as(carry, c)
        return run_input_gradient(
            dy, x, where, dx, i, n, way, mv, av, bv, cv, stream, carry, joined, more
        )
    if stream and joined:
        put_down(dx, i, carry)
    for k in range(0, n, 16):
        part = head(n - k)
        v = gradient_if(dy, x, where, i + k, part, fill(m), fill(a), fill(b), fill(c))
        store_if(dx, i + k, v, part)
    return pick_up(dx, i + n, carry) if stream else carry


@block
def relu_gradient_run(dy: Any, y: Any, out: Any, i: int, n: int) -> None:
    """dy, y [i : i + n] → dy where y is above 0 (or NaN), else 0."""
    end = i + n
    for k in range(i, end - 15, 16):
        store(out, k, select(positive(load(y, k)), load(dy, k), fill(0.0)), False)
    i = whole(i, end)
    if i < end:
        part = head(end - i)
        through = positive(load_if(y, i, part))
        store_if(out, i, select(through, load_if(dy, i, part), fill(0.0)), part)
