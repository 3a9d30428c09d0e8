"""Gradients of norms over rows: the backward of ``rows``; moments, sums and dx in one go."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import prange

from numba_bn._kernels._compile import block, inlined, unit
from numba_bn._kernels._launch import Kernel
from numba_bn._kernels.cpu.lanes import fill, total
from numba_bn._kernels.cpu.loops import pick_up, put_down
from numba_bn._kernels.cpu.memory import before_aligned, load, nearest, scalar, store
from numba_bn._kernels.cpu.moments import BLOCK
from numba_bn._kernels.cpu.own import clear_sums
from numba_bn._kernels.cpu.precision import (
    additive,
    arithmetic,
    centre,
    fits,
    is_single,
)
from numba_bn._kernels.cpu.room import vector_like, vectors_as
from numba_bn._kernels.cpu.row_blocks import put_lines, row_products, rows_gradient
from numba_bn._kernels.cpu.row_loops import rows_input_gradient
from numba_bn._kernels.cpu.rows import standard
from numba_bn._kernels.cpu.short_rows import LANES, ROWS, SHORT, backward_terms
from numba_bn._kernels.cpu.state import STATE, finish, is_far, take

# bytes of dy and x, of rows that share what belongs to a column: up to a thousand of those, all of
# it stays in the L1
_AT_ONCE = 1 << 14


class _Room(NamedTuple):
    """Arrays that a unit works in."""

    states: Any
    kept: Any
    lines: Any
    terms: Any
    vectors: Any
    """Terms in the arithmetic of dx."""
    wide: Any
    """The same in float64."""
    buffer: Any


@inlined
def _row_sums(
    dy: Any, x: Any, gamma: Any, at: int, n: int, j: int, states: Any, kept: Any, k: int
) -> None:
    """Row from x[at] on → kept[k]: a pivot, Σ(x-p), Σ(x-mean)², Σgamma·dy, Σgamma·dy·(x-p)."""
    g, t = 0.0, 0.0
    for i in range(STATE):
        states[0, i] = 0.0
    for e in range(0, n, BLOCK):
        size = min(BLOCK, n - e)
        p, s, q, own_g, own_t = scalar(x, at + e + size // 2), 0.0, 0.0, 0.0, 0.0
        for attempt in range(2):
            sv, qv, gv, tv = row_products(
                dy, x, gamma, at + e, size, j + e, fill(p), fill(0.0), True
            )
            s, q, own_g, own_t = total(sv), total(qv), total(gv), total(tv)
            if attempt == 1 or not is_far(float(size), s, q):
                break
            p = nearest(x, p + s / size)
        take(states, 0, float(size), p, s, q)
        g += own_g
        t += own_t + (p - states[0, 1]) * own_g
    kept[k, 0], kept[k, 1], kept[k, 2] = states[0, 1], states[0, 2], states[0, 3]
    kept[k, 3], kept[k, 4] = g, t


@inlined
def _row_terms(
    x: Any, dx: Any, n: int, eps: float, centred: bool, kept: Any, k: int, terms: Any
) -> bool:
    """Sums kept[k] of a row → terms[:, k] of its dx; tell whether the arithmetic holds them."""
    pivot, g, t = kept[k, 0], kept[k, 3], kept[k, 4]
    count, mean, low, m2 = finish(float(n), pivot, kept[k, 1], kept[k, 2])
    mean, low, r = standard(count, mean, low, m2, eps, centred)
    t -= ((mean - pivot) + low) * g
    b, c = -(r * t) * r / n, (-g / n if centred else 0.0)
    m, lost = centre(x, dx, mean, low)
    c, z = c - lost * b, -lost * r
    terms[k], terms[ROWS + k], terms[2 * ROWS + k] = m, b, c
    terms[3 * ROWS + k], terms[4 * ROWS + k] = r, z
    return bool(fits(x, dx, m, r, b, c) & fits(x, dx, z, r, b, c))


@inlined
def _as_vectors(terms: Any, first: int, vectors: Any) -> None:
    """Terms (5, 16) from the row ``first`` on → the same in the kind of ``vectors``."""
    for i in range(5):
        store(vectors, i * ROWS, load(terms, i * ROWS + first), False)


@block
def _each_terms(
    dy: Any,
    x: Any,
    dx: Any,
    gamma: Any,
    eps: float,
    centred: bool,
    at: int,
    rows: int,
    length: int,
    j: int,
    plain: int,
    room: _Room,
) -> int:
    """Those of the rows from x[at] on that are not plain → terms; bits: which fit."""
    fit = plain
    for k in range(rows):
        if plain >> k & 1 == 0:
            _row_sums(dy, x, gamma, at + k * length, length, j, room.states, room.kept, k)
    for k in range(rows):
        if plain >> k & 1 == 0:
            fit |= int(_row_terms(x, dx, length, eps, centred, room.kept, k, room.terms)) << k
    return fit


@inlined
def _write(
    dy: Any,
    x: Any,
    gamma: Any,
    dx: Any,
    sums: Any,
    at: int,
    rows: int,
    length: int,
    j: int,
    fits: bool,
    first: int,
    room: _Room,
    zero: Any,
    stream: bool,
    carry: Any,
    joined: bool,
    more: bool,
) -> Any:
    """Rows from x[at] on, by terms[:, first :] → dx, sums; a row that does not fit is one."""
    terms, vectors, wide, buffer = room.terms, room.vectors, room.wide, room.buffer
    if fits and length <= SHORT:
        _as_vectors(terms, first, vectors)
        if not stream:
            rows_gradient(dy, x, gamma, dx, sums, at, at, rows, length, j, vectors, zero, carry)
            return carry
        back = (16 - before_aligned(dx, at)) % 16
        store(buffer, 0, carry, False)
        rows_gradient(dy, x, gamma, buffer, sums, at, back, rows, length, j, vectors, zero, carry)
        return put_lines(dx, at, rows * length, buffer, joined, more)
    if fits:
        _as_vectors(terms, first, vectors)
        return rows_input_gradient(
            dy, x, gamma, dx, sums, at, rows, length, j, vectors, zero, stream, carry, joined, more
        )
    if stream and joined:
        put_down(dx, at, carry)
    _as_vectors(terms, first, wide)
    like = fill(0.0)
    rows_input_gradient(
        dy, x, gamma, dx, sums, at, 1, length, j, wide, like, False, like, False, False
    )
    return pick_up(dx, at + length, carry) if stream else carry


@block
def _gradient_rows(
    dy: Any,
    x: Any,
    dx: Any,
    gamma: Any,
    eps: float,
    centred: bool,
    stream: bool,
    sums: Any,
    start: int,
    last: int,
    some: int,
    groups: int,
    length: int,
    room: _Room,
) -> None:
    """Rows [start, last), ``some`` at a time → dx, sums."""
    carry, zero = arithmetic(x, dx), additive(dy, x)
    for first in range(start, last, some):
        stop, plain = min(first + some, last), 0
        at, j, rows = first * length, first % groups * length, stop - first
        if length <= BLOCK and groups == 1:
            lines, terms = room.lines, room.terms
            plain = backward_terms(
                dy, x, gamma, carry, zero, eps, centred, at, rows, length, lines, terms
            )
        every = (1 << rows) - 1
        fit = plain & every
        if fit != every:
            fit = _each_terms(dy, x, dx, gamma, eps, centred, at, rows, length, j, fit, room)
        # one by one if one does not fit: it shows in no bit of the others
        step = rows if fit == every else 1
        for k in range(0, rows, step):
            row = first + k
            joined, more = row > start, row + step < last
            carry = _write(
                dy,
                x,
                gamma,
                dx,
                sums,
                row * length,
                step,
                length,
                j,
                fit >> k & 1 > 0,
                k,
                room,
                zero,
                stream,
                carry,
                joined,
                more,
            )


@unit
def _backward_unit(
    chunk: int,
    dy: Any,
    x: Any,
    dx: Any,
    gamma: Any,
    eps: float,
    centred: bool,
    stream: bool,
    sums: Any,
    batch: int,
    groups: int,
    length: int,
    chunks: int,
) -> None:
    start, last = batch * chunk // chunks * groups, batch * (chunk + 1) // chunks * groups
    zero = additive(dy, x)
    some = min(max(_AT_ONCE // ((dy.itemsize + x.itemsize) * length), 2), ROWS)
    # neighbours have other columns, or begin otherwise in their lines; where it decides what is
    # summed with what, it is for the shape alone to say
    apart = length > SHORT and (stream or is_single(zero)) and length % 16 > 0
    if groups > 1 or apart:
        some = 1
    room = _Room(
        np.empty((1, STATE)),
        np.empty((some, 5)),
        vector_like(zero, 4 * LANES),
        np.empty(6 * ROWS),
        vectors_as(x, dx, 1, 5 * ROWS, 0)[0],
        np.empty(5 * ROWS),
        vectors_as(x, dx, 1, some * length + 32 if length <= SHORT else 0, 0)[0],
    )
    own = sums[chunk]
    clear_sums(own, 0, own.size // 2)
    _gradient_rows(
        dy, x, dx, gamma, eps, centred, stream, own, start, last, some, groups, length, room
    )


@Kernel
def backward(
    dy: Any,
    x: Any,
    dx: Any,
    gamma: Any,
    eps: float,
    sums: Any,
    centred: bool,
    stream: bool,
    batch: int,
    groups: int,
    length: int,
    chunks: int,
) -> None:
    """dy, x (batch · groups, length) → dx; sums (chunks, 2·groups·length)."""
    for chunk in prange(chunks):
        _backward_unit(
            chunk, dy, x, dx, gamma, eps, centred, stream, sums, batch, groups, length, chunks
        )
