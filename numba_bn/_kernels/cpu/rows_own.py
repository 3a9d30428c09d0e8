"""Layer and RMS norm, flat group norm, of whole rows in one go: the arrays are as in ``rows``."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import prange

from numba_bn._kernels._compile import block, inlined, unit
from numba_bn._kernels._launch import Kernel
from numba_bn._kernels.cpu.asking import Way, by_pages, takes_turns
from numba_bn._kernels.cpu.lanes import fill, total
from numba_bn._kernels.cpu.loops import run_sums
from numba_bn._kernels.cpu.memory import before_aligned, load, nearest, scalar, store
from numba_bn._kernels.cpu.moments import BLOCK, Slab, slab_moments
from numba_bn._kernels.cpu.precision import (
    additive,
    arithmetic,
    is_single,
)
from numba_bn._kernels.cpu.room import vector_like, vectors_as
from numba_bn._kernels.cpu.row_blocks import put_lines, rows_apply
from numba_bn._kernels.cpu.rows import AT_ONCE, apply_row, row_terms, standard
from numba_bn._kernels.cpu.short_rows import LANES, ROWS, SHORT, forward_terms
from numba_bn._kernels.cpu.state import STATE, finish, is_far, spread


class _Room(NamedTuple):
    """Arrays that a unit works in."""

    states: Any
    kept: Any
    lines: Any
    terms: Any
    factors: Any
    buffer: Any


@inlined
def _moments(x: Any, at: int, n: int, states: Any, kept: Any, k: int, way: Way) -> None:
    """Row x[at : at + n] → kept[k]: a pivot, Σ(x-p), Σ(x-mean)²."""
    if n > BLOCK:
        slab_moments(x, None, Slab(at, n, 1, n, 1), states, takes_turns(way))
        kept[k, 0], kept[k, 1], kept[k, 2] = states[0, 1], states[0, 2], states[0, 3]
        return
    p, s, q = scalar(x, at + n // 2), 0.0, 0.0
    for attempt in range(2):
        sv, qv = run_sums(x, None, at, n, way, fill(p), fill(0.0), fill(0.0))
        s, q = total(sv), total(qv)
        if attempt == 1 or not is_far(float(n), s, q):
            break
        p = nearest(x, p + s / n)
    kept[k, 0], kept[k, 1], kept[k, 2] = p, s, spread(float(n), s, q)


@block
def _each_terms(
    x: Any,
    y: Any,
    eps: float,
    centred: bool,
    result: Any,
    first: int,
    count: int,
    length: int,
    plain: int,
    room: _Room,
    way: Way,
) -> bool:
    """Those of ``count`` rows from the ``first`` on that are not plain → result, terms.

    Tell whether the arithmetic holds them.
    """
    misfits, kept, terms = 0, room.kept, room.terms
    for k in range(count):
        if plain >> k & 1 == 0:
            _moments(x, (first + k) * length, length, room.states, kept, k, way)
    for k in range(count):  # apart, as the long way to a root waits for nothing here
        if plain >> k & 1 == 0:
            n, mean, low, m2 = finish(float(length), kept[k, 0], kept[k, 1], kept[k, 2])
            if result.size > 0:
                t = first + k
                result[0, t], result[1, t], result[2, t], result[3, t] = n, mean, low, m2
            mean, low, r = standard(n, mean, low, m2, eps, centred)
            row_terms(x, y, mean, low, r, terms, k)
            misfits += 1 if terms[3 * ROWS + k] == 0.0 else 0
    return misfits == 0


@inlined
def _block_terms(
    x: Any,
    y: Any,
    eps: float,
    centred: bool,
    result: Any,
    first: int,
    count: int,
    length: int,
    room: _Room,
    way: Way,
) -> bool:
    """``count`` rows from the ``first`` on → result, terms; tell whether all fit."""
    like, zero, plain = arithmetic(x, y), additive(x, x), 0
    if length <= BLOCK and not (is_single(zero) and result.size > 0):
        # what is returned has all digits of float64, what only y is made of need not
        lines, terms = room.lines, room.terms
        plain = forward_terms(
            x, like, zero, eps, centred, result, first, count, length, lines, terms, way
        )
    every = (1 << count) - 1
    if plain & every == every:  # asked here: to pass so many arrays takes as long as a short row
        return True
    return bool(_each_terms(x, y, eps, centred, result, first, count, length, plain, room, way))


@inlined
def _write_block(
    x: Any,
    y: Any,
    gamma: Any,
    beta: Any,
    stream: bool,
    start: int,
    last: int,
    first: int,
    count: int,
    groups: int,
    length: int,
    fit: bool,
    room: _Room,
    carry: Any,
    way: Way,
) -> Any:
    """The same rows → y by their terms; what of a line is left to the next block.

    Short ones are one run: one by one, of 30 float32 values or 64 float16, they took 1.2 × as long.
    """
    terms, factors, buffer = room.terms, room.factors, room.buffer
    if not (fit and length <= SHORT):
        for k in range(count):
            t = first + k
            at, j, joined, more = t * length, t % groups * length, t > start, t + 1 < last
            carry = apply_row(
                x, y, at, length, terms, k, gamma, beta, j, way, stream, carry, joined, more
            )
        return carry
    at, j = first * length, first % groups * length
    for k in range(3):
        store(factors, k * ROWS, load(terms, k * ROWS), False)
    if not stream:
        rows_apply(x, y, at, at, count, length, factors, gamma, beta, j, carry, True)
        return carry
    back = (16 - before_aligned(y, at)) % 16
    store(buffer, 0, carry, False)
    rows_apply(x, buffer, at, back, count, length, factors, gamma, beta, j, carry, False)
    return put_lines(y, at, count * length, buffer, first > start, first + count < last)


@block
def _forward_rows(
    x: Any,
    y: Any,
    gamma: Any,
    beta: Any,
    eps: float,
    centred: bool,
    stream: bool,
    result: Any,
    start: int,
    last: int,
    groups: int,
    length: int,
    room: _Room,
) -> None:
    """Rows [start, last), as many at a time as ``room.kept`` holds → y, result."""
    carry, some = arithmetic(x, y), room.kept.shape[0]
    way = by_pages(x, stream, start * length, (last - start) * length, 0)
    for first in range(start, last, some):
        count = min(some, last - first)
        fit = _block_terms(x, y, eps, centred, result, first, count, length, room, way)
        carry = _write_block(
            x,
            y,
            gamma,
            beta,
            stream,
            start,
            last,
            first,
            count,
            groups,
            length,
            fit,
            room,
            carry,
            way,
        )


@unit
def _forward_unit(
    u: int,
    x: Any,
    y: Any,
    gamma: Any,
    beta: Any,
    eps: float,
    centred: bool,
    stream: bool,
    result: Any,
    rows: int,
    groups: int,
    length: int,
    together: int,
) -> None:
    some = min(max(AT_ONCE // length, 1), ROWS)
    room = _Room(
        np.empty((1, STATE)),
        np.empty((some, 3)),
        vector_like(additive(x, x), 2 * LANES),
        np.empty(4 * ROWS),
        vectors_as(x, y, 1, 3 * ROWS, 0)[0],
        vectors_as(x, y, 1, some * length + 32 if length <= SHORT else 0, 0)[0],
    )
    start, last = u * together, min((u + 1) * together, rows)
    _forward_rows(
        x, y, gamma, beta, eps, centred, stream, result, start, last, groups, length, room
    )


@Kernel
def forward(
    x: Any,
    y: Any,
    gamma: Any,
    beta: Any,
    eps: float,
    centred: bool,
    stream: bool,
    result: Any,
    rows: int,
    groups: int,
    length: int,
    together: int,
) -> None:
    """x (rows, length) → y, each row in one go; result (4, rows), or (4, 0) if nobody asks."""
    for u in prange((rows + together - 1) // together):
        _forward_unit(
            u, x, y, gamma, beta, eps, centred, stream, result, rows, groups, length, together
        )
