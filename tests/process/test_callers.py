"""Many threads call at once, or from within a parallel loop: right results, no abort."""

import harness
import pytest

CELL = "threads_scenarios"
POOL = 4
"""Threads of Numba's pool in a scenario."""


@pytest.mark.parametrize("count", [8, 64])
def test_python_threads(layer, count):
    """OpenMP keeps a team per caller, the other layers one pool, TBB with a thread of its own."""
    more = int(harness.run(layer, CELL, "python_threads", count, limit=60))
    assert more <= (count * (POOL - 1) if layer == "omp" else POOL + 1)


def test_dask_threads(layer):
    pytest.importorskip("dask")
    assert harness.run(layer, CELL, "dask_threads") == "1\n"


@pytest.mark.parametrize("process", ["own", "this"])
def test_a_worker_of_distributed(layer, process):
    pytest.importorskip("distributed")
    assert harness.run(layer, CELL, "distributed", process, limit=60) == "1\n"


def test_within_a_parallel_loop(layer):
    calls, launched, more = map(int, harness.run(layer, CELL, "nested", limit=60).split())
    assert calls == 32
    assert more <= POOL + 1
    if layer != "tbb":  # whose nested loops share its threads
        assert launched == 0


def test_kernels_let_go_of_the_gil(layer):
    assert harness.run(layer, CELL, "gil") == "seen\n"


def test_a_mask_holds_and_comes_back(layer):
    assert harness.run(layer, CELL, "masks") == "restored\n"


def test_no_layer_at_all():
    output = harness.run("tbb", CELL, "no_layer", LD_LIBRARY_PATH="")
    assert output.startswith("RuntimeWarning: numba_bn: Numba has no threads to use")
    assert output.count("Warning") == 1
