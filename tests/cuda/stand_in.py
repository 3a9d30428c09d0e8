"""A stand-in for the driver: it notes what it is asked, and may run it by the interpreter.

No tests.
"""

from typing import Any, NamedTuple

import numpy as np
from ptx_machine import Launch, run
from ptx_memory import GlobalMemory

from numba_bn._kernels.cuda.driver import Traits
from numba_bn._kernels.cuda.kernel import Device, Kernel, Step, Variant

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
        self.notes: list[tuple[Any, ...]] = []
        """Everything else: (what, arguments)."""

    def enter(self, ordinal: int) -> bool:
        self.notes.append(("enter", ordinal))
        return True

    def leave(self) -> None:
        self.notes.append(("leave",))

    def traits(self, ordinal: int) -> Traits:
        return TRAITS

    def kernel(self, ordinal: int, kernel: Kernel, variant: Variant) -> Any:
        self.notes.append(("kernel", ordinal, kernel.label(variant)))
        return kernel, variant

    def config(self, step: Step) -> Step:
        return step

    def stream(self, handle: int) -> int:
        return handle

    def zeros(self, ordinal: int, nbytes: int, stream: int) -> tuple[int, Any]:
        self.notes.append(("zeros", ordinal, nbytes, stream))
        return self.memory.put(np.zeros(nbytes, np.uint8)), None

    def ordinal_of(self, pointer: int) -> int:
        return 0

    def wait(self, stream: int, other: int) -> None:
        self.notes.append(("wait", stream, other))

    def launch(self, stream: int, step: Step, loaded: Any, *arguments: int | float) -> None:
        kernel, variant = loaded
        label = kernel.label(variant)
        self.launched.append(Launched(stream, label, step.grid, step.block, arguments))
        if self.runs:
            from problems import program_of

            program = program_of(kernel, variant)
            run(program, self.memory, Launch(step.grid, step.block, arguments))
