"""Every public norm, forward and backward, against the textbook, over the table."""

from itertools import product

import numpy as np
import oracle
import pytest
from oracle import assert_near
from table import (
    CASES,
    COMMON,
    DTYPES,
    EPS,
    LAYOUTS,
    MEDIUM,
    SMALL,
    Case,
    backward,
    data,
    forward,
    name,
    quickly,
    quickly_pairs,
    result_dtype,
)

import numba_bn as nbn

EACH = [Case("batch", (3, 5, 31, 33)), Case("layer", (7, 33), (-1,))]
"""Few, as every dtype is compiled anew for them; the others with those of networks."""
pytestmark = pytest.mark.usefixtures("backend")
over_cases = pytest.mark.parametrize("case", CASES, ids=name)
over_medium = pytest.mark.parametrize("case", MEDIUM, ids=name)
over_small = pytest.mark.parametrize("case", SMALL, ids=name)
over_floats = pytest.mark.parametrize("dtype", quickly([np.float32], np.float64))
over_dtypes = pytest.mark.parametrize(
    ("case", "dtype"),
    quickly_pairs(
        product(EACH[:1], DTYPES), [*product(EACH[1:], DTYPES), *product(MEDIUM, COMMON)]
    ),
    ids=name,
)
over_layouts = pytest.mark.parametrize("layout", LAYOUTS)


def assert_gradients(case, got, want):
    assert_near(got.dx, want.dx)
    assert_near(got.dgamma, want.dgamma)
    if case.norm == "rms":
        assert got.dbeta is None
    else:
        assert_near(got.dbeta, want.dbeta)
    assert got.dresidual is None


@over_cases
@over_floats
def test_forward(case, dtype):
    d = data(case, dtype)
    assert_near(forward(case, d), oracle.forward(case, d))


@over_cases
@over_floats
def test_backward(case, dtype):
    d = data(case, dtype)
    assert_gradients(case, backward(case, d), oracle.backward(case, d))


@over_dtypes
def test_forward_of_every_dtype(case, dtype):
    d = data(case, dtype)
    y = forward(case, d)
    assert y.dtype == result_dtype(dtype)
    assert_near(y, oracle.forward(case, d))


@over_dtypes
def test_backward_of_every_dtype(case, dtype):
    d = data(case, dtype)
    got = backward(case, d)
    assert got.dx.dtype == result_dtype(dtype)
    assert got.dgamma.dtype == d.gamma.dtype
    assert_gradients(case, got, oracle.backward(case, d))


@over_small
@over_layouts
@over_floats
def test_layouts(case, layout, dtype):
    d = data(case, dtype, layout)
    before = d.x.copy(), d.dy.copy()
    assert_near(forward(case, d), oracle.forward(case, d))
    assert_gradients(case, backward(case, d), oracle.backward(case, d))
    assert np.array_equal(d.x, before[0])
    assert np.array_equal(d.dy, before[1])


@over_small
@over_layouts
def test_dy_in_another_layout(case, layout):
    d = data(case, np.float32)._replace(dy=data(case, np.float32, layout).dy)
    assert_gradients(case, backward(case, d), oracle.backward(case, d))


@pytest.mark.parametrize(
    ("case", "dtypes"),
    quickly_pairs(
        [(EACH[0], "f4 f8")],
        [*product([EACH[1], *MEDIUM], ["f4 f8"]), *product(EACH, ["f8 f2", "f2 f4"])],
    ),
    ids=name,
)
def test_dy_and_gamma_of_another_dtype(case, dtypes):
    dtype, other = dtypes.split()
    d = data(case, dtype)
    d = d._replace(dy=d.dy.astype(other), gamma=d.gamma.astype(other))
    assert_near(forward(case, d), oracle.forward(case, d))
    got, want = backward(case, d), oracle.backward(case, d)
    assert got.dx.dtype == d.x.dtype
    assert got.dgamma.dtype == ("f8" if other == "f8" else "f4")
    assert_near(got.dx, want.dx)
    # float64 sums of what was computed in float32
    assert_near(got.dgamma, want.dgamma, room=2.0**31 if other == "f8" else None)


@over_small
def test_byte_order(case):
    d = data(case, np.float32)
    swapped = d._replace(x=d.x.astype(">f4"), dy=d.dy.astype(">f4"))
    assert_near(forward(case, swapped), oracle.forward(case, d))
    assert_gradients(case, backward(case, swapped), oracle.backward(case, d))


@over_small
def test_without_gamma_and_beta(case):
    d = data(case, np.float32)
    ones = d._replace(gamma=np.ones_like(d.gamma), beta=np.zeros_like(d.beta))
    none = d._replace(gamma=None, beta=None)
    assert_near(forward(case, none), oracle.forward(case, ones))
    assert_gradients(case, backward(case, none), oracle.backward(case, ones))


@over_medium
@over_layouts
def test_out(case, layout):
    if layout == "readonly":
        layout = "C"
    d = data(case, np.float32)
    out = data(case, np.float32, layout, seed=1).x
    assert forward(case, d, out=out) is out
    assert_near(out, oracle.forward(case, d))
    assert backward(case, d, out=out).dx is out
    assert_near(out, oracle.backward(case, d).dx)


@over_medium
@pytest.mark.parametrize("layout", ["C", "F", "transposed", "strided", "misaligned"])
def test_in_place(case, layout):
    d, e = data(case, np.float32, layout), data(case, np.float32, layout)
    assert forward(case, d, out=d.x) is d.x
    assert_near(d.x, oracle.forward(case, e))
    d = data(case, np.float32, layout)
    want = oracle.backward(case, d)
    assert backward(case, e, out=e.dy).dx is e.dy
    assert_near(e.dy, want.dx)
    assert backward(case, d, out=d.x).dx is d.x
    assert_near(d.x, want.dx)


@over_floats
@pytest.mark.parametrize("case", [c for c in CASES if c.norm == "batch"], ids=name)
def test_train_returns_the_statistics(case, dtype):
    d = data(case, dtype)
    y, stats = nbn.batch_norm_train(d.x, d.gamma, d.beta, eps=EPS, **case.options)
    assert np.array_equal(y, forward(case, d))
    count, mean, m2 = (np.reshape(v, case.parameter_shape) for v in oracle.moments(case, d.x))
    assert np.array_equal(stats.count, count)
    np.testing.assert_allclose(stats.mean, mean, rtol=1e-13)
    np.testing.assert_allclose(stats.m2, m2, rtol=1e-12)
    found = nbn.channel_stats(d.x, **case.options)
    np.testing.assert_allclose(found.mean, mean, rtol=1e-13)
    np.testing.assert_allclose(found.m2, m2, rtol=1e-12)
