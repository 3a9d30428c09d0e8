"""The innermost loops over a row whose values have a scale and a shift each, sixteen at a time.

Lanes of m say in which arithmetic a row is written; its sums are float64.
"""

from __future__ import annotations

from typing import Any

from numba_bn._kernels._compile import block
from numba_bn._kernels.cpu.lanes import add, fill, fma, head, mul, select, sub, widened
from numba_bn._kernels.cpu.loops import near
from numba_bn._kernels.cpu.memory import (
    before_aligned,
    claim,
    load,
    load_as,
    load_as_if,
    load_if,
    prefetch,
    store,
    store_if,
)


@block
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
    stream: bool,
) -> None:
    """x[i : i + n] → y = ((x - m)·r + z)·gamma[j :] + beta[j :]; m, r, z in lanes."""
    end = i + n
    lead = min(before_aligned(y, i), n) if stream else 0
    if lead > 0:
        part_apply(x, y, i, head(lead), m, r, z, gamma, beta, j)
        i += lead
        j += lead
    while i + 16 <= end:
        prefetch(x, i + near(x))
        v = fma(sub(load_as(x, i, m), m), r, z)
        if not stream:
            claim(y, i + near(y) // 4)
        store(y, i, fma(v, load_as(gamma, j, m), load_as(beta, j, m)), stream)
        i += 16
        j += 16
    if i < end:
        part_apply(x, y, i, head(end - i), m, r, z, gamma, beta, j)


@block
def part_apply(
    x: Any, y: Any, i: int, part: Any, m: Any, r: Any, z: Any, gamma: Any, beta: Any, j: int
) -> None:
    v = fma(sub(load_as_if(x, i, part, m), m), r, z)
    v = fma(v, load_as_if(gamma, j, part, m), load_as_if(beta, j, part, m))
    store_if(y, i, v, part)


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
    lost: Any,
    r: Any,
    b: Any,
    c: Any,
    stream: bool,
) -> None:
    """dy, x [i : i + n] → dx = (dy·gamma + u·b + c)·r, u = x - m - lost.

    sums[0, 1][j :] take dy and dy·u·r.
    """
    end = i + n
    other = sums.size // 2
    lead = before_aligned(dx, i) if stream else 0
    while i < end:
        k = min(lead if lead > 0 else 16, end - i)
        part, lead = head(k), 0
        if k == 16:
            prefetch(x, i + near(x))
            prefetch(dy, i + near(x))
            d, v, g = load_as(dy, i, m), load_as(x, i, m), load_as(gamma, j, m)
        else:
            d, v = load_as_if(dy, i, part, m), load_as_if(x, i, part, m)
            g = load_as_if(gamma, j, part, m)
        u = sub(sub(v, m), lost)
        v = mul(add(mul(d, g), fma(u, b, c)), r)
        w = mul(d, mul(u, r))
        if k == 16:
            store(sums, j, add(load(sums, j), widened(d)), False)
            store(sums, other + j, add(load(sums, other + j), widened(w)), False)
            if not stream:
                claim(dx, i + near(dx) // 4)
            store(dx, i, v, stream)
        else:
            store_if(sums, j, add(load_if(sums, j, part), widened(d)), part)
            store_if(sums, other + j, add(load_if(sums, other + j, part), widened(w)), part)
            store_if(dx, i, v, part)
        i += k
        j += k
