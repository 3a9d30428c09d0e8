"""PTX text → instructions. No tests."""

import re
from typing import NamedTuple

_SHARED_BYTES = 48 << 10  # that a block has on any device, unless it is launched to have more


class PtxError(Exception):
    """What a device would not forgive, or what the interpreter does not know."""


class Instruction(NamedTuple):
    """``@!%p add.s64 a, b, c``: predicate, whether negated, name in parts, operands."""

    predicate: str | None
    negated: bool
    name: tuple[str, ...]
    operands: tuple[str, ...]


class Program(NamedTuple):
    """The one entry of a PTX module."""

    instructions: list[Instruction]
    labels: dict[str, int]
    parameters: list[tuple[str, str]]
    """Type and name of each."""
    shared: dict[str, int]
    """Where each shared array begins."""
    shared_bytes: int


def parse(ptx: str) -> Program:
    """Return the program of a module with one entry."""
    ptx = re.sub(r"//.*", "", ptx)
    shared, shared_bytes = _shared(ptx)
    entry = re.search(r"\.entry\s+[\w$]+\s*\((.*?)\)\s*(?:\.\w+\s+[\d,\s]+)*\{(.*)\}", ptx, re.S)
    if entry is None:
        raise PtxError("no entry")
    parameters = re.findall(r"\.param\s+(?:\.align \d+\s+)?\.(\w+)\s+([\w$]+)", entry.group(1))
    body = entry.group(2)
    if local := re.search(r"\.local\s+\.align\s+\d+\s+\.b8\s+[\w$]+\[\d+\]", body):
        raise PtxError(f"local memory: {local.group(0)}")
    body = re.sub(r"\.reg\s+\.\w+\s+[^;]+;", "", body)
    body = re.sub(r"\.(loc|pragma|file)[^;\n]*;?", "", body)
    instructions: list[Instruction] = []
    labels: dict[str, int] = {}
    for statement in body.split(";"):
        text = statement.strip()
        while label := re.match(r"([$\w]+):\s*", text):
            labels[label.group(1)] = len(instructions)
            text = text[label.end() :].strip()
        if text:
            instructions.append(_instruction(text))
    return Program(instructions, labels, parameters, shared, shared_bytes)


def _shared(ptx: str) -> tuple[dict[str, int], int]:
    """Lay out the shared arrays."""
    places, end = {}, 0
    found = re.findall(r"\.shared\s+\.align\s+(\d+)\s+\.b8\s+([\w$]+)\[(\d+)\]", ptx)
    for align, name, size in found:
        end = -(-end // int(align)) * int(align)
        places[name] = end
        end += int(size)
    if end > _SHARED_BYTES:
        raise PtxError(f"{end} bytes of shared memory")
    return places, end


def _instruction(text: str) -> Instruction:
    predicate = re.match(r"@(!?)(%\w+)\s+(.*)", text, re.S)
    if predicate:
        text = predicate.group(3)
    name, _, rest = text.partition(" " if " " in text.split("\t")[0] else "\t")
    operands = re.findall(r"\{[^}]*\}|\[[^\]]*\]|[^,\s]+", rest)
    return Instruction(
        predicate.group(2) if predicate else None,
        bool(predicate and predicate.group(1)),
        tuple(name.split(".")),
        tuple(operands),
    )
