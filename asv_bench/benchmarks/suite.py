"""What all benchmarks of calls on arrays share."""

from __future__ import annotations

import numba

from .cases import CURVES, Case
from .workloads import applies, work_of


class Suite:
    """A call made ready: compiled, its pages touched, its threads fixed.

    `version` goes up by hand, when a benchmark measures something else; asv would otherwise start
    a new curve at every change of its source.
    """

    version = "1"
    timeout = 300
    repeat = (3, 15, 3.0)
    param_names = ("operation", "case")
    params: tuple[tuple[str, ...], tuple[str, ...]] = ((), tuple(map(str, CURVES)))

    def setup(self, operation: str, case: str) -> None:
        """Make the call once; asv skips what raises NotImplementedError."""
        parsed = Case.parse(case)
        if not applies(operation, parsed):
            raise NotImplementedError(f"{operation} means nothing for {case}")
        numba.set_num_threads(numba.config.NUMBA_NUM_THREADS)
        self.work = work_of(parsed)
        self.call = self.work.call(operation)
        self.call()
