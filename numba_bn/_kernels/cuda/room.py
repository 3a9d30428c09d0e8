"""The work space of a plan, shared out among its launches."""

from __future__ import annotations

from numba_bn._kernels.cuda.kernel import COUNTERS, Plan, Step
from numba_bn._kernels.cuda.layout import Layout

_VECTORS = "vector:"
"""Begins the name of a vector whose place is not known yet."""


class Room:
    """The work space of a plan: vectors behind what is left for the parts of each launch."""

    def __init__(self) -> None:
        self._vectors = 0
        self._parts = COUNTERS

    def vectors(self, number: int, length: int) -> tuple[str, ...]:
        """Name new vectors of float64."""
        start, self._vectors = self._vectors, self._vectors + number * length
        return tuple(f"{_VECTORS}{start + k * length}" for k in range(number))

    def parts(self, at: Layout) -> str | int:
        """Leave room for what the blocks of a launch sum up, and name it."""
        self._parts = max(self._parts, at.parts)
        return "workspace" if at.parts else 0

    def plan(self, *steps: Step) -> Plan:
        """Return the plan, its vectors in place."""
        needed = self._vectors or self._parts > COUNTERS
        placed = tuple(s._replace(arguments=tuple(map(self._placed, s.arguments))) for s in steps)
        return Plan(placed, self._parts + 8 * self._vectors if needed else 0)

    def _placed(self, argument: str | int | float) -> str | int | float:
        if isinstance(argument, str) and argument.startswith(_VECTORS):
            return f"workspace+{self._parts + 8 * int(argument.removeprefix(_VECTORS))}"
        return argument
