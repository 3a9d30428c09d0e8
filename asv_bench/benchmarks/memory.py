"""Peak memory: of the whole process, and of a call beyond its arrays."""

from __future__ import annotations

from .cases import RATIOS
from .measure import extra_bytes
from .suite import Suite
from .workloads import OPERATIONS


class Memory(Suite):
    """A call that is given its output."""

    params = (tuple(OPERATIONS), tuple(map(str, RATIOS)))
    unit = "bytes"

    def peakmem_baseline(self, operation: str, case: str) -> None:
        """Do nothing: what the other has above this, the call takes."""

    def peakmem_call(self, operation: str, case: str) -> None:
        self.call()

    def track_extra(self, operation: str, case: str) -> int:
        return extra_bytes(self.call)
