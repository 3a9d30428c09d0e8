"""Processes under mpirun compute one result together, and none waits for one that failed."""

import importlib
import importlib.util
import os
import shutil
import sys
from pathlib import Path

import harness
import mpi_job
import numpy as np
import pytest
from digits_example import EXAMPLES, save_blobs

TESTS = Path(__file__).resolve().parent.parent

needs_mpi = pytest.mark.skipif(
    not (shutil.which("mpirun") and importlib.util.find_spec("mpi4py")),
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


@needs_mpi
@pytest.mark.slow
def test_the_example_has_the_same_on_all_ranks(tmp_path):
    npz = save_blobs(tmp_path, np.random.default_rng(7))
    arguments = ["--data", npz, "--epochs", 2]
    trained = [mpirun(n, "-m", "mpi4py", EXAMPLES / "training_mpi.py", *arguments) for n in (1, 3)]
    alone, together = (text.splitlines() for text in trained)
    assert together[:-1] == alone[:-1]
    assert together[-1].endswith("the same on all 3 ranks")


@needs_mpi
@pytest.mark.slow
def test_an_error_that_nobody_catches_ends_all_ranks(tmp_path):
    program = tmp_path / "fails.py"
    program.write_text(
        "import numpy as np, numba_bn as nbn\n"
        "from mpi4py import MPI\n"
        "comm = MPI.COMM_WORLD\n"
        "nbn.batch_norm_train(np.ones((2, 3)), eps=-1.0 if comm.rank == 1 else 1e-5, comm=comm)\n"
    )
    with pytest.raises(AssertionError) as caught:
        mpirun(2, program)
    assert "ValueError: batch_norm_train: eps must be finite" in str(caught.value)
    assert "RuntimeError: batch_norm_train: all ranks stop, as rank 1" in str(caught.value)


def test_the_example_says_what_to_install(monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    training_mpi = importlib.import_module("training_mpi")
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    assert training_mpi.main([]) == 2
    said = 'training_mpi.py: mpi4py is missing: pip install "numba-bn[examples,mpi]"\n'
    assert capsys.readouterr().err == said
