"""A stand-in for the driver: it notes what it is asked, and may run it by the interpreter.

No tests.
"""

from ctypes import c_double, c_int64
from typing import Any, NamedTuple

import numpy as np
from ptx_machine import Launch, run
from ptx_memory import GlobalMemory

from numba_bn._kernels.cuda.driver import Driver, Traits
from numba_bn._kernels.cuda.kernel import Device, Step

TRAITS = Traits(Device(multiprocessors=4, threads=2048, l2_bytes=1 << 20), (9, 0))


class Launched(NamedTuple):
    """A launch, as the driver is asked for it."""

    stream: int
    label: str
    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    arguments: tuple[int | float, ...]


class StandIn:
    """What `driver.Driver` is, without a device."""

    def __init__(self, memory: GlobalMemory, runs: bool) -> None:
        self.memory, self.runs = memory, runs
        self.launched: list[Launched] = []
        self.capturing: set[int] = set()
        self.notes: list[tuple[Any, ...]] = []
        """Everything else: (what, arguments)."""

    def enter(self, ordinal: int) -> bool:
        self.notes.append(("enter", ordinal))
        return True

    def leave(self) -> None:
        self.notes.append(("leave",))

    def traits(self, ordinal: int) -> Traits:
        return TRAITS

    def how(self, ordinal: int, step: Step) -> Step:
        self.notes.append(("kernel", ordinal, step.kernel.label(step.variant)))
        return step

    def stream(self, handle: int) -> int:
        return handle

    def zeros(self, ordinal: int, nbytes: int, stream: int) -> tuple[int, Any]:
        self.notes.append(("zeros", ordinal, nbytes, stream))
        return self.memory.put(np.zeros(nbytes, np.uint8)), None

    def ordinal_of(self, pointer: int) -> int:
        return 0

    def synchronize(self, ordinal: int, stream: int) -> None:
        self.notes.append(("synchronize", stream))

    def captures(self, ordinal: int, stream: int) -> bool:
        return stream in self.capturing

    require_no_capture = Driver.require_no_capture

    def wait(self, ordinal: int, stream: int, other: int) -> None:
        self.notes.append(("wait", stream, other))

    def launch(self, step: Step, stream: int, parameters: int) -> None:
        arguments = tuple(read(parameters + 8 * i, kind) for i, kind in enumerate(kinds(step)))
        label = step.kernel.label(step.variant)
        self.launched.append(Launched(stream, label, step.grid, step.block, arguments))
        if self.runs:
            from problems import program_of

            code = program_of(step.kernel, step.variant)
            run(code, self.memory, Launch(step.grid, step.block, arguments))


def kinds(step: Step) -> list[Any]:
    """Return how a kernel reads its arguments."""
    return [c_double if isinstance(a, float) else c_int64 for a in step.arguments]


def read(place: int, kind: Any) -> int | float:
    """Return the argument whose address is there, as a driver reads it."""
    value: int | float = kind.from_address(c_int64.from_address(place).value).value
    return value
