"""Processes under mpirun compute one result together, and none waits for one that failed."""

import importlib.util
import os
import shutil
import sys
from pathlib import Path

import harness
import mpi_job
import pytest

TESTS = Path(__file__).resolve().parent.parent
REQUIRED = "mpi" in os.environ.get("NUMBA_BN_REQUIRE", "")
"""Whether a machine without MPI fails these tests, instead of skipping them."""

needs_mpi = pytest.mark.skipif(
    not REQUIRED and not (shutil.which("mpirun") and importlib.util.find_spec("mpi4py")),
    reason="needs mpirun and mpi4py",
)


def mpirun(ranks, *program, limit=harness.COMPILING):
    """Run a Python program on so many ranks, none of them bound to a core; give its output."""
    command = ["mpirun", "--oversubscribe", "--bind-to", "none", "-n", str(ranks)]
    variables = {
        **os.environ,
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
        "NUMBA_BN_NUM_THREADS": "2",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    command += [sys.executable, "-W", "error", *map(str, program)]
    code, output, errors = harness.ended(" ".join(map(str, program)), command, variables, limit)
    assert code == 0, output + errors
    return output


@needs_mpi
def test_scenarios_on_four_ranks():
    printed = mpirun(4, TESTS / "mpi_job.py").splitlines()
    assert printed == [f"{scenario.__name__} ok" for scenario in mpi_job.ALL]
