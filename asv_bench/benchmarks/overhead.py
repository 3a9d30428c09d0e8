"""What a call costs besides its data: import, first call, checks."""

from __future__ import annotations

from .cases import SMALL
from .suite import Suite


class SmallArrays(Suite):
    """Calls that are over in microseconds."""

    params = (("inference", "train", "backward", "statistics"), tuple(map(str, SMALL)))

    def time_allocating(self, operation: str, case: str) -> None:
        self.work.call(operation, out=False)()


def timeraw_import() -> str:
    """Import the package, which loads neither Numba nor a kernel."""
    return "import numba_bn"


timeraw_import.version = "1"  # type: ignore[attr-defined]

_X = "import numpy; x = numpy.ones((4, 6, 5), numpy.float32)"
_EMPTY_CACHE = """
import os, tempfile
folder = tempfile.TemporaryDirectory()
os.environ['NUMBA_CACHE_DIR'] = folder.name
"""
_FILLED_CACHE = """
import subprocess, sys
subprocess.run([sys.executable, '-c', {code!r}], check=True)
"""


class FirstCall:
    """The first call of a process, Numba's import included."""

    version = "1"
    timeout = 300
    repeat = 3
    param_names = ("kernels", "call")
    params = (("cold", "cached"), ("batch_norm_train(x)", "layer_norm_backward(x, x)"))

    def timeraw_first(self, kernels: str, call: str) -> tuple[str, str]:
        """Return a statement and its setup, for a process of its own."""
        statement = f"import numba_bn; numba_bn.{call}"
        filled = _FILLED_CACHE.format(code=f"{_X}; {statement}")
        return statement, f"{_EMPTY_CACHE if kernels == 'cold' else filled}\n{_X}"
