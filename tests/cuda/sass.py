"""PTX → machine code, and what can be read off it without a device. No tests."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import pytest


def tool(name: str) -> str:
    """Return the path of one of the toolkit's programs; from its wheels, else what the PATH has."""
    nvidia = pytest.importorskip("nvidia", reason="needs the CUDA toolkit's wheels")
    for folder in nvidia.__path__:
        for path in Path(folder).glob(f"cu*/bin/{name}"):
            return str(path)
    found = shutil.which(name)
    if found is None:
        required = "nvidia" in os.environ.get("NUMBA_BN_REQUIRE", "").split(",")
        give_up = pytest.fail if required else pytest.skip
        give_up(f"needs {name}: cuda-toolkit[nvcc], nvidia-cuda-nvdisasm")
    return found


class Loop(NamedTuple):
    """An innermost loop that loads from global memory."""

    wide: int
    """Bytes it loads so many at a time as count."""
    in_flight: int
    """Of these, bytes asked for before any of them is used."""


class Machine(NamedTuple):
    """The machine code of a kernel."""

    registers: int
    stack: int
    spilled: int
    accesses: list[str]
    """Loads and stores of global memory."""
    loops: list[Loop]


def assembled(
    modules: Iterable[str], architecture: str, folder: Path, least: int = 16
) -> dict[str, Machine]:
    """Assemble PTX for an architecture ("sm_90") and take it apart, all at once; by entry.

    Loads of ``least`` bytes count as wide. The disassembler needs longer to start than for one
    kernel.
    """
    source, cubin = folder / "kernels.ptx", folder / "kernels.cubin"
    source.write_text(_joined(modules, architecture))
    log = _run(tool("ptxas"), f"-arch={architecture}", "-v", str(source), "-o", str(cubin))[1]
    text = _run(tool("nvdisasm"), "-c", str(cubin))[0]
    notes = _parts(r"Compiling entry function '([\w$]+)'", log)
    bodies = _parts(r"^\.text\.([\w$]+):$", text)
    assert notes.keys() == bodies.keys()
    return {entry: _machine(notes[entry], bodies[entry], least) for entry in notes}


def _joined(modules: Iterable[str], architecture: str) -> str:
    """Several modules → one, for one architecture."""
    header = r"^\.(version|target|address_size) .*$"
    first, *_ = modules = list(modules)
    version = re.search(r"^\.version .*$", first, re.M)
    assert version, first[:200]
    bodies = [re.sub(header, "", module, flags=re.M) for module in modules]
    return "\n".join([version.group(0), f".target {architecture}", ".address_size 64", *bodies])


def _parts(heading: str, text: str) -> dict[str, str]:
    """Text under headings → what follows each, by name."""
    _, *parts = re.split(heading, text, flags=re.M)
    return dict(zip(parts[::2], parts[1::2], strict=True))


def _machine(note: str, body: str, least: int) -> Machine:
    """What the assembler says of a kernel, and its instructions."""
    lines, labels = _instructions(body)
    return Machine(
        registers=_number(r"Used (\d+) registers", note),
        stack=_number(r"(\d+) bytes stack frame", note),
        spilled=_number(r"(\d+) bytes spill stores", note),
        accesses=[line for line in lines if re.search(r"\b(LDG|STG|LDL|STL)\b", line)],
        loops=_loops(lines, labels, least),
    )


def _run(*command: str) -> tuple[str, str]:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


def _number(pattern: str, text: str) -> int:
    found = re.findall(pattern, text)
    assert found, f"{pattern!r} is not in {text!r}"
    return max(map(int, found))


def _instructions(text: str) -> tuple[list[str], dict[str, int]]:
    """Instructions in order, and where labels are."""
    lines: list[str] = []
    labels: dict[str, int] = {}
    for line in text.splitlines():
        if label := re.match(r"\s*(\.L_\w+):", line):
            labels[label.group(1)] = len(lines)
        elif found := re.search(r"/\*[0-9a-f]{4,}\*/\s+(.*?);", line):
            lines.append(found.group(1).strip())
    return lines, labels


def access_bytes(line: str) -> int:
    """Return the bytes of a load or store, for each thread."""
    if width := re.search(r"\.(128|64)\b", line):
        return int(width.group(1)) // 8
    narrow = re.search(r"\.(U8|S8|U16|S16)\b", line)
    return int(narrow.group(1)[1:]) // 8 if narrow else 4


def _loops(lines: list[str], labels: dict[str, int], least: int) -> list[Loop]:
    """Innermost loops: from a label to the branch back to it, with no other inside."""
    spans = []
    for end, line in enumerate(lines):
        branch = re.search(r"\bBRA\b.*`\((\.L_\w+)\)", line)
        if branch and labels.get(branch.group(1), end + 1) <= end:
            spans.append((labels[branch.group(1)], end))
    inner = [a for a in spans if not any(b != a and a[0] <= b[0] and b[1] <= a[1] for b in spans)]
    bodies = [lines[start : end + 1] for start, end in inner]
    return [_loop(body, least) for body in bodies if any(" LDG" in f" {line}" for line in body)]


def _loop(body: list[str], least: int) -> Loop:
    loads = [line for line in body if re.search(r"\bLDG\b", line)]
    wide = sum(n for n in map(access_bytes, loads) if n >= least)
    return Loop(wide, _in_flight(body, least))


def _in_flight(body: list[str], least: int) -> int:
    """Bytes of wide loads before an instruction reads any register they come in."""
    waiting: set[int] = set()
    flight = 0
    for line in body:
        operands = re.sub(r"^@!?U?P\w+\s+", "", line).partition(" ")[2]
        if re.search(r"\bLDG\b", line) and access_bytes(line) < least:
            continue  # of a mask
        if re.search(r"\bLDG\b", line):
            target = re.search(r"\bR(\d+)\b", operands)
            assert target is not None
            size = access_bytes(line)
            waiting |= {int(target.group(1)) + k for k in range(max(size // 4, 1))}
            flight += size
            continue
        sources = operands if re.search(r"\bST[GLS]?\b", line) else operands.partition(",")[2]
        if waiting & set(map(int, re.findall(r"\bR(\d+)\b", sources))):
            break
    return flight
