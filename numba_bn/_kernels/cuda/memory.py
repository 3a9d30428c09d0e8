"""Memory as kernels see it, addresses being integers: the one file of this folder that speaks LLVM.

Values of every dtype come and go as those of a work dtype, "float32" or "float64", several at a
time and 16 bytes at once where that many are asked for. bfloat16 and the short integers travel in
words of 32 bits.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from llvmlite import ir

from numba_bn._kernels.cuda.target import compiling_for, extending, types

_I16, _I32, _I64 = (ir.IntType(n) for n in (16, 32, 64))
_F16, _F32, _F64 = ir.HalfType(), ir.FloatType(), ir.DoubleType()
_REAL = {"float16": _F16, "float32": _F32, "float64": _F64}
_BITS = {"bool": 8, "bfloat16": 16}

_ROUNDS_BFLOAT16 = (8, 0)  # compute capability from which devices have an instruction for it


def bits(dtype: str) -> int:
    """Return the size of a dtype."""
    return _BITS.get(dtype) or int(dtype.lstrip("abcdefghijklmnopqrstuvwxyz"))


def _element(dtype: str) -> ir.Type:
    return _REAL.get(dtype) or ir.IntType(bits(dtype))


def _address(builder: Any, address: Any, index: Any, dtype: str) -> Any:
    """Integer address of the index-th value."""
    return builder.add(address, builder.mul(index, _I64(bits(dtype) // 8)))


def _global(builder: Any, address: Any, kind: ir.Type) -> Any:
    """Integer address → pointer into global memory."""
    return builder.inttoptr(address, ir.PointerType(kind, addrspace=1))


def _words(count: int, dtype: str) -> list[tuple[int, ir.Type, int]]:
    """How ``count`` values travel: byte offset, LLVM type and number of values of each access."""
    size = bits(dtype) // 8
    each = min(16, count * size)
    number = each // size
    if number == 1:
        kind = _element(dtype)
    elif each < 4:
        kind = ir.IntType(8 * each)
    else:
        kind = _element(dtype) if size >= 4 else _I32
        items = number if size >= 4 else each // 4
        kind = ir.VectorType(kind, items) if items > 1 else kind
    return [(k * each, kind, number) for k in range(count * size // each)]


def _split(builder: Any, loaded: Any, number: int, dtype: str) -> list[Any]:
    """What one access loaded → its values, as they are in memory."""
    if number == 1:
        return [loaded]
    size = bits(dtype)
    if size >= 32:
        return [builder.extract_element(loaded, _I32(k)) for k in range(number)]
    per = min(32 // size, number)
    values = []
    for k in range(number):
        word = loaded
        if isinstance(loaded.type, ir.VectorType):
            word = builder.extract_element(loaded, _I32(k // per))
        shift = ir.Constant(word.type, size * (k % per))
        values.append(builder.trunc(builder.lshr(word, shift), ir.IntType(size)))
    return [builder.bitcast(v, _F16) if dtype == "float16" else v for v in values]


def _joined(builder: Any, values: list[Any], kind: ir.Type, dtype: str) -> Any:
    """Values as they are in memory → what one access stores."""
    if len(values) == 1:
        return values[0]
    if bits(dtype) < 32:
        pairs = zip(values[::2], values[1::2], strict=True)
        values = [_pair(builder, low, high) for low, high in pairs]
    result = ir.Constant(kind, ir.Undefined)
    for k, value in enumerate(values):
        result = builder.insert_element(result, value, _I32(k))
    return result


def _pair(builder: Any, low: Any, high: Any) -> Any:
    """Two halves → a word."""
    low, high = (builder.zext(builder.bitcast(v, _I16), _I32) for v in (low, high))
    return builder.or_(low, builder.shl(high, _I32(16)))


def _widened(builder: Any, value: Any, dtype: str, work: ir.Type) -> Any:
    """A value as it is in memory → the work dtype."""
    if dtype == "bfloat16":
        value = builder.bitcast(builder.shl(builder.zext(value, _I32), _I32(16)), _F32)
    elif dtype not in _REAL:
        convert = builder.sitofp if dtype.startswith("int") else builder.uitofp
        return convert(value, work, dtype)
    return value if value.type == work else _resized(builder, value, work)


def _resized(builder: Any, value: Any, kind: ir.Type) -> Any:
    sizes = [_F16, _F32, _F64]
    wider = sizes.index(kind) > sizes.index(value.type)
    return (builder.fpext if wider else builder.fptrunc)(value, kind)


def _narrowed(builder: Any, value: Any, dtype: str) -> Any:
    """A value of the work dtype → as it is in memory."""
    if dtype == "bfloat16":
        return _bfloat16(builder, value)
    kind = _element(dtype)
    return value if value.type == kind else _resized(builder, value, kind)


def _bfloat16(builder: Any, value: Any) -> Any:
    """float32 → the bits of bfloat16, to the nearest, ties to even."""
    if compiling_for.get() >= _ROUNDS_BFLOAT16:
        kind = ir.FunctionType(_I16, [_F32])
        return builder.call(ir.InlineAsm(kind, "cvt.rn.bf16.f32 $0, $1;", "=h,f"), [value])
    word = builder.bitcast(value, _I32)
    odd = builder.and_(builder.lshr(word, _I32(16)), _I32(1))
    rounded = builder.lshr(builder.add(builder.add(word, _I32(0x7FFF)), odd), _I32(16))
    nan = builder.fcmp_unordered("uno", value, value)
    return builder.trunc(builder.select(nan, _I32(0x7FC0), rounded), _I16)


def _place(context: Any, builder: Any, sig: Any, args: Any, at: int) -> Any:
    """Buffer (a local array) in args[at], index in args[at + 1] → function: k → pointer."""
    base = context.make_array(sig.args[at])(context, builder, value=args[at]).data
    first = context.cast(builder, args[at + 1], sig.args[at + 1], types.int64)
    return lambda k: builder.gep(base, [builder.add(first, _I64(k))])


@cache
def loader(dtype: str, count: int) -> Any:
    """Return ``load(address, index, buffer, at)``: ``count`` values into a local array."""

    @extending.intrinsic
    def load(typingctx: Any, address: Any, index: Any, buffer: Any, at: Any) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            start = _address(builder, args[0], args[1], dtype)
            work = _REAL[str(buffer.dtype)]
            place = _place(context, builder, sig, args, 2)
            k = 0
            for offset, kind, number in _words(count, dtype):
                loaded = builder.load(_global(builder, builder.add(start, _I64(offset)), kind))
                loaded.align = min(16, count * bits(dtype) // 8)
                for value in _split(builder, loaded, number, dtype):
                    builder.store(_widened(builder, value, dtype, work), place(k))
                    k += 1
            return context.get_dummy_value()

        return types.void(types.int64, types.int64, buffer, at), codegen

    return load


@cache
def storer(dtype: str, count: int, streams: bool = False) -> Any:
    """Return ``store(address, index, buffer, at)``; ``streams``: first to leave the cache."""

    @extending.intrinsic
    def store(typingctx: Any, address: Any, index: Any, buffer: Any, at: Any) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            start = _address(builder, args[0], args[1], dtype)
            place = _place(context, builder, sig, args, 2)
            k = 0
            for offset, kind, number in _words(count, dtype):
                values = [builder.load(place(k + i)) for i in range(number)]
                values = [_narrowed(builder, v, dtype) for v in values]
                word = _joined(builder, values, kind, dtype)
                size = number * bits(dtype) // 8
                _write(builder, builder.add(start, _I64(offset)), word, size, streams)
                k += number
            return context.get_dummy_value()

        return types.void(types.int64, types.int64, buffer, at), codegen

    return store


def _write(builder: Any, address: Any, word: Any, size: int, streams: bool) -> None:
    """Store what one access stores; 16 bytes as evict-first, if asked to."""
    if not (streams and size == 16):
        builder.store(word, _global(builder, address, word.type)).align = size
        return
    words = builder.bitcast(word, ir.VectorType(_I32, 4))
    parts = [builder.extract_element(words, _I32(k)) for k in range(4)]
    text = "st.global.cs.v4.b32 [$0], {$1, $2, $3, $4};"
    _asm(builder, ir.VoidType(), text, "l,r,r,r,r", [address, *parts])


def _asm(builder: Any, result: ir.Type, text: str, operands: str, args: list[Any]) -> Any:
    """Call a line of PTX that touches memory."""
    kind = ir.FunctionType(result, [a.type for a in args])
    asm = ir.InlineAsm(kind, text, f"{operands},~{{memory}}", side_effect=True)
    return builder.call(asm, args)


@cache
def getter(dtype: str) -> Any:
    """Return ``get(address, index)``: one value; of a float64 as that, of others as float32."""
    kind = "float64" if dtype == "float64" else "float32"

    @extending.intrinsic
    def get(typingctx: Any, address: Any, index: Any) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            start = _address(builder, args[0], args[1], dtype)
            loaded = builder.load(_global(builder, start, _element(dtype)))
            loaded.align = bits(dtype) // 8
            return _widened(builder, loaded, dtype, _REAL[kind])

        return getattr(types, kind)(types.int64, types.int64), codegen

    return get


@cache
def putter(dtype: str) -> Any:
    """Return ``put(address, index, value)`` for one float64."""

    @extending.intrinsic
    def put(typingctx: Any, address: Any, index: Any, value: Any) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            start = _address(builder, args[0], args[1], dtype)
            kind = _element(dtype)
            value = args[2] if kind == _F64 else builder.fptrunc(args[2], kind)
            builder.store(value, _global(builder, start, kind)).align = bits(dtype) // 8
            return context.get_dummy_value()

        return types.void(types.int64, types.int64, types.float64), codegen

    return put


@extending.intrinsic
def count_up(typingctx: Any, address: Any, index: Any) -> Any:
    """Add one to a counter of 32 bits; what it was. All written before is seen by the last."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        start = _address(builder, args[0], args[1], "int32")
        text = "atom.acq_rel.gpu.global.add.u32 $0, [$1], 1;"
        return builder.sext(_asm(builder, _I32, text, "=r,l", [start]), _I64)

    return types.int64(types.int64, types.int64), codegen


@extending.intrinsic
def reset(typingctx: Any, address: Any, index: Any) -> Any:
    """Set a counter to zero."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        start = _address(builder, args[0], args[1], "int32")
        builder.store(_I32(0), _global(builder, start, _I32)).align = 4
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), codegen
