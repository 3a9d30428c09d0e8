"""Instance and group norm of samples side by side, each group's values in one run.

x is flat, (groups, length); a group holds ``size`` channels of equal length, and parameters repeat
after as many channels as they have. Short runs are taken to each step many at a time: then none
waits for what the one before it needs long for.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange

from numba_bn._kernels._compile import block, unit
from numba_bn._kernels._launch import Kernel
from numba_bn._kernels.cpu.asking import near, straight
from numba_bn._kernels.cpu.lanes import fill, total
from numba_bn._kernels.cpu.loops import run_sums
from numba_bn._kernels.cpu.memory import nearest, scalar
from numba_bn._kernels.cpu.moments import BLOCK, Slab, slab_moments
from numba_bn._kernels.cpu.own import KEPT, own_factors, spreads, standards
from numba_bn._kernels.cpu.precision import all_fit, arithmetic
from numba_bn._kernels.cpu.rows import AT_ONCE
from numba_bn._kernels.cpu.runs import apply_runs
from numba_bn._kernels.cpu.state import STATE, is_off, spread


@block
def _moments(x: Any, at: int, count: int, length: int, states: Any, kept: Any, far: bool) -> None:
    """Groups from x[at] on → kept: p, Σ(x-p), Σ(x-mean)²; those beyond a block come singly."""
    if length > BLOCK:
        slab_moments(x, None, Slab(at, length, 1, length, 1), states, far)
        kept[0, 0], kept[1, 0], kept[2, 0] = states[0, 1], states[0, 2], states[0, 3]
        return
    n, way = float(length), straight(near(x))
    for attempt in range(2):
        for k in range(count):
            start = at + k * length
            p = scalar(x, start + length // 2)
            if attempt == 1:
                if not is_off(n, kept[1, k], kept[2, k]):
                    continue
                p = nearest(x, kept[0, k] + kept[1, k] / n)
            s, q = run_sums(x, None, start, length, way, fill(p), fill(0.0), fill(0.0))
            kept[0, k], kept[1, k], kept[2, k] = p, total(s), total(q)
            if attempt == 1:
                kept[2, k] = spread(n, kept[1, k], kept[2, k])
        if attempt == 1 or not spreads(kept, count, n):
            break


@block
def _forward_groups(
    x: Any,
    y: Any,
    residual: Any,
    gamma: Any,
    beta: Any,
    eps: float,
    relu: bool,
    stream: bool,
    result: Any,
    start: int,
    last: int,
    length: int,
    size: int,
    states: Any,
    kept: Any,
    factors: Any,
) -> None:
    """Groups [start, last), as many at a time as ``kept`` holds → y, result."""
    carry, some, inner = arithmetic(x, y), kept.shape[1], length // size
    for first in range(start, last, some):
        count = min(some, last - first)
        _moments(x, first * length, count, length, states, kept, stream)
        standards(kept, count, float(length), eps, result, first)
        own_factors(x, y, gamma, beta, first * size % gamma.size, kept, count, size, factors)
        at, runs, joined, more = first * length, count * size, first > start, first + count < last
        fit = not stream and all_fit(x, y, factors, 0, runs)
        carry = apply_runs(
            x,
            y,
            residual,
            at,
            runs,
            inner,
            straight(near(x)),
            factors,
            fit,
            relu,
            stream,
            carry,
            joined,
            more,
        )


@unit
def _forward_unit(
    u: int,
    x: Any,
    y: Any,
    residual: Any,
    gamma: Any,
    beta: Any,
    eps: float,
    relu: bool,
    stream: bool,
    result: Any,
    groups: int,
    length: int,
    size: int,
    slab: int,
) -> None:
    start, last = u * slab, min((u + 1) * slab, groups)
    some = max(AT_ONCE // length, 1)
    states, kept, factors = (
        np.empty((1, STATE)),
        np.empty((KEPT, some)),
        np.empty((3, some * size)),
    )
    _forward_groups(
        x,
        y,
        residual,
        gamma,
        beta,
        eps,
        relu,
        stream,
        result,
        start,
        last,
        length,
        size,
        states,
        kept,
        factors,
    )


@Kernel
def forward(
    x: Any,
    y: Any,
    where: Any,
    residual: Any,
    gamma: Any,
    beta: Any,
    eps: float,
    relu: bool,
    stream: bool,
    result: Any,
    groups: int,
    length: int,
    size: int,
    slab: int,
) -> None:
    """x (groups, length) → y by its own statistics; result (4, groups), or (4, 0) if not asked.

    ``where`` is None: it is here as the other forwards have it.
    """
    for u in prange((groups + slab - 1) // slab):
        _forward_unit(
            u,
            x,
            y,
            residual,
            gamma,
            beta,
            eps,
            relu,
            stream,
            result,
            groups,
            length,
            size,
            slab,
        )
