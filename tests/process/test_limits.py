"""threadpoolctl limits this package, whichever of the two is imported first."""

import harness
import pytest

pytest.importorskip("threadpoolctl")

CELL = "limits_scenarios"
ORDERS = ["numba_bn first", "threadpoolctl first", "asked for, then imported"]


@pytest.mark.parametrize("order", ORDERS)
def test_limits_hold_and_are_undone(layer, order):
    assert harness.run(layer, CELL, "limits", order) == "1 launches: 0\n4 launches: some\n"


def test_a_limit_is_its_threads_own(layer):
    assert harness.run(layer, CELL, "other_thread") == "1 4 4\n"


def test_what_threadpoolctl_tells(layer):
    assert harness.run(layer, CELL, "info") == "numba_bn numba_bn 4\n"


def test_without_threadpoolctl_an_import_fails_as_ever(layer):
    assert harness.run(layer, CELL, "not_installed") == "No module named 'threadpoolctl'\n"
