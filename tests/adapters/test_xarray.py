"""DataArrays: axes by name, arguments aligned by it, coordinates kept, Dask within stays lazy."""

import numpy as np
import pytest
import table
from table import SMALL, Case

import numba_bn as nbn

xr = pytest.importorskip("xarray")

DIMS = ("time", "band", "row", "column")
NORMS = [case for case in SMALL if len(case.shape) == len(DIMS)]
ATTRS = {"units": "K"}


def labelled(array, dims=DIMS, name="t", order=None):
    """An array with names and coordinates; in memory its axes may come in another order."""
    coords = {d: 10 + np.arange(n) for d, n in zip(dims, array.shape, strict=True)}
    coords["height"] = 2.0
    if "band" in dims:
        coords["colour"] = ("band", [f"c{i}" for i in range(array.shape[dims.index("band")])])
    made = xr.DataArray(array, coords, dims, name, ATTRS)
    return made.transpose(*(order or dims))


def by_name(case, d):
    """The arrays of a case as DataArrays, in orders of their own, and its options by name."""
    own = tuple(DIMS[a] for a in case.own)
    vectors = {n: labelled(getattr(d, n), own, order=own[::-1]) for n in d._fields[2:]}
    named = d._replace(x=labelled(d.x), dy=labelled(d.dy, order=DIMS[::-1]), **vectors)
    key = next(iter(case.options))
    return named, {key: own if len(own) > 1 else own[0]}


def assert_like_x(got, x, values):
    """Compare with NumPy's result, and names and coordinates with those of x."""
    assert isinstance(got, xr.DataArray)
    assert got.dims == x.dims
    xr.testing.assert_identical(got.coords.to_dataset(), x.coords.to_dataset())
    assert got.dtype == values.dtype
    np.testing.assert_allclose(got.data, values, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("case", NORMS, ids=table.name)
def test_forward_by_names(case):
    d = table.data(case)
    named, options = by_name(case, d)
    y = table.forward(case, named, **options)
    assert_like_x(y, named.x, table.forward(case, d))
    assert (y.name, y.attrs) == ("t", ATTRS)


@pytest.mark.parametrize("case", NORMS, ids=table.name)
def test_backward_by_names(case):
    d = table.data(case)
    named, options = by_name(case, d)
    got, want = table.backward(case, named, **options), table.backward(case, d)
    assert_like_x(got.dx, named.x, want.dx)
    assert (got.dx.name, got.dx.attrs) == (None, {})
    for ours, theirs in zip(got[1:3], want[1:3], strict=True):
        if theirs is None:
            assert ours is None
        else:
            assert ours.dims == tuple(DIMS[a] for a in case.own)
            np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-12)
            assert set(ours.coords) == {*ours.dims, "height", *["colour"] * ("band" in ours.dims)}


BATCH = Case("batch", (3, 4, 5, 6))


@pytest.fixture
def d():
    return table.data(BATCH)


def test_positions_are_as_of_numpy_arrays(d):
    x = labelled(d.x)
    for options in ({}, {"channel_axis": -1}, {"channel_axis": (1, 2)}):
        assert_like_x(nbn.batch_norm(x, **options), x, nbn.batch_norm(d.x, **options))
    assert_like_x(nbn.layer_norm(x), x, nbn.layer_norm(d.x))


def test_statistics_are_those_of_numpy_arrays(d):
    stats = nbn.channel_stats(labelled(d.x, order=DIMS[::-1]), channel_axis="band")
    assert type(stats) is nbn.ChannelStats
    np.testing.assert_allclose(stats.m2, nbn.channel_stats(d.x).m2, rtol=1e-12)


def test_a_norm_by_names_need_not_be_over_the_last_axes(d):
    x = labelled(d.x)
    got = nbn.layer_norm(x, axis=("band", "row"))
    want = nbn.layer_norm(d.x.transpose(0, 3, 1, 2), axis=(2, 3)).transpose(0, 2, 3, 1)
    assert_like_x(got, x, want)


@pytest.mark.parametrize("dims", [DIMS, DIMS[::-1], ("row", "time"), ("column",)])
def test_masks_by_names(d, dims):
    rng, sizes = np.random.default_rng(0), dict(zip(DIMS, d.x.shape, strict=True))
    where = rng.random([sizes[n] for n in dims]) < 0.7
    where = xr.DataArray(where, dims=dims)
    y, stats = nbn.batch_norm_train(labelled(d.x), channel_axis="band", where=where)
    full = where.broadcast_like(xr.DataArray(d.x, dims=DIMS)).transpose(*DIMS).data
    want_y, want_stats = nbn.batch_norm_train(d.x, where=full)
    np.testing.assert_allclose(y, want_y, rtol=1e-12)
    assert stats == want_stats


def test_a_step_with_everything(d):
    x, residual = labelled(d.x), labelled(d.dy, order=DIMS[::-1])
    options = {"activation": "relu", "eps": table.EPS}
    y, stats = nbn.batch_norm_train(x, residual=residual, channel_axis="band", **options)
    want, _ = nbn.batch_norm_train(d.x, residual=d.dy, **options)
    assert_like_x(y, x, want)
    got = nbn.batch_norm_backward(x, x, stats=stats, y=y, channel_axis="band", **options)
    want = nbn.batch_norm_backward(d.x, d.x, stats=stats, y=want, **options)
    assert_like_x(got.dx, x, want.dx)
    assert_like_x(got.dresidual, x, want.dresidual)


def test_the_kernels_work_on_the_data_itself(d):
    x = labelled(d.x)
    y = nbn.batch_norm(x, channel_axis="band", out=x)
    assert np.shares_memory(y.data, d.x)
    np.testing.assert_allclose(d.x.mean((0, 2, 3)), 0, atol=1e-14)


def test_out_is_what_is_returned(d):
    x, out = labelled(d.x), labelled(np.zeros_like(d.x), order=DIMS[::-1])
    want, stats = nbn.batch_norm_train(x, channel_axis="band")
    y, _ = nbn.batch_norm_train(x, channel_axis="band", out=out)
    assert y is out
    np.testing.assert_array_equal(out.transpose(*DIMS), want)
    how = {"stats": stats, "channel_axis": "band"}
    want = nbn.batch_norm_backward(want, x, **how).dx
    assert nbn.batch_norm_backward(y, x, **how, out=out).dx is out
    np.testing.assert_allclose(out.transpose(*DIMS), want, rtol=1e-12, atol=1e-12)


def test_dask_within_stays_lazy(d):
    da = pytest.importorskip("dask.array")

    def fail(block):
        raise AssertionError("a block was computed")

    meta = d.x[:0, :0, :0, :0]
    never = labelled(da.from_array(d.x, chunks=2).map_blocks(fail, dtype=d.x.dtype, meta=meta))
    y, stats = nbn.batch_norm_train(never, channel_axis="band")
    dx, dgamma, *_ = nbn.batch_norm_backward(never, never, stats=stats, channel_axis="band")
    for lazy in (y, stats, dx, dgamma, nbn.layer_norm(never, axis="band")):
        with pytest.raises(AssertionError, match="a block was computed"):
            lazy.compute()
    assert (dx.name, dgamma.name) == (None, None)
    x = labelled(d.x)
    chunked = x.chunk(time=1, band=2)
    y, stats = nbn.batch_norm_train(chunked, channel_axis="band")
    assert y.chunks == chunked.chunks
    want, want_stats = nbn.batch_norm_train(d.x)
    assert_like_x(y.compute(scheduler="synchronous"), x, want)
    got = stats.compute(scheduler="synchronous")
    np.testing.assert_allclose(got.m2, want_stats.m2, rtol=1e-12)


def test_what_was_packed_in_a_file_is_not_packed_so_again(d):
    x = labelled(d.x)
    x.encoding = {"dtype": "int16", "scale_factor": 0.01}
    assert nbn.batch_norm(x).encoding == {}


def refused(error, text, call, *args, **options):
    with pytest.raises(error) as caught:
        call(*args, **options)
    assert str(caught.value) == text


def test_what_does_not_fit_by_name(d):
    x, gamma = labelled(d.x), labelled(d.gamma, ("band",))
    call, band = nbn.batch_norm, {"channel_axis": "band"}
    text = "batch_norm: gamma must have the dimensions ('band',), got ('row',)"
    refused(ValueError, text, call, x, gamma.drop_vars("colour").rename(band="row"), **band)
    text = f"batch_norm: residual must have the dimensions {DIMS}, got {DIMS[:3]}"
    refused(ValueError, text, call, x, residual=x[..., 0], **band)
    text = f"batch_norm: where must have some of the dimensions {DIMS}, got ('level',)"
    refused(ValueError, text, call, x, where=xr.DataArray([True], dims="level"), **band)
    text = f"batch_norm: channel_axis must name dimensions of x, {DIMS}, got 'bands'"
    refused(ValueError, text, call, x, channel_axis="bands")
    text = f"layer_norm: axis must name dimensions of x, {DIMS}, got 'bands'"
    refused(ValueError, text, nbn.layer_norm, x, axis=("row", "bands"))
    text = "layer_norm: x must be a DataArray, got ndarray"
    refused(TypeError, text, nbn.layer_norm, x=d.x, gamma=gamma)
    text = "layer_norm: x must be a DataArray, got Dataset; use Dataset.map"
    refused(TypeError, text, nbn.layer_norm, x.to_dataset())
    for other in (gamma.assign_coords(band=range(4)), gamma[:3]):
        with pytest.raises(ValueError, match=r"^batch_norm: gamma and x: cannot align objects"):
            call(x, other, **band)


def test_layers_and_folding_say_what_to_pass(d):
    text = "BatchNorm: x must be a NumPy array, got DataArray; pass x.data"
    refused(TypeError, text, nbn.BatchNorm(4), labelled(d.x))
    text = "fold_batch_norm: weight must be a NumPy array, got DataArray; pass weight.data"
    refused(TypeError, text, nbn.fold_batch_norm, labelled(d.x), None, None, None, [1.0], [1.0])


def test_wrong_options_are_refused_as_of_numpy_arrays(d):
    for call, options in (
        (nbn.batch_norm, {"channel_axis": 4}),
        (nbn.batch_norm, {"channel_axis": (1, 1)}),
        (nbn.layer_norm, {"axis": (0, 1)}),
        (nbn.layer_norm, {"eps": -1}),
        (nbn.layer_norm, {"gamma": [1.0]}),
    ):
        with pytest.raises((ValueError, np.exceptions.AxisError)) as expected:
            call(d.x, **options)
        refused(expected.type, str(expected.value), call, labelled(d.x), **options)


def test_normalize_chunks_refuses_labelled_arrays():
    x = np.ones((2, 3))
    with pytest.raises(TypeError, match=r"^normalize_chunks: source .*, got DataArray of xarray; "):
        nbn.normalize_chunks(xr.DataArray(x), x.copy(), nbn.channel_stats(x))
