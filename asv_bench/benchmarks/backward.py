"""Norms backward: dx, dgamma, dbeta."""

from __future__ import annotations

from .suite import Suite
from .workloads import BACKWARD


class Backward(Suite):
    """Every norm on every kind of array."""

    params = (BACKWARD, Suite.params[1])

    def time_out_given(self, operation: str, case: str) -> None:
        self.call()
