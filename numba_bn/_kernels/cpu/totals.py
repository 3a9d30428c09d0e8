"""Totals of sixteen rows at once, where each by itself would take as long as to sum a short row."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types

from numba_bn._kernels.cpu.halves import WIDTH
from numba_bn._kernels.cpu.lanes import intrinsic, lanes, suited
from numba_bn._kernels.cpu.memory import own_lanes


def _halves(builder: Any, a: Any, b: Any, part: int, second: bool) -> Any:
    """Parts of a and then of b: of each part one half."""
    starts = range(part // 2 if second else 0, 2 * WIDTH, part)
    places = [start + k for start in starts for k in range(part // 2)]
    return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(ir.IntType(32), WIDTH), places))


@intrinsic
def totals(typingctx: Any, vector: Any, index: Any) -> Any:
    """Lanes stored one after another from vector[index] on, sixteen → their totals in float64.

    Halves are added first, as by `total`.
    """

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        data, at = args
        some = [
            own_lanes(context, builder, sig.args[0], data, builder.add(at, at.type(k * WIDTH)))
            for k in range(WIDTH)
        ]
        part = WIDTH
        while part > 1:
            some = [
                builder.fadd(
                    _halves(builder, a, b, part, False), _halves(builder, a, b, part, True)
                )
                for a, b in zip(some[::2], some[1::2], strict=True)
            ]
            part //= 2
        return suited(builder, some[0], lanes)

    return lanes(vector, types.int64), codegen
