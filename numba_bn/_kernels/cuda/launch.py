"""Plans are prepared once and launched often: on one stream, in order, with its own work space.

Nothing here waits for a device.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any, NamedTuple

from numba_bn._kernels.cuda import driver
from numba_bn._kernels.cuda.kernel import Plan

_WORKSPACE = "workspace"

Argument = tuple[str | None, int | float]
"""The name of a buffer and an offset into it, or None and a number."""


class Prepared(NamedTuple):
    """A plan for one device: kernels loaded, launches configured."""

    ordinal: int
    steps: tuple[tuple[Any, Any, tuple[Argument, ...]], ...]
    workspace: int


class _Workspace:
    """The memory that the plans on one stream share; one at a time is launched."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.nbytes = 0
        self.address = 0
        self._owner: Any = None

    def grow(self, ordinal: int, stream: int, nbytes: int) -> None:
        """Be at least so large; what is let go is freed in the stream's order."""
        self.address, self._owner = driver.driver().zeros(ordinal, nbytes, stream)
        self.nbytes = nbytes


_workspaces: dict[tuple[int, int], _Workspace] = {}
"""By device and stream. A stream keeps its own, some 100 KB, until the process ends."""


def prepare(plan: Plan, ordinal: int) -> Prepared:
    """Compile or load a plan's kernels, for a device."""
    d = driver.driver()
    entered = d.enter(ordinal)
    try:
        steps = tuple(
            (
                d.config(step),
                d.kernel(ordinal, step.kernel, step.variant),
                tuple(_argument(value) for value in step.arguments),
            )
            for step in plan.steps
        )
    finally:
        if entered:
            d.leave()
    return Prepared(ordinal, steps, plan.workspace)


def _argument(value: str | int | float) -> Argument:
    if not isinstance(value, str):
        return None, value
    name, _, offset = value.partition("+")
    return name, int(offset or 0)


def run(prepared: Prepared, addresses: Mapping[str, int], stream: int) -> None:
    """Launch a plan on a stream; ``addresses`` are those of its buffers, by name."""
    d = driver.driver()
    ordinal, steps, nbytes = prepared
    on, launch = d.stream(stream), d.launch
    workspace = _workspaces.get((ordinal, stream))
    if workspace is None:
        workspace = _workspaces.setdefault((ordinal, stream), _Workspace())
    entered = d.enter(ordinal)
    try:
        with workspace.lock:
            if workspace.nbytes < nbytes:
                workspace.grow(ordinal, stream, nbytes)
            at = {**addresses, _WORKSPACE: workspace.address}
            for config, kernel, arguments in steps:
                launch(on, config, kernel, *[n if b is None else at[b] + n for b, n in arguments])
    finally:
        if entered:
            d.leave()
