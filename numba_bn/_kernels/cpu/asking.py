"""Asking for memory before it is needed: how far ahead, and in which order.

Sums are made in the order of memory, which need not be the order in which it is asked for. Of what
comes from memory, Intel's cores read eight pages in turn in 0.75 to 0.85 of the time of one after
the other, as their own prefetcher runs ahead in each.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from llvmlite import ir
from numba.core import types

from numba_bn._kernels._compile import inlined
from numba_bn._kernels.cpu.caches import is_zen
from numba_bn._kernels.cpu.elements import bytes_of, element_of
from numba_bn._kernels.cpu.lanes import call, intrinsic
from numba_bn._kernels.cpu.memory import address_of

_I8, _I32, _I64 = (ir.IntType(n) for n in (8, 32, 64))
_NEAR = 8192  # bytes


class Way(NamedTuple):
    """How to ask while values are read: straight, or with a ``hop`` for eight pages in turn."""

    lead: int
    """How much further what is asked for is than what is read; in turn, once all eight are."""
    start: int
    """Where it begins: sixteens are counted from there."""
    last: int
    """Mask of such a number: after so many they are counted anew."""
    hop: int
    """From one of the eight to the next."""
    limit: int
    """What comes at or after it is a ``jump`` further."""
    jump: int


@intrinsic
def _zen(typingctx: Any) -> Any:
    """Tell whether the CPU compiled for is one of AMD's Zen."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return context.get_constant(types.boolean, is_zen(context))

    return types.boolean(), codegen


@inlined
def asks(far: bool) -> bool:
    """Tell whether to ask for what comes next, if it is far from the core or may be in a cache.

    AMD's are best left alone in caches, where to ask takes a fifth of the time; Intel's need it
    from the L3 on.
    """
    return bool(far | (not _zen()))


@inlined
def rows_in_order(far: bool) -> bool:
    """Tell whether rows of columns are read one after the other: those that are far, by AMD's."""
    return bool(far & _zen())


@inlined
def in_turn(x: Any, far: bool) -> bool:
    """Tell whether to ask for pages in turn: for what is far, but of AMD's.

    Not values of less than four bytes: their lines would be asked for again and again.
    """
    return bool(far & (not _zen()) & (near(x) <= _NEAR // 4))


def _touch(write: bool, doc: str) -> Any:
    """Make an intrinsic that asks for the memory at array[index]."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        if write and is_zen(context):
            return context.get_dummy_value()
        at = address_of(context, builder, sig.args[0], args[0], args[1])
        # into the L1, where AMD's statistics from memory take 0.95 of the time they do by the L2
        level = 3 if write or is_zen(context) else 2
        hints = _I32(int(write)), _I32(level), _I32(1)
        at = builder.bitcast(at, ir.PointerType(_I8))
        call(builder, "llvm.prefetch.p0", ir.VoidType(), at, *hints)
        return context.get_dummy_value()

    def typing(typingctx: Any, array: Any, index: Any) -> Any:
        return types.void(array, types.int64), codegen

    typing.__doc__ = doc
    return intrinsic(typing)


prefetch = _touch(False, "Ask for the memory at array[index], which may lie outside the array.")
claim = _touch(True, "Ask for the memory at array[index], to write it; of CPUs that need it.")


@intrinsic
def near(typingctx: Any, array: Any) -> Any:
    """Return how many values ahead to ask for memory, where nothing better is known: 8 KB of them.

    Statistics from memory run 1.3 × as fast as without; what is to be written is asked for 2 KB
    ahead: 1.25 × as fast. A constant: to divide by an array's itemsize takes as long as a line.
    """
    values = _NEAR // bytes_of(element_of(array)[1])

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _I64(values)

    return types.int64(array), codegen


@inlined
def ask(x: Any, k: int, way: Way) -> None:
    """Ask for sixteen values in such a way while x[k : k + 16] are read."""
    if way.hop == 0:
        prefetch(x, k + way.lead)
    else:
        w = (k - way.start) >> 4 & way.last  # shifts, as to divide takes longer
        t = k - (w << 4) + way.lead + (w & 7) * way.hop + (w >> 3 << 4)
        prefetch(x, t + way.jump if t >= way.limit else t)


@inlined
def straight(ahead: int) -> Way:
    """Return the way to ask for what is ``ahead``."""
    return Way(ahead, 0, 0, 0, 0, 0)


@inlined
def further(way: Way, distance: int) -> Way:
    """Return the same way, of what begins so much further."""
    lead, start, last, hop, limit, jump = way
    return Way(lead, start + distance, last, hop, limit + distance, jump)


@inlined
def takes_turns(way: Way) -> bool:
    """Tell whether it is not a straight one."""
    return way.hop > 0


@inlined
def by_pages(x: Any, far: bool, start: int, size: int, jump: int) -> Any:
    """Return the way to ask for ``size`` values from x[start] on, then those a ``jump`` further.

    Where units come from the end, that is twice their size back. In turn come eight pages, of what
    has as many.
    """
    page = near(x) // 2
    if in_turn(x, far) and size >= 8 * page:
        return Way(8 * page, start, page // 2 - 1, page, start + size, jump)
    return straight(near(x))


@inlined
def by_rows(x: Any, far: bool, start: int, size: int, stride: int, rows: int) -> Any:
    """Return the way to ask, in a row of ``size`` values from x[start] on, of some, for the next.

    In turn come eight parts of it, of a page at least; else it is asked for straight, rows of 8 KB
    ahead.
    """
    part = (size + 127) // 128 * 16
    if in_turn(x, far) and 2 * part >= near(x):
        return Way(stride, start, -1, part, start, 0)
    return straight(max(near(x) // stride, 1) * stride if rows > 1 else near(x))
