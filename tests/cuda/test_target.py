"""How kernels are compiled by numba-cuda."""

import copy

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
