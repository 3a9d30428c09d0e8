"""Plans that need no device to be looked at."""

import numpy as np
import pytest

from numba_bn._kernels.cuda import layout
from numba_bn._kernels.cuda import plan as plans
from numba_bn._kernels.cuda.kernel import Device
from numba_bn._kernels.cuda.plan import Call

DEVICE = Device(multiprocessors=132, threads=2048, l2_bytes=50 << 20)


@pytest.mark.parametrize("size", [1 << 24, (1 << 31) // 64, 1 << 26])
def test_a_position_in_a_row_is_divided_only_where_that_is_exact(size):
    shape = (2, 1, 1, size, 64)
    _, mode = layout.of_values(shape, 4, True, DEVICE)
    assert mode == ("spread" if size * 64 <= 1 << 31 else "each")


@pytest.mark.parametrize("by", [1, 3, 64, 127, (1 << 31) - 1])
def test_division_is_exact_below_its_limit(by):
    magic, shift = layout.division(by)
    for p in {0, by - 1, by, (1 << 31) // by * by - 1, (1 << 31) - 1}:
        assert int(np.int64(p) * np.int64(magic) >> np.int64(shift)) == p // by


@pytest.mark.parametrize("shape", [(7, 1, 1, 128, 1), (3, 1, 2, 3, 49)])
def test_in_place_the_sums_of_parameters_look_before_dx_is_written(shape):
    steps = plans.backward_own(Call(shape, "float32", in_place=True), 1e-5, DEVICE).steps
    writes = ["dx" in step.arguments for step in steps]
    assert writes == [False, False, True]
    apart = plans.backward_own(Call(shape, "float32"), 1e-5, DEVICE).steps
    assert ["dx" in step.arguments for step in apart] == [True, False]


def test_parameters_that_are_not_aligned_are_loaded_one_by_one():
    call = Call((7, 1, 1, 128, 1), "float32", vectors=False)
    for plan in (plans.forward(call, 1e-5, DEVICE), plans.backward_own(call, 1e-5, DEVICE)):
        assert "spread" in plan.steps[0].variant
        assert "along" not in plan.steps[0].variant


@pytest.mark.parametrize(
    ("shape", "vectors"),
    [
        ((1, 32, 64, 1, 3136), (16, 4)),
        ((1, 32, 64, 1, 1048), (8, 8)),  # no whole vectors of 16
        ((1, 32, 64, 1, 1049), (1, 8)),
        ((1, 65536, 64, 1, 1), (8, 8)),  # columns, of which 16 are too many for a thread
    ],
)
def test_64_bytes_are_loaded_at_once(shape, vectors):
    (step,) = plans.moments(Call(shape, "uint8"), DEVICE).steps
    assert step.variant[1:3] == vectors
