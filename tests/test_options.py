"""Masks, residual and activation of batch norm, against the textbook."""

import itertools

import numpy as np
import oracle
import pytest
from oracle import assert_near
from table import (
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
    some_mask,
)

import numba_bn as nbn

pytestmark = pytest.mark.usefixtures("backend")
BATCH, LARGER = ([c for c in cs if c.norm in ("batch", "frozen")] for cs in (SMALL, MEDIUM))
# one image, whose channels are short runs that are summed and written together
IMAGE = [Case("batch", (1, 5, 7, 7)), Case("batch", (1, 5, 16, 16))]
over_batch = pytest.mark.parametrize("case", quickly(BATCH, *LARGER), ids=name)
over_dtypes = pytest.mark.parametrize("dtype", quickly(["float64"], "float32"))


def broadcasting_masks(case):
    """Masks of fewer axes than x, each with every channel in it."""
    full = np.ones(case.shape, bool)
    spatial = full[:1].copy()
    spatial[..., -1:] = case.own[-1] == len(case.shape) - 1
    samples = np.ones((case.shape[0],) + (1,) * (len(case.shape) - 1), bool)
    samples[-1] = False
    return {"spatial": spatial, "samples": samples, "all": np.ones((1,) * full.ndim, bool)}


@pytest.mark.parametrize("case", quickly(BATCH + IMAGE, *LARGER), ids=name)
@over_dtypes
@pytest.mark.parametrize(
    ("masked", "added", "activation"),
    [o for o in itertools.product([False, True], [False, True], [None, "relu"]) if any(o)],
)
def test_options_together(case, dtype, masked, added, activation):
    d = data(case, dtype)
    where = some_mask(case) if masked else None
    residual = data(case, dtype, seed=2).dy if added else None
    y = forward(case, d, where=where, residual=residual, activation=activation)
    assert_near(y, oracle.forward(case, d, where, residual, activation))
    got = backward(case, d, where=where, activation=activation, y=y if activation else None)
    let_through = d._replace(dy=np.where(y > 0, d.dy, 0) if activation else d.dy)
    want = oracle.backward(case, let_through, where)
    for have, expected in zip(got, want, strict=False):
        assert_near(have, expected)
    if activation:
        assert got.dresidual.dtype == y.dtype
        assert np.array_equal(got.dresidual, let_through.dy)
    else:
        assert got.dresidual is None


@over_batch
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_of_the_options(case, layout):
    d = data(case, np.float64)
    where = LAYOUTS[layout](some_mask(case))
    residual = data(case, np.float64, layout, seed=2).dy
    y = forward(case, d, where=where, residual=residual, activation="relu")
    assert_near(y, oracle.forward(case, d, where, residual, "relu"))
    got = backward(case, d, where=where, activation="relu", y=LAYOUTS[layout](y))
    want = oracle.backward(case, d._replace(dy=np.where(y > 0, d.dy, 0)), where)
    for have, expected in zip(got, want, strict=False):
        assert_near(have, expected)


@over_batch
@pytest.mark.parametrize("kind", ["spatial", "samples", "all"])
def test_masks_broadcast(case, kind):
    d = data(case, np.float64)
    where = broadcasting_masks(case)[kind]
    assert_near(forward(case, d, where=where), oracle.forward(case, d, where))
    got, want = backward(case, d, where=where), oracle.backward(case, d, where)
    assert_near(got.dx, want.dx)
    assert_near(got.dgamma, want.dgamma)
    if case.norm == "batch":
        stats = nbn.channel_stats(d.x, where=where, **case.options)
        count, mean, m2 = oracle.moments(case, d.x, where)
        assert np.array_equal(stats.count, count.reshape(stats.count.shape))
        np.testing.assert_allclose(stats.mean, mean.reshape(stats.mean.shape), rtol=1e-13)
        np.testing.assert_allclose(stats.m2, m2.reshape(stats.m2.shape), rtol=1e-12)


@over_batch
@over_dtypes
@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
def test_what_is_masked_poisons_nothing_else(case, dtype, poison):
    clean, where = data(case, dtype), some_mask(case)
    d = clean._replace(x=np.where(where, clean.x, poison).astype(dtype))
    y, want = forward(case, d, where=where), oracle.forward(case, clean, where)
    assert_near(y[where], oracle.Expected(want.value[where], want.size[where]))
    assert not np.isfinite(y[~where]).any()
    got, expected = backward(case, d, where=where), oracle.backward(case, d, where)
    assert np.isfinite(expected.dx.value).all()
    for have, one in zip(got, expected, strict=False):
        assert_near(have, one)


@over_batch
def test_masked_out_dy_poisons_only_its_own_dx(case):
    d, where = data(case, np.float64), some_mask(case)
    d.dy[~where] = np.nan
    got = backward(case, d, where=where)
    assert np.array_equal(np.isnan(got.dx), ~where)
    want = oracle.backward(case, d, where)
    for have, one in zip(got, want, strict=False):
        assert_near(have, one)


@over_batch
def test_options_in_place(case):
    d, where = data(case, np.float64), some_mask(case)
    residual = data(case, np.float64, seed=2).dy
    want = oracle.forward(case, d, where, residual, "relu")
    x = d.x.copy()
    y = forward(case, d, where=where, residual=residual, activation="relu", out=d.x)
    assert y is d.x
    assert_near(y, want)
    d = d._replace(x=x)
    expected = oracle.backward(case, d._replace(dy=np.where(y > 0, d.dy, 0)), where)
    got = backward(case, d, where=where, activation="relu", y=y, out=d.dy)
    assert got.dx is d.dy
    assert_near(got.dx, expected.dx)


@pytest.mark.parametrize("case", [c for c in BATCH if c.norm == "batch"], ids=name)
def test_a_full_mask_is_no_mask(case):
    d = data(case, np.float64)
    y, stats = nbn.batch_norm_train(d.x, d.gamma, d.beta, eps=EPS, **case.options)
    z, same = nbn.batch_norm_train(
        d.x, d.gamma, d.beta, eps=EPS, where=np.ones(case.shape, bool), **case.options
    )
    np.testing.assert_allclose(z, y, rtol=1e-13, atol=1e-13)
    assert np.array_equal(same.count, stats.count)
    np.testing.assert_allclose(same.mean, stats.mean, rtol=1e-14)
    np.testing.assert_allclose(same.m2, stats.m2, rtol=1e-13)
