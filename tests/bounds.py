"""Bounds checks for the kernels' own loads and stores, which go by address.

Numba's NUMBA_BOUNDSCHECK sees ``array[i]`` alone. `install`, called before any kernel is imported,
lets the intrinsics that touch memory check what they touch, and raise IndexError. All launches are
serial then: the parallel twin has the same accesses, and takes as long again to compile.
"""

import functools
import sys

from llvmlite import ir
from numba import extending
from numba.core import cgutils

from numba_bn._kernels import _launch

MEMORY = "numba_bn._kernels.cpu.memory"
WIDTHS = {"load": 16, "load_own": 16, "load_as": 16, "flags": 16, "store": 16, "scalar": 1}
"""How many elements from the index on are touched."""
MASKS = {"load_if": 2, "load_as_if": 2, "flags_if": 2, "store_if": 3}
"""Which argument says what of sixteen elements is touched."""
_I1, _I16 = ir.IntType(1), ir.IntType(16)


def install():
    """Let the intrinsics of `MEMORY` that are defined from now on check themselves."""
    plain = extending.intrinsic

    def intrinsic(define):
        ours = define.__module__ == MEMORY and define.__name__ in {*WIDTHS, *MASKS}
        return plain(_checked(define) if ours else define)

    extending.intrinsic = intrinsic
    _launch._PARALLEL_BYTES = sys.maxsize


def _checked(define):
    name = define.__name__

    @functools.wraps(define)
    def typing(typingctx, array, index, *rest):
        signature, codegen = define(typingctx, array, index, *rest)

        def checked(context, builder, sig, args):
            first, past = _touched(name, builder, args)
            size = context.make_array(sig.args[0])(context, builder, args[0]).nitems
            outside = builder.or_(
                builder.icmp_signed("<", first, first.type(0)),
                builder.icmp_signed(">", past, size),
            )
            outside = builder.and_(outside, builder.icmp_signed("<", first, past))
            with cgutils.if_unlikely(builder, outside):
                message = f"{name} outside of {sig.args[0]}"
                context.call_conv.return_user_exc(builder, IndexError, (message,))
            return codegen(context, builder, sig, args)

        return signature, checked

    return typing


def _touched(name, builder, args):
    """Return the first index that is touched, and the one past the last."""
    index = args[1]
    if name in WIDTHS:
        return index, builder.add(index, index.type(WIDTHS[name]))
    lanes = builder.bitcast(args[MASKS[name]], _I16)
    before = builder.cttz(lanes, _I1(0))
    past = builder.sub(_I16(16), builder.ctlz(lanes, _I1(0)))
    first, last = (builder.zext(count, index.type) for count in (before, past))
    return builder.add(index, first), builder.add(index, last)
