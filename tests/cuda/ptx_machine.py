"""A PTX interpreter: the whole grid at once, vectorized over its threads. No tests.

Of the threads, those that are furthest behind run; a shuffle waits for its warp, a barrier for its
block. It notices misaligned and out-of-bounds accesses, reads of what nothing wrote, races in
shared memory, shuffles and barriers that not all reach. It knows nothing of time, nor of the order
in which other blocks see global memory.
"""

from typing import Any, NamedTuple

import numpy as np
import ptx_values as values
from ptx_memory import GlobalMemory, SharedMemory
from ptx_program import Instruction, Program, PtxError
from ptx_values import NUMPY, RAW, size_of

Array = np.ndarray
_WARP = 32
_QUIET = frozenset({"membar", "fence"})
_TERNARY = frozenset({"fma", "mad"})
_UNARY = frozenset({"neg", "abs", "not", "sqrt", "rcp", "rsqrt"})


class Launch(NamedTuple):
    """Grid, block, arguments, and the seed of the order of atomics."""

    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    arguments: tuple[Any, ...]
    seed: int = 0


def run(program: Program, memory: GlobalMemory, launch: Launch, most: int = 400_000) -> None:
    """Run a kernel to its end, or to its first fault."""
    machine = _Machine(program, memory, launch)
    with np.errstate(all="ignore"):
        for _ in range(most):
            if not machine.step():
                return
    raise PtxError(f"not done after {most} instructions")


class _Machine:
    def __init__(self, program: Program, memory: GlobalMemory, launch: Launch) -> None:
        self.program, self.memory = program, memory
        size = int(np.prod(launch.block))
        self.per_block = -(-size // _WARP) * _WARP
        blocks = int(np.prod(launch.grid))
        thread = np.tile(np.arange(self.per_block), blocks)
        block = np.repeat(np.arange(blocks), self.per_block)
        self.count = len(thread)
        self.special = _special(thread, block, launch)
        self.parameters = {
            name: np.array(value).astype(NUMPY[kind]).view(RAW[size_of(kind)])
            for (kind, name), value in zip(program.parameters, launch.arguments, strict=True)
        }
        self.shared = SharedMemory(program.shared_bytes, block)
        self.registers: dict[str, Array] = {}
        self.at = np.zeros(self.count, np.int64)
        self.alive = thread < size
        self.met = np.zeros(self.count, bool)  # stands at a barrier
        self.held = np.zeros(self.count, bool)  # waits for its warp
        self.random = np.random.default_rng(launch.seed)

    def step(self) -> bool:
        """Run one instruction for the threads furthest behind; false if none is left."""
        ready = self.alive & ~self.met
        free = ready & ~self.held
        if not free.any():
            if not self.alive.any():
                return False
            self._open_barriers()
            return True
        here = self.at[free].min()
        if here >= len(self.program.instructions):
            self.alive[free & (self.at == here)] = False
            return True
        mask = ready & (self.at == here)
        instruction = self.program.instructions[here]
        if instruction.name[0] == "shfl":
            mask = self._whole_warps(mask)
            if not mask.any():
                return True
        active = mask
        if instruction.predicate:
            active = mask & (self.registers[instruction.predicate] ^ instruction.negated)
        self._execute(instruction, mask, np.flatnonzero(active))
        return True

    def _whole_warps(self, mask: Array) -> Array:
        """Hold those whose warp is not complete; return the others."""
        warps = mask.reshape(-1, _WARP) == self.alive.reshape(-1, _WARP)
        complete = mask & np.repeat(warps.all(1), _WARP)
        self.held[mask] = True
        self.held[complete] = False
        return complete

    def _open_barriers(self) -> None:
        """Let the blocks go on all of whose threads have met."""
        met = (self.met | ~self.alive).reshape(-1, self.per_block)
        alive = self.alive.reshape(-1, self.per_block)
        full = met.all(1) & alive.any(1)
        if not full.any():
            raise PtxError("deadlock: a shuffle or a barrier that not all threads reach")
        places = np.where(self.met, self.at, -1).reshape(-1, self.per_block)[full]
        if any(len(np.unique(row[row >= 0])) > 1 for row in places):
            raise PtxError("threads of a block at different barriers")
        go = np.repeat(full, self.per_block) & self.met
        self.met[go] = False
        self.at[go] += 1
        self.shared.barrier(np.flatnonzero(full))

    def _execute(self, instruction: Instruction, mask: Array, who: Array) -> None:
        op, operands = instruction.name[0], instruction.operands
        if op == "bra":
            self.at[mask] += 1
            self.at[who] = self.program.labels[operands[0]]
            return
        if op in ("bar", "barrier"):
            self.met[who] = True
            return
        self.at[mask] += 1
        if op in ("ret", "exit"):
            self.alive[who] = False
        elif len(who) and op not in _QUIET:
            handler = _HANDLERS.get(op, _Machine._compute)
            handler(self, instruction.name, operands, who)

    # operands

    def read(self, operand: str, kind: str, who: Array) -> Array:
        """Return an operand's values as a type."""
        width = size_of(kind)
        if operand in self.special:
            found = self.special[operand][who]
        elif operand[0] == "%":
            register = self.registers.get(operand)
            # what was never set may be handed on, as poison, where nobody looks at it
            found = (
                np.full(len(who), (1 << 8 * width) - 1, RAW[width])
                if register is None
                else register[who]
            )
        else:
            found = np.full(len(who), self._constant(operand, width), RAW[width])
        return found.astype(RAW[width], copy=False).view(NUMPY[kind])

    def _constant(self, operand: str, width: int) -> int:
        if operand[:2].lower() in ("0f", "0d"):
            return int(operand[2:], 16)
        if operand in self.program.shared:
            return self.program.shared[operand]
        return int(operand, 0) & ((1 << 8 * width) - 1)

    def write(self, operand: str, value: Array, who: Array) -> None:
        """Set a register of some threads."""
        raw = value if value.dtype == bool else value.view(RAW[value.dtype.itemsize])
        register = self.registers.get(operand)
        if register is None or register.dtype != raw.dtype:
            register = self.registers[operand] = np.zeros(self.count, raw.dtype)
        register[who] = raw

    def predicate(self, operand: str, who: Array) -> Array:
        if operand.lstrip("-").isdigit():
            return np.full(len(who), int(operand) != 0)
        found = self.registers[operand.lstrip("!")][who]
        return ~found if operand.startswith("!") else found

    def address(self, operand: str, who: Array) -> Array:
        base, _, offset = operand[1:-1].replace(" ", "").partition("+")
        return self.read(base, "u64", who).astype(np.int64) + int(offset or 0)

    # instructions

    def _load(self, name: tuple[str, ...], operands: tuple[str, ...], who: Array) -> None:
        width = size_of(name[-1])
        if "param" in name:
            value = self.parameters[operands[1][1:-1]]
            self.write(operands[0], np.full(len(who), value), who)
            return
        registers = operands[0].strip("{}").replace(" ", "").split(",")
        address = self.address(operands[1], who)
        if "shared" in name:
            loaded = self.shared.load(address, who, width, len(registers))
        else:
            loaded = self.memory.load(address, width, len(registers))
        for register, value in zip(registers, loaded, strict=True):
            self.write(register, value, who)

    def _store(self, name: tuple[str, ...], operands: tuple[str, ...], who: Array) -> None:
        kind = name[-1]
        registers = operands[1].strip("{}").replace(" ", "").split(",")
        raw = [self.read(r, kind, who).view(RAW[size_of(kind)]) for r in registers]
        address = self.address(operands[0], who)
        if "shared" in name:
            self.shared.store(address, who, size_of(kind), raw)
        else:
            self.memory.store(address, size_of(kind), raw)

    def _atomic(self, name: tuple[str, ...], operands: tuple[str, ...], who: Array) -> None:
        if "add" not in name or "shared" in name:
            raise PtxError(f"unknown instruction {'.'.join(name)}")
        value = self.read(operands[2], name[-1], who).copy()
        order = self.random.permutation(len(who))
        self.write(operands[0], self.memory.add(self.address(operands[1], who), value, order), who)

    def _shuffle(self, name: tuple[str, ...], operands: tuple[str, ...], who: Array) -> None:
        if name[2] != "down":
            raise PtxError(f"unknown instruction {'.'.join(name)}")
        given = np.zeros(self.count, np.uint32)
        given[who] = self.read(operands[1], "u32", who)
        lane = who % _WARP
        source = lane + self.read(operands[2], "u32", who)
        source = np.where(source < _WARP, who - lane + source, who)
        self.write(operands[0].split("|")[0], given[source], who)
        if "|" in operands[0]:
            self.write(operands[0].split("|")[1], source != who, who)

    def _move(self, name: tuple[str, ...], operands: tuple[str, ...], who: Array) -> None:
        to, source = operands
        kind = name[-1]
        if kind == "pred":
            self.write(to, self.predicate(source, who), who)
        elif to[0] == "{":
            registers = to.strip("{}").replace(" ", "").split(",")
            whole, width = self.read(source, kind, who), size_of(kind) // len(registers)
            raw = whole.view(RAW[whole.dtype.itemsize])
            for k, register in enumerate(registers):
                self.write(register, (raw >> raw.dtype.type(8 * width * k)).astype(RAW[width]), who)
        elif source[0] == "{":
            registers = source.strip("{}").replace(" ", "").split(",")
            width = size_of(kind) // len(registers)
            word = np.zeros(len(who), RAW[size_of(kind)])
            for k, register in enumerate(registers):
                part = self.read(register, f"b{8 * width}", who).astype(word.dtype)
                word |= part << word.dtype.type(8 * width * k)
            self.write(to, word, who)
        else:
            self.write(to, self.read(source, kind, who).copy(), who)

    def _select(self, name: tuple[str, ...], operands: tuple[str, ...], who: Array) -> None:
        a, b = (self.read(o, name[-1], who) for o in operands[1:3])
        self.write(operands[0], np.where(self.predicate(operands[3], who), a, b), who)

    def _compute(self, name: tuple[str, ...], operands: tuple[str, ...], who: Array) -> None:
        op, kind = name[0], name[-1]
        if kind == "pred":
            self._logic(op, operands, who)
            return
        sources = [self.read(o, kind, who) for o in operands[1:2]]
        if op in ("cvt", "cvta", "cvta.to"):
            result = values.converted(name, sources[0]) if op == "cvt" else sources[0].copy()
        elif op in ("shl", "shr"):
            result = values.shifted(op, sources[0], self.read(operands[2], "u32", who))
        elif op in _UNARY:
            result = values.unary(op, sources[0])
        elif op == "bfi":
            rest = [self.read(operands[2], kind, who)]
            rest += [self.read(o, "u32", who) for o in operands[3:]]
            result = values.inserted(sources[0], *rest)
        else:
            self._arithmetic(name, operands, who)
            return
        if op != "cvt":
            result = result.astype(NUMPY[kind], copy=False)
        self.write(operands[0], result, who)

    def _arithmetic(self, name: tuple[str, ...], operands: tuple[str, ...], who: Array) -> None:
        kind, wide = name[-1], values.widened(name)
        a, b = (self.read(o, kind, who) for o in operands[1:3])
        if name[0] == "setp":
            if len(operands) != 3:
                raise PtxError(f"unknown instruction {'.'.join(name)}")
            self.write(operands[0], values.compare(name, a, b), who)
            return
        if wide:
            a, b, kind = a.astype(NUMPY[wide]), b.astype(NUMPY[wide]), wide
        if name[0] in _TERNARY:
            result = values.ternary(name, a, b, self.read(operands[3], kind, who))
        else:
            result = values.binary(name, a, b)
        self.write(operands[0], np.asarray(result).astype(NUMPY[kind]), who)

    def _logic(self, op: str, operands: tuple[str, ...], who: Array) -> None:
        a = self.predicate(operands[1], who)
        if op == "not":
            result = ~a
        else:
            result = values.BINARY[op](a, self.predicate(operands[2], who))
        self.write(operands[0], result, who)


_HANDLERS = {
    "ld": _Machine._load,
    "st": _Machine._store,
    "atom": _Machine._atomic,
    "shfl": _Machine._shuffle,
    "mov": _Machine._move,
    "selp": _Machine._select,
}


def _special(thread: Array, block: Array, launch: Launch) -> dict[str, Array]:
    """The registers that say who a thread is."""
    found = {}
    for name, index, sizes in (("tid", thread, launch.block), ("ctaid", block, launch.grid)):
        for axis, size in zip("xyz", sizes, strict=True):
            found[f"%{name}.{axis}"] = (index % size).astype(np.uint32)
            found[f"%n{name}.{axis}"] = np.full(len(thread), size, np.uint32)
            index = index // size
    return found
