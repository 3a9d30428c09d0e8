"""The innermost loops over contiguous values, sixteen at a time.

``where`` and ``residual`` are arrays or None; Numba compiles only the branch that is meant. A loop
ends with a masked part, so that nothing beyond its values is read or written.
"""

from __future__ import annotations

from typing import Any

from numba_bn._kernels._compile import block, inlined
from numba_bn._kernels.cpu.asking import Way, ask, asks, claim, near
from numba_bn._kernels.cpu.lanes import (
    add,
    fill,
    fill_as,
    fma,
    head,
    how_many,
    outside,
    relu,
    select,
    sub,
)
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


@inlined
def whole(i: int, end: int) -> int:
    """Return where the sixteens from i on stop that end in time.

    They are counted by a ``range``, which LLVM unrolls: a seventh less time from caches.
    """
    return i + max(end - i, 0) // 16 * 16


@block
def run_count(where: Any, i: int, n: int) -> int:
    """where[i : i + n] → how many are set."""
    end = i + n
    count = 0
    for k in range(i, end - 15, 16):
        count += how_many(flags(where, k))
    i = whole(i, end)
    if i < end:
        count += how_many(flags_if(where, i, head(end - i)))
    return count


@block
def run_sums(x: Any, where: Any, i: int, n: int, way: Way, p: Any, s: Any, q: Any) -> Any:
    """x[i : i + n], pivot p → s + Σ(x-p), q + Σ(x-p)²; ``way`` is that of `ask`."""
    end = i + n
    for k in range(i, end - 15, 16):
        ask(x, k, way)
        d = sub(load(x, k), p)
        if where is not None:
            d = select(flags(where, k), d, fill(0.0))
        s = add(s, d)
        q = fma(d, d, q)
    i = whole(i, end)
    if i < end:
        part = head(end - i)
        d = sub(load_if(x, i, part), p)
        if where is not None:
            part = flags_if(where, i, part)
        d = select(part, d, fill(0.0))
        s = add(s, d)
        q = fma(d, d, q)
    return s, q


@inlined
def rectify(v: Any, relu_too: bool) -> Any:
    """v → ReLU of v, if so asked."""
    if relu_too:
        return relu(v)
    return v


@inlined
def first_part(lead: int, joined: bool) -> Any:
    """``lead`` values before whole lines → how many of their line came before, a mask of them."""
    back = 16 - lead if joined else 0
    return back, (outside(head(back)) if joined else head(lead))


@inlined
def put_first(y: Any, i: int, v: Any, part: Any, back: int, carry: Any) -> None:
    """Such a part v → y; the line is whole if ``back`` values of it were carried here."""
    if back > 0:
        store(y, i, select(head(back), carry, v), True)
    else:
        store_if(y, i, v, part)


@inlined
def put_down(y: Any, i: int, carry: Any) -> None:
    """What is carried of the line that y[i] lies in → y, for those who write it otherwise."""
    back = (16 - before_aligned(y, i)) % 16
    store_if(y, i - back, carry, head(back))


@inlined
def pick_up(y: Any, i: int, carry: Any) -> Any:
    """Return what is to be carried of the line that y[i] lies in, as lanes like ``carry``."""
    back = (16 - before_aligned(y, i)) % 16
    return load_as_if(y, i - back, head(back), carry)


@block
def applied(x: Any, residual: Any, i: int, m: Any, a: Any, b: Any, relu_too: bool) -> Any:
    """x[i : i + 16] → y = (x - m)·a + b [+ residual], [ReLU], as lanes."""
    v = fma(sub(load_as(x, i, m), m), a, b)
    if residual is not None:
        v = add(v, load_as(residual, i, m))
    return rectify(v, relu_too)


@block
def applied_if(
    x: Any, residual: Any, i: int, part: Any, m: Any, a: Any, b: Any, relu_too: bool
) -> Any:
    """The same of those that a mask selects."""
    v = fma(sub(load_as_if(x, i, part, m), m), a, b)
    if residual is not None:
        v = add(v, load_as_if(residual, i, part, m))
    return rectify(v, relu_too)


@block
def put(x: Any, y: Any, residual: Any, i: int, m: Any, a: Any, b: Any, relu_too: bool) -> None:
    """x[i : i + 16] → y, into the caches."""
    claim(y, i + near(y) // 4)
    store(y, i, applied(x, residual, i, m, a, b, relu_too), False)


@inlined
def run_apply(
    x: Any,
    y: Any,
    residual: Any,
    i: int,
    n: int,
    way: Way,
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
        v = applied_if(x, residual, i - back, part, m, a, b, relu_too)
        put_first(y, i - back, v, part, back, carry)
        i += lead
    for k in range(i, end - 15, 16):
        if asks(stream):
            ask(x, k, way)
        if not stream:
            claim(y, k + near(y) // 4)
        store(y, k, applied(x, residual, k, m, a, b, relu_too), stream)
    i = whole(i, end)
    if i < end:
        part = head(end - i)
        carry = applied_if(x, residual, i, part, m, a, b, relu_too)
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
    way: Way,
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
            x, y, residual, i, n, way, mv, av, bv, relu_too, stream, carry, joined, more
        )
    if stream and joined:
        put_down(y, i, carry)
    for k in range(0, n, 16):
        part = head(n - k)
        v = applied_if(x, residual, i + k, part, fill(m), fill(a), fill(b), relu_too)
        store_if(y, i + k, v, part)
    return pick_up(y, i + n, carry) if stream else carry
