"""Between memory and lanes: loads and stores.

Lanes are loaded from any array the kernels accept, and rounded once when stored.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types

from numba_bn._kernels.cpu.elements import bytes_of, element_of, narrow, widen
from numba_bn._kernels.cpu.halves import WIDTH, wide
from numba_bn._kernels.cpu.lanes import call, intrinsic, lanes, mask, singles, splat

_I32, _I64 = ir.IntType(32), ir.IntType(64)
_F32, _F64 = ir.FloatType(), ir.DoubleType()


def address_of(context: Any, builder: Any, kind: types.Array, array: Any, index: Any) -> Any:
    """Return the address of sixteen elements from array[index] on."""
    data = context.make_array(kind)(context, builder, array).data
    element = element_of(kind)[1]
    at = builder.gep(data, [index], source_etype=element)
    return builder.bitcast(at, ir.PointerType(wide(element)))


def _suffix(element: ir.Type) -> str:
    name = {_F32: "f32", _F64: "f64"}.get(element) or f"i{element.width}"
    return f"v{WIDTH}{name}.p0"


def read(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    """Load sixteen elements, or those a mask selects (0 elsewhere), as they are in memory."""
    element = element_of(sig.args[0])[1]
    at = address_of(context, builder, sig.args[0], args[0], args[1])
    if len(args) == 2:
        return builder.load(at, align=bytes_of(element))
    zeros = ir.Constant(wide(element), None)
    align = _I32(bytes_of(element))
    name = f"llvm.masked.load.{_suffix(element)}"
    return call(builder, name, wide(element), at, align, args[2], zeros)


def _load(array: Any, kind: Any) -> Any:
    """Return how to load lanes of a kind from an array, the rest of the arguments as `read`'s."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        elements = read(context, builder, sig, args)
        return widen(context, builder, element_of(array)[0], elements, kind)

    return codegen


@intrinsic
def load(typingctx: Any, array: Any, index: Any) -> Any:
    """array[index : index + 16] as float64."""
    return lanes(array, types.int64), _load(array, lanes)


@intrinsic
def load_if(typingctx: Any, array: Any, index: Any, where: Any) -> Any:
    """array[index : index + 16] as float64, 0 where the mask is not set: nothing is read there."""
    return lanes(array, types.int64, mask), _load(array, lanes)


def own_lanes(context: Any, builder: Any, kind: Any, vector: Any, index: Any) -> Any:
    """Load vector[index : index + 16] of a vector of floats as it is."""
    at = address_of(context, builder, kind, vector, index)
    return builder.load(at, align=bytes_of(element_of(kind)[1]))


@intrinsic
def load_own(typingctx: Any, vector: Any, index: Any) -> Any:
    """vector[index : index + 16] of a vector of floats, as lanes of its own kind."""
    kind = lanes if vector.dtype == types.float64 else singles
    return kind(vector, types.int64), _load(vector, kind)


@intrinsic
def load_as(typingctx: Any, array: Any, index: Any, like: Any) -> Any:
    """array[index : index + 16] as lanes of the kind of ``like``."""
    load = _load(array, like)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return load(context, builder, sig, args[:2])

    return like(array, types.int64, like), codegen


@intrinsic
def load_as_if(typingctx: Any, array: Any, index: Any, where: Any, like: Any) -> Any:
    """array[index : index + 16] as lanes of the kind of ``like``, 0 where the mask is not set."""
    load = _load(array, like)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return load(context, builder, sig, args[:3])

    return like(array, types.int64, mask, like), codegen


@intrinsic
def flags(typingctx: Any, array: Any, index: Any) -> Any:
    """array[index : index + 16] of a boolean array as a mask."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        v = read(context, builder, sig, args)
        return builder.icmp_unsigned("!=", v, ir.Constant(v.type, None))

    return mask(array, types.int64), codegen


@intrinsic
def flags_if(typingctx: Any, array: Any, index: Any, where: Any) -> Any:
    """array[index : index + 16] of a boolean array as a mask, not set where ``where`` is not."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        v = read(context, builder, sig, args)
        return builder.icmp_unsigned("!=", v, ir.Constant(v.type, None))

    return mask(array, types.int64, mask), codegen


@intrinsic
def store(typingctx: Any, array: Any, index: Any, value: Any, stream: Any) -> Any:
    """array[index : index + 16] = lanes; with ``stream`` past the caches (sixteens aligned)."""
    how, element = element_of(array)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        at = address_of(context, builder, sig.args[0], args[0], args[1])
        v = narrow(context, builder, how, element, args[2])
        hint = builder.module.add_metadata([_I32(1)])
        past = context.cast(builder, args[3], sig.args[3], types.boolean)
        with builder.if_else(cgutils.as_bool_bit(builder, past)) as (then, otherwise):
            with then:
                builder.store(v, at, align=WIDTH * bytes_of(element)).set_metadata(
                    "nontemporal", hint
                )
            with otherwise:
                builder.store(v, at, align=bytes_of(element))
        return context.get_dummy_value()

    return types.void(array, types.int64, value, types.boolean), codegen


@intrinsic
def store_if(typingctx: Any, array: Any, index: Any, value: Any, where: Any) -> Any:
    """array[index : index + 16] = lanes where the mask is set; nothing else is written."""
    how, element = element_of(array)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        at = address_of(context, builder, sig.args[0], args[0], args[1])
        v = narrow(context, builder, how, element, args[2])
        name = f"llvm.masked.store.{_suffix(element)}"
        call(builder, name, ir.VoidType(), v, at, _I32(bytes_of(element)), args[3])
        return context.get_dummy_value()

    return types.void(array, types.int64, value, mask), codegen


@intrinsic
def before_aligned(typingctx: Any, array: Any, index: Any) -> Any:
    """Return how many elements from array[index] on come before sixteen aligned ones."""
    size = bytes_of(element_of(array)[1])

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        at = address_of(context, builder, sig.args[0], args[0], args[1])
        number = builder.udiv(builder.ptrtoint(at, _I64), _I64(size))
        return builder.and_(builder.neg(number), _I64(WIDTH - 1))

    return types.int64(array, types.int64), codegen


@intrinsic
def nearest(typingctx: Any, array: Any, value: Any) -> Any:
    """Return the value, for an array of integers rounded to an integer."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        if element_of(array)[0] in ("signed", "unsigned"):
            return call(builder, "llvm.rint.f64", _F64, args[1])
        return args[1]

    return types.float64(array, types.float64), codegen


@intrinsic
def scalar(typingctx: Any, array: Any, index: Any) -> Any:
    """array[index] as a float64."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        how, element = element_of(array)
        at = address_of(context, builder, sig.args[0], args[0], args[1])
        at = builder.bitcast(at, ir.PointerType(element))
        one = splat(builder, builder.load(at, align=bytes_of(element)))
        return builder.extract_element(widen(context, builder, how, one, lanes), _I32(0))

    return types.float64(array, types.int64), codegen
