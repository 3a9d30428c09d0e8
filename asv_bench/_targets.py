"""The promises: how long each operation may take, in units of what memory allows."""

from __future__ import annotations

from benchmarks.cases import SMALL, Case

from numba_bn._kernels.cpu.caches import held_bytes, l2_bytes

BEYOND = 128e6
"""Bytes from which an array is taken to be beyond the caches; smaller ones are inside."""

TARGETS = {
    "inference": (0.75, 1.2),
    "train, channels fit": (0.9, 2.0),
    "train": (1.2, 2.2),
    "backward, channels fit": (0.9, 2.0),
    "backward": (1.35, 2.4),
    "statistics": (0.45, 1.0),
    "norm": (0.85, 1.6),
    "norm backward": (0.9, 1.8),
}
"""Beyond the caches, inside them: × pass, or × triad for a backward."""


def where(case: Case) -> str:
    """Return "beyond" or "inside" the caches."""
    return "beyond" if case.nbytes >= BEYOND else "inside"


def kind(operation: str, case: Case) -> str:
    """Return the line of the table that an operation on a case falls under."""
    if operation in ("inference", "statistics"):
        return operation
    if operation in ("train", "backward"):
        read = case.channel_bytes * (2 if operation == "backward" else 1)
        fit = case.layout == "first" and len(case.shape) > 2 and read <= l2_bytes()
        return f"{operation}, channels fit" if fit else operation
    return "norm backward" if operation.endswith("backward") else "norm"


def together(operation: str, case: Case) -> int:
    """Return the bytes that a norm reads before it can write one value of them."""
    norm, _, backward = operation.partition(" ")
    apart = case.shape[0]
    if case.layout == "first":  # else the groups of a sample lie in between each other
        apart *= {"instance": case.channels, "group": case.groups}.get(norm, 1)
    return case.nbytes // apart * (2 if backward else 1)


def target(operation: str, case: Case) -> float | None:
    """Return the highest ratio promised, None where there is none.

    There is none for arrays whose calls take microseconds, nor for groups that no cache holds.
    """
    norm = kind(operation, case) in ("norm", "norm backward")
    held = not norm or where(case) == "inside" or together(operation, case) <= held_bytes()
    if case in SMALL or not held:
        return None
    return TARGETS[kind(operation, case)][where(case) == "inside"]


def extra_limit(case: Case, threads: int) -> float:
    """Return the bytes a call may take beyond its input and output."""
    return 1e6 + 8 * case.channels * threads
