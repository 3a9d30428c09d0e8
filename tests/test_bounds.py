"""With NUMBA_BOUNDSCHECK=1 the tests see every access of a kernel outside of its arrays."""

import os
import subprocess
import sys
from pathlib import Path

JOB = """
import bounds
bounds.install()
import numpy as np
from numba_bn._kernels.cpu.elementwise import relu_gradient, training_terms
from numba_bn._kernels.cpu.runs import normalize

def complaint(kernel, *args):
    try:
        kernel.twin(False)(*args)
    except IndexError as error:
        return str(error)

long, short = np.ones(100), np.ones(98)
by_sixteen, two, three = np.ones(96), np.ones(2), np.ones(3)
print(complaint(relu_gradient, long, long, np.ones(100)))
print(complaint(relu_gradient, long, long, short))
print(complaint(relu_gradient, short, long, np.ones(100)))
print(complaint(relu_gradient, by_sixteen, by_sixteen, np.ones(80)))
for low in (three, two):
    out = np.ones((2, 3)), np.ones((3, 3))
    print(complaint(training_terms, np.ones((2, 3)), low, three, three, three, 0.0, *out))
of_channels, sizes = [*[np.ones(1)] * 4, None], (1, 1, 1, 1, 100)
for x in (long, short, by_sixteen[:80]):
    print(complaint(normalize, x, np.ones(100), None, *of_channels, 0.0, False, False, *sizes))
"""


def test_accesses_outside_of_an_array_are_errors(tmp_path):
    checked = {"NUMBA_BOUNDSCHECK": "1", "NUMBA_BN_CACHE": str(tmp_path)}
    tests = Path(__file__).parent
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", JOB],
        env={**os.environ, **checked, "PYTHONPATH": f"{tests}{os.pathsep}{tests.parent}"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stdout.splitlines() == [
        "None",
        "store_if outside of array(float64, 1d, C)",
        "load_if outside of array(float64, 1d, C)",
        "store outside of array(float64, 1d, C)",
        "None",
        "index is out of bounds",
        "None",
        "load_as_if outside of array(float64, 1d, C)",
        "load_as outside of array(float64, 1d, C)",
    ], done.stderr
