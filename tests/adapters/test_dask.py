"""Dask arrays: every norm is that of the whole, in any chunks."""

from itertools import product

import numpy as np
import oracle
import pytest
import table
from table import SMALL, Case, quickly_pairs

import numba_bn as nbn

da = pytest.importorskip("dask.array")
import dask  # noqa: E402

X = Case("batch", (7, 4, 5, 6))
CHUNKS = {
    "whole": lambda ndim: -1,
    "samples": lambda ndim: (1, *[-1] * (ndim - 1)),
    "channels": lambda ndim: (-1, *[3] * (ndim - 1)),
    "everywhere": lambda ndim: 2,
}
"""By the number of axes, as Dask is told."""
BITS = ("count", "mean", "m2")


@pytest.fixture(autouse=True)
def _synchronously():
    """Let the tests that ask for no scheduler have the simplest."""
    with dask.config.set(scheduler="synchronous"):
        yield


def lazy(array, chunks="everywhere"):
    """The array in chunks."""
    return da.from_array(array, chunks=CHUNKS[chunks](array.ndim))


def lazily(data, chunks="everywhere"):
    """The data of a case with x and dy, which are differently chunked, as Dask arrays."""
    return data._replace(x=lazy(data.x, chunks), dy=da.from_array(data.dy, chunks=3))


def assert_kind(got, want):
    """Dask knows before it computes what it gives; gives the array."""
    assert isinstance(got, da.Array)
    computed = got.compute()
    assert type(computed) is np.ndarray
    assert (got.shape, got.dtype, got._meta.dtype) == (want.shape, want.dtype, want.dtype)
    assert (computed.shape, computed.dtype) == (want.shape, want.dtype)
    return computed


@pytest.mark.parametrize("chunks", CHUNKS)
@pytest.mark.parametrize("case", SMALL, ids=table.name)
def test_forward_is_that_of_the_whole(case, chunks):
    d = table.data(case)
    got = table.forward(case, lazily(d, chunks))
    oracle.assert_near(assert_kind(got, d.x), oracle.forward(case, d))


@pytest.mark.parametrize("chunks", CHUNKS)
@pytest.mark.parametrize("case", SMALL, ids=table.name)
def test_backward_is_that_of_the_whole(case, chunks):
    d = table.data(case)
    got, plain = table.backward(case, lazily(d, chunks)), table.backward(case, d)
    for field, want in oracle.backward(case, d)._asdict().items():
        ours, theirs = getattr(got, field), getattr(plain, field)
        if theirs is None:
            assert ours is None
        else:
            oracle.assert_near(assert_kind(ours, theirs), want)


@pytest.mark.parametrize(
    ("norm", "dtype"),
    quickly_pairs(
        product(["batch", "frozen", "instance", "layer"], ["float16", "uint8"]),
        product(["batch", "layer"], ["bfloat16", "float64"]),
    ),
)
def test_dtypes_are_those_of_numpy_arrays(norm, dtype):
    case = next(c for c in SMALL if c.norm == norm)
    d = table.data(case, dtype)
    got, plain = table.forward(case, lazily(d)), table.forward(case, d)
    oracle.assert_near(assert_kind(got, plain), oracle.forward(case, d))
    got, plain = table.backward(case, lazily(d)), table.backward(case, d)
    for ours, theirs in zip(got[:3], plain[:3], strict=True):
        assert_kind(ours, theirs)


@pytest.mark.parametrize("chunks", [(500, 3, 7), (40, 1, 7), (33, 2, 5), (500, 3, 1)])
def test_variance_is_right_to_twelve_digits_at_a_large_mean(chunks):
    x = np.random.default_rng(0).normal(1e4, 1, (500, 3, 7)).astype(np.float32)
    want = x.astype(np.longdouble).var((0, 2))
    got = nbn.channel_stats(da.from_array(x, chunks=chunks)).compute()
    np.testing.assert_allclose(got.var(), want.astype(float), rtol=1e-12)


def test_what_the_mean_loses_to_rounding_is_subtracted_too():
    x = np.random.default_rng(0).normal(1e9, 1, (40, 3))
    near = x - 1e9  # exactly
    want = (near - near.mean(0)) / near.std(0)
    y, _ = nbn.batch_norm_train(lazy(x), eps=0)
    np.testing.assert_allclose(y, want, rtol=0, atol=1e-14)


def test_channels_in_several_chunks_are_put_together():
    x = np.arange(4.0 * 3 * 5 * 6).reshape(4, 3, 5, 6)
    where = np.ones(x.shape, bool)
    where[:, 1] = False
    lazy_stats = nbn.channel_stats(da.from_array(x, chunks=(3, 2, 2, 4)), channel_axis=(1, 3))
    want = nbn.channel_stats(x, channel_axis=(1, 3))
    got = lazy_stats.compute()
    for name in BITS:
        np.testing.assert_allclose(getattr(got, name), getattr(want, name), rtol=1e-14)
    np.testing.assert_array_equal(got.mean, lazy_stats.mean)
    got = nbn.channel_stats(da.from_array(x, chunks=(3, 1, 2, 4)), where=where).compute()
    assert np.isnan(got.mean).tolist() == [False, True, False]
    assert got.count.tolist() == [120, 0, 120]


def test_the_whole_may_be_a_vector_of_channels():
    got = nbn.channel_stats(da.arange(5, chunks=2), channel_axis=0).compute()
    assert got == nbn.channel_stats(np.arange(5), channel_axis=0)


@pytest.mark.parametrize("shape", [X.shape, (5, 6), (4, 1, 1), (7, 1, 5, 1)])
@pytest.mark.parametrize("kind", [np.asarray, lazy])
def test_masks_of_any_kind_that_broadcast(shape, kind):
    d, rng = table.data(X), np.random.default_rng(1)
    where = rng.random(shape) < 0.6
    if shape == (4, 1, 1):
        where[...] = True
    got = nbn.batch_norm_train(lazy(d.x), where=kind(where))[1].compute()
    want = nbn.batch_norm_train(d.x, where=where)[1]
    for name in BITS:
        np.testing.assert_allclose(getattr(got, name), getattr(want, name), rtol=1e-12)


def test_a_mask_for_all_values():
    d = table.data(X)
    got = nbn.channel_stats(lazy(d.x), where=np.array(False)).compute()
    assert not got.count.any()


def test_a_step_with_everything():
    d, where = table.data(X), table.some_mask(X)
    rest = {"where": where, "eps": table.EPS}
    residual = d.dy[::-1].copy()
    options = {**rest, "residual": residual, "activation": "relu"}
    y, stats = nbn.batch_norm_train(lazy(d.x), d.gamma, da.from_array(d.beta), **options)
    want_y, want_stats = nbn.batch_norm_train(d.x, d.gamma, d.beta, **options)
    np.testing.assert_allclose(y, want_y, atol=1e-13)
    got = nbn.batch_norm_backward(
        lazy(d.dy), lazy(d.x), d.gamma, stats=stats, activation="relu", y=y, **rest
    )
    want = nbn.batch_norm_backward(
        d.dy, d.x, d.gamma, stats=want_stats, activation="relu", y=want_y, **rest
    )
    for ours, theirs in zip(got, want, strict=True):
        np.testing.assert_allclose(assert_kind(ours, theirs), theirs, atol=1e-12)
    of_numpy = nbn.batch_norm_backward(
        lazy(d.dy), lazy(d.x), d.gamma, stats=want_stats, activation="relu", y=y, **rest
    )
    np.testing.assert_allclose(of_numpy.dx, want.dx, atol=1e-12)


def test_dy_goes_through_a_relu_in_full():
    """No warning of what float16 does not hold either."""
    x = np.random.default_rng(3).normal(size=(40, 3)).astype(np.float16)
    dy, gamma = (1e5 * x.astype(np.float32))[::-1], np.full(3, 1e-3, np.float32)
    options = {"stats": nbn.channel_stats(x), "activation": "relu", "y": x}
    want = nbn.batch_norm_backward(dy, x, gamma, **options)
    got = nbn.batch_norm_backward(lazy(dy), lazy(x), gamma, **{**options, "y": lazy(x)})
    for ours, theirs in zip(got, want, strict=True):
        np.testing.assert_allclose(assert_kind(ours, theirs), theirs, rtol=2e-3)
    assert np.isfinite(got.dx.compute()).all()


def test_gradients_too_large_for_gamma():
    dy = np.full((6, 3), 3e38, np.float32)
    for got in (
        nbn.layer_norm_backward(lazy(dy), lazy(dy)),
        nbn.batch_norm_backward(lazy(dy), lazy(dy), mean=np.zeros(3), var=np.ones(3)),
    ):
        assert np.isposinf(assert_kind(got.dbeta, np.ones(3, np.float32))).all()


def test_nan_policies():
    x = np.ones((6, 2))
    x[3, 1] = np.nan
    assert np.isnan(nbn.channel_stats(lazy(x)).mean.compute()).tolist() == [False, True]
    assert nbn.channel_stats(lazy(x), nan_policy="omit").count.compute().tolist() == [6, 5]
    stats = nbn.channel_stats(lazy(x), nan_policy="raise")
    with pytest.raises(ValueError, match="has NaN, with nan_policy='raise'"):
        stats.compute()


@pytest.mark.parametrize(("shape", "chunks"), [((0, 3), 2), ((4, 0), 2), ((4, 3), ((2, 0, 2), 3))])
def test_empty_arrays_and_chunks(shape, chunks):
    x = da.ones(shape, chunks=chunks)
    got, want = nbn.channel_stats(x).compute(), nbn.channel_stats(np.ones(shape))
    assert got == want
    assert nbn.layer_norm(x).compute().shape == shape


def test_what_a_norm_needs_whole_is_made_whole():
    x = da.ones(X.shape, chunks=2)
    assert nbn.layer_norm(x, axis=(2, 3)).numblocks[2:] == (1, 1)
    assert nbn.instance_norm(x).numblocks[2:] == (1, 1)
    assert nbn.group_norm(x, 2).numblocks[1:] == (1, 1, 1)
    assert nbn.batch_norm_train(x)[0].chunks == x.chunks
    samples = x.rechunk((1, -1, -1, -1))
    for y in (nbn.layer_norm(samples), nbn.instance_norm(samples), nbn.group_norm(samples, 2)):
        assert y.chunks == samples.chunks
