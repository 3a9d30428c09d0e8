"""How kernels are compiled by numba-cuda."""

import copy
import subprocess
import sys

import pytest

target = pytest.importorskip("numba_bn._kernels.cuda.target", exc_type=ImportError)


def test_light_copies_end_with_the_outermost():
    place = target._ir.Loc("kernel.py", 1)
    assert copy.deepcopy(place) is not place
    with target._light_copies():
        with target._light_copies():
            assert copy.deepcopy(place) is place
        assert copy.deepcopy(place) is place
    assert copy.deepcopy(place) is not place


def test_it_is_imported_where_numpy_lacks_a_name_that_it_asks_for():
    """As NumPy 2.5 does."""
    code = """
import numpy as np
vars(np).pop("row_stack", None)
from numba_bn._kernels.cuda import target
assert "row_stack" not in vars(np)
assert target.types.float32.bitwidth == 32
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=100)
