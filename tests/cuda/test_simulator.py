"""A few kernels in the simulator of Numba's CUDA target, which runs their Python source."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from table import quickly

pytest.importorskip("numba_cuda", reason="needs numba-cuda: the extra cuda")
FOLDER = Path(__file__).resolve().parent
JOBS = {
    "planes": ("normalize", "1 2 3 1 640"),
    "one plane by two blocks": ("moments", "1 1 1 1 16400"),
    "rows": ("normalize", "1 70 4 1 1"),
    "rows by two blocks": ("moments", "1 4200 4 1 1"),
}


@pytest.mark.parametrize("job", quickly(list(JOBS)[:2], *list(JOBS)[2:]))
def test_the_source_of_a_kernel_is_right(job):
    kernel, shape = JOBS[job]
    done = subprocess.run(
        [sys.executable, str(FOLDER / "simulator_job.py"), kernel, *shape.split()],
        env={**os.environ, "NUMBA_ENABLE_CUDASIM": "1", "PYTHONPATH": str(FOLDER.parents[1])},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
