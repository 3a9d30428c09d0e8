"""Children of every kind compute what their parents do: forked, spawned, served, by PyTorch."""

import harness
import pytest

CELL = "forks_scenarios"
LIVES_ON = ("workqueue", "tbb")
"""The layers whose threads a forked child can start again."""


def launches(output):
    """The parallel launches that a scenario printed, by who made them."""
    return {who: int(number) for who, number in map(str.split, output.splitlines())}


@pytest.mark.parametrize("parent", ["used", "loaded", "unused"])
def test_child_and_grandchild(layer, parent):
    """Parallel are the first to start threads, and those whose layer lives through a fork."""
    found = launches(harness.run(layer, CELL, "generations", parent))
    assert found["parent"] > 0
    assert (found["child"] > 0) == (layer in LIVES_ON or parent != "used")
    assert (found["grandchild"] > 0) == (layer in LIVES_ON)


def test_forked_by_a_thread(layer):
    found = launches(harness.run(layer, CELL, "from_a_thread"))
    assert (found["child"] > 0) == (layer == "workqueue")


@pytest.mark.parametrize("moment", ["while_computing", "while_compiling"])
def test_forked_beside_a_thread_at_work(layer, moment):
    harness.run(layer, CELL, moment)


@pytest.mark.parametrize("loaded", ["before", "after"])
def test_pytorch_ran_in_the_parent(layer, loaded):
    """A child that loads this package only itself is found out too, where Linux tells."""
    pytest.importorskip("torch")
    assert launches(harness.run(layer, CELL, "torch_in_parent", loaded)) == {"child": 0}


@pytest.mark.parametrize("parent", ["used", "unused"])
def test_data_loader(layer, parent):
    pytest.importorskip("torch")
    assert harness.run(layer, CELL, "data_loader", parent, limit=40) == "28\n"


@pytest.mark.parametrize("parent", ["used", "unused"])
def test_forked_pools(layer, parent):
    assert harness.run(layer, CELL, "pools", "fork", parent, limit=60) == "True\n"


@pytest.mark.parametrize("layer", ["omp"], indirect=True)
@pytest.mark.parametrize("method", ["forkserver", "spawn"])
def test_pools_of_new_processes(layer, method):
    """To these a parent's threads are nothing, whatever its layer."""
    assert harness.run(layer, CELL, "pools", method, "used", limit=60) == "True\n"
