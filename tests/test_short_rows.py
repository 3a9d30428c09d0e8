"""Layer and RMS norm of short rows: many are taken at once, and each comes out as if alone."""

import ml_dtypes
import numpy as np
import oracle
import pytest
from oracle import assert_near
from table import Case, Data, backward, forward, quickly

pytestmark = [
    pytest.mark.usefixtures("backend"),
    pytest.mark.parametrize("backend", ["cpu"], indirect=True),
]
over_dtypes = pytest.mark.parametrize(
    "dtype", quickly([np.float32, np.float16], ml_dtypes.bfloat16, np.uint8, np.float64)
)
over_norms = pytest.mark.parametrize("norm", ["layer", "rms"])
over_lengths = pytest.mark.parametrize(
    "length", quickly([30, 64, 300], 5, 16, 256, 257, 1024, 5000)
)
ROWS = 37  # more than twice as many as are taken at once, and some


def problem(norm, length, dtype, huge):
    """Rows that are like any other, and among them constants, outliers and, if so asked, giants."""
    rng = np.random.default_rng(length)
    x = rng.uniform(1.0, 9.0, (ROWS, length))
    x[3], x[4] = 0.0, 7.0
    x[9, length // 2] = x[20, 0] = 200.0  # the first is what its row's sums begin at
    if huge:
        x[5] *= 1e30
        x[17] *= 1e-30
    x = x.astype(dtype)
    dy = rng.normal(size=x.shape).astype(np.float32 if dtype is np.uint8 else dtype)
    gamma, beta = rng.uniform(0.5, 2.0, (2, length)).astype(np.float32)
    case = Case(norm, x.shape, (-1,))
    return case, Data(x, dy, gamma, None if norm == "rms" else beta, None, None)


def alone(case, d, row):
    """The same of one row."""
    one = slice(row, row + 1)
    return case._replace(shape=(1, case.shape[1])), d._replace(x=d.x[one], dy=d.dy[one])


@over_norms
@over_lengths
@over_dtypes
def test_a_row_is_what_it_is_alone(norm, length, dtype):
    case, d = problem(norm, length, dtype, huge=False)
    y, dx = forward(case, d), backward(case, d).dx
    for row in range(ROWS):
        only = alone(case, d, row)
        assert np.array_equal(y[row], forward(*only)[0])
        assert np.array_equal(dx[row], backward(*only).dx[0])


@over_norms
@over_lengths
@over_dtypes
def test_rows_of_all_kinds_are_right(norm, length, dtype):
    case, d = problem(norm, length, dtype, huge=dtype not in (np.uint8, np.float16))
    # an outlier that sums begin at may cost float64 eight bits
    room = 256 if dtype is np.float64 else None
    assert_near(forward(case, d), oracle.forward(case, d), room)
    got, want = backward(case, d), oracle.backward(case, d)
    assert_near(got.dx, want.dx, room)
    assert_near(got.dgamma, want.dgamma, room)
    if norm == "layer":
        assert_near(got.dbeta, want.dbeta, room)


@over_norms
@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("dtype", quickly([np.float32], np.float16, ml_dtypes.bfloat16))
@pytest.mark.parametrize("length", [30, 300])
def test_bad_values_stay_in_their_row(norm, bad, length, dtype):
    case, d = problem(norm, length, dtype, huge=False)
    clean, known = forward(case, d), backward(case, d).dx
    d.x[11, 2] = bad
    others = np.arange(ROWS) != 11
    with np.errstate(invalid="ignore"):
        y, dx = forward(case, d), backward(case, d).dx
    assert np.isnan(y[11]).any()
    assert np.array_equal(y[others], clean[others])
    assert np.array_equal(dx[others], known[others])
