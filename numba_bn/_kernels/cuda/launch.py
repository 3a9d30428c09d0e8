"""Plans are prepared once and launched often: on one stream, in order, with its own work space.

Nothing here waits for a device.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any, NamedTuple

from numba_bn._kernels.cuda import driver
from numba_bn._kernels.cuda.kernel import Plan, Step

_WORKSPACE = "workspace"

Address = tuple[int, str, int]
"""Place among the arguments, name of a buffer, offset into it."""


class _Launch(NamedTuple):
    """A step whose kernel is loaded; of its arguments the addresses are missing."""

    config: Any
    kernel: Any
    arguments: tuple[Any, ...]
    addresses: tuple[Address, ...]


class Prepared(NamedTuple):
    """A plan for one device: kernels loaded, launches configured."""

    ordinal: int
    launches: tuple[_Launch, ...]
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
        launches = tuple(_prepared(step, ordinal) for step in plan.steps)
    finally:
        if entered:
            d.leave()
    return Prepared(ordinal, launches, plan.workspace)


def _prepared(step: Step, ordinal: int) -> _Launch:
    d, arguments = driver.driver(), step.arguments
    named = [(i, *a.partition("+")) for i, a in enumerate(arguments) if isinstance(a, str)]
    addresses = tuple((i, name, int(offset or 0)) for i, name, _, offset in named)
    kernel = d.kernel(ordinal, step.kernel, step.variant)
    return _Launch(d.config(step), kernel, arguments, addresses)


def run(prepared: Prepared, addresses: Mapping[str, int], stream: int) -> None:
    """Launch a plan on a stream; ``addresses`` are those of its buffers, by name."""
    d = driver.driver()
    ordinal, launches, nbytes = prepared
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
            for config, kernel, given, places in launches:
                arguments = list(given)
                for place, name, offset in places:
                    arguments[place] = at[name] + offset
                launch(on, config, kernel, *arguments)
    finally:
        if entered:
            d.leave()
