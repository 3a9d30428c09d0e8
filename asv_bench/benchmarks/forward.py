"""Norms forward."""

from __future__ import annotations

from .suite import Suite
from .workloads import FORWARD


class Forward(Suite):
    """Every norm on every kind of array."""

    params = (FORWARD, Suite.params[1])

    def time_out_given(self, operation: str, case: str) -> None:
        self.call()

    def time_allocating(self, operation: str, case: str) -> None:
        self.work.call(operation, out=False)()
