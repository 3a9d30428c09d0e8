"""How exact: against rational arithmetic, on data that break the shortcuts."""

import contextlib
import functools

import exact
import ml_dtypes
import numpy as np
import oracle
import pytest
from exact import channel_moments, exact_moments, exact_norm, relative_error
from table import Case, Data, backward, forward, name, quickly

import numba_bn as nbn

pytestmark = pytest.mark.usefixtures("backend")
CASES = [*exact.CASES, Case("layer", (3, 2000), (-1,)), Case("rms", (3, 2000), (-1,))]
FROZEN = [c._replace(norm="frozen") for c in CASES if c.norm == "batch"]
SHAPES = [((3, 2, 3001), 1), ((3, 3001, 2), 2), ((20_011, 2), 1), ((2, 5, 31, 33), 1), ((1, 9), 0)]
over_shapes = pytest.mark.parametrize(("shape", "axis"), SHAPES)
NIST = {
    "NumAcc1": [10000001.0, 10000003.0, 10000002.0],
    "NumAcc2": [1.2, *[1.1, 1.3] * 500],
    "NumAcc3": [1000000.2, *[1000000.1, 1000000.3] * 500],
    "NumAcc4": [10000000.2, *[10000000.1, 10000000.3] * 500],
}


@functools.cache
def problem(case, mean, scale=1.0, eps=1e-5):
    """Draw float32 data and normalize it exactly."""
    x = np.random.default_rng(5).normal(mean, scale, case.shape).astype(np.float32)
    return x, *exact_norm(case, x, eps)


def of_reference(backend):
    """Tell the plain NumPy backend, whose sums are NumPy's: a few digits less, and warnings."""
    return backend.__name__.endswith("reference")


def quiet(backend):
    return np.errstate(invalid="ignore") if of_reference(backend) else contextlib.nullcontext()


def plain(case, x, mean, var):
    """Return the arrays of a call without gamma and beta, the statistics one per channel."""
    one = tuple(slice(None) if a in case.own else 0 for a in range(x.ndim))
    frozen = case.norm == "frozen"
    return Data(x, None, None, None, mean[one] if frozen else None, var[one] if frozen else None)


def assert_within_ulps(y, want, ulps=4):
    unit = np.spacing(np.maximum(1, np.abs(want)).astype(np.float32)).astype(np.float64)
    assert (np.abs(y.astype(np.float64) - want) / unit).max() <= ulps


@pytest.mark.parametrize("case", [*CASES, *FROZEN], ids=name)
@pytest.mark.parametrize("mean", [0.0, 1e4, 1e6])
def test_output_at_any_mean(case, mean):
    x, means, variances, want = problem(case, mean)
    y = forward(case, plain(case, x, means, variances), eps=1e-5)
    assert y.dtype == np.float32
    assert_within_ulps(y, want)


@pytest.mark.parametrize("case", [c for c in CASES if c.norm != "rms"], ids=name)
@pytest.mark.parametrize("mean", [1e4, 1e6])
def test_input_gradient_at_any_mean(case, mean):
    x, *_ = problem(case, mean)
    rng = np.random.default_rng(6)
    gamma = rng.uniform(0.5, 2, case.parameter_shape).astype(np.float32)
    d = Data(x, rng.normal(size=x.shape).astype(np.float32), gamma, gamma, None, None)
    got, want = backward(case, d), oracle.backward(case, d)
    unit = 2.0**-23 * np.abs(want.dx.value).max()
    assert np.abs(got.dx - want.dx.value).max() <= 8 * unit
    for have, expected in zip(got[1:3], want[1:], strict=True):
        size = np.abs(d.dy).sum() / gamma.size
        assert np.abs(have - expected.value).max() <= 4 * 2.0**-23 * size


@pytest.mark.parametrize("case", [*CASES, *FROZEN], ids=name)
@pytest.mark.parametrize("scale", [1e36, 1e30, 1e-30, 1e-36])
def test_huge_and_tiny_values(case, scale):
    x, means, variances, want = problem(case, 0.0, scale, 0.0)
    y = forward(case, plain(case, x, means, variances), eps=0.0)
    assert_within_ulps(y, want)


@pytest.mark.parametrize("case", CASES, ids=name)
@pytest.mark.parametrize("power", [110, -100])
def test_input_gradient_of_huge_and_tiny_values(case, power):
    x, *_ = problem(case, 1.0)
    dy = np.random.default_rng(6).normal(size=x.shape).astype(np.float32)
    plain_dx, scaled_dx = (
        backward(case, Data(x * scale, dy, None, None, None, None), eps=0.0).dx
        for scale in (np.float32(1), np.float32(2.0**power))
    )
    unit = 2.0**-23 * np.abs(plain_dx).max()
    assert np.abs(scaled_dx.astype(np.float64) * 2.0**power - plain_dx).max() <= 8 * unit


@pytest.mark.parametrize("case", CASES, ids=name)
@pytest.mark.parametrize("scale", [1e120, 1e-120])
def test_input_gradient_whose_factors_cubed_leave_float64(case, scale):
    rng = np.random.default_rng(15)
    x, dy = rng.normal(size=(2, *case.shape))
    gamma = rng.uniform(0.5, 2, case.parameter_shape)
    plain, scaled = (
        backward(case, Data(a, dy, gamma, gamma, None, None), eps=0.0).dx for a in (x, x * scale)
    )
    np.testing.assert_allclose(scaled * scale, plain, rtol=1e-9, atol=1e-9)


@over_shapes
@pytest.mark.parametrize("mean", [0.0, 1.0, 1e4, 1e6])
def test_statistics_of_float32(shape, axis, mean):
    x = np.random.default_rng(7).normal(mean, 1, shape).astype(np.float32)
    assert_statistics(x, axis)


def assert_statistics(x, axis, tolerance=1e-12):
    """Compare both ways to statistics with rational arithmetic; means as far as float64 goes."""
    means, squares = channel_moments(x, axis)
    for stats in (
        nbn.channel_stats(x, channel_axis=axis),
        nbn.batch_norm_train(x, channel_axis=axis)[1],
    ):
        size = np.sqrt([float(m2) / n for m2, n in zip(squares, stats.count, strict=True)])
        errors = stats.mean - np.array([float(m) for m in means])
        assert (np.abs(errors) <= 1e-15 * np.abs(stats.mean) + tolerance * size).all()
        if any(squares):
            assert relative_error(stats.m2, squares) <= tolerance
        else:
            assert not stats.m2.any()


@pytest.mark.parametrize("values", NIST.values(), ids=NIST)
@pytest.mark.parametrize("copies", [1, 7, 60])
@pytest.mark.parametrize("first", [False, True])
def test_nist(backend, values, copies, first):
    x = np.tile(values, (2, copies))
    tolerance = 1e-11 if of_reference(backend) else 1e-13
    assert_statistics(x if first else np.ascontiguousarray(x.T), 0 if first else 1, tolerance)


def test_nist_by_merging():
    """Means of parts are rounded to float64, 2e-9 at 1e7: that is what the variance keeps."""
    values = np.array(NIST["NumAcc4"])[:, None]
    merged = nbn.channel_stats(values[:1])
    for part in np.array_split(values[1:], 13):
        merged = merged + nbn.channel_stats(part)
    mean, m2 = exact_moments(values)
    assert relative_error(merged.mean, [mean]) <= 1e-15
    assert relative_error(merged.m2, [m2]) <= 1e-9


@pytest.mark.parametrize("dtype", quickly(["uint8"], "int32"))
@over_shapes
def test_integer_sums_are_exact(backend, dtype, shape, axis):
    limits = np.iinfo(dtype)
    x = np.random.default_rng(8).integers(limits.min, limits.max, shape, dtype, endpoint=True)
    stats = nbn.channel_stats(x, channel_axis=axis)
    # with a mask the pivot is 0, further from the values than any of them
    masked = nbn.channel_stats(x, channel_axis=axis, where=np.ones(shape, bool))
    assert relative_error(masked.mean, stats.mean) <= (1e-13 if of_reference(backend) else 0.0)
    assert relative_error(masked.m2, stats.m2) <= 1e-13
    means, squares = channel_moments(x, axis)
    errors = np.abs(stats.mean - [float(m) for m in means])
    assert errors.max() <= (1e-14 * limits.max if of_reference(backend) else 0.0)
    if any(squares):
        assert relative_error(stats.m2, squares) <= 1e-13


@pytest.mark.slow
def test_twenty_million_ones():
    stats = nbn.channel_stats(np.ones((20_000_000, 2), np.float32))
    assert stats.count.tolist() == [2e7, 2e7]
    assert stats.mean.tolist() == [1.0, 1.0]
    assert stats.m2.tolist() == [0.0, 0.0]


@pytest.mark.parametrize("dtype", quickly(["float32", "float64"], "float16", ml_dtypes.bfloat16))
@pytest.mark.parametrize("value", [0.1, 1e4, -3.3e37, 1e200])
@pytest.mark.parametrize(("shape", "axis"), [((1, 2, 70_001), 1), *SHAPES])
def test_a_constant_has_no_variance(dtype, value, shape, axis):
    largest = float(ml_dtypes.finfo(dtype).max)
    x = np.full(shape, value if abs(value) < largest else 0.7, dtype)
    y, stats = nbn.batch_norm_train(x, channel_axis=axis, eps=0.0)
    assert np.array_equal(stats.mean, np.full(stats.mean.shape, float(x.flat[0])))
    assert not stats.m2.any()
    assert not y.any()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("place", [0, 1, -1])
@over_shapes
def test_an_outlier(dtype, place, shape, axis):
    x = np.random.default_rng(9).normal(size=shape).astype(dtype)
    for channel in np.moveaxis(x, axis, 0):
        channel[np.unravel_index(place % channel.size, channel.shape)] = 1e6
    assert_statistics(x, axis)


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("mean", [1e4, 1e6])
def test_zero_padded_borders(last, mean):
    x = np.zeros((2, 3, 31, 33), np.float32)
    inside = x[:, :, 2:-2, 2:-2]
    inside[...] = np.random.default_rng(10).normal(mean, 1, inside.shape)
    x = np.ascontiguousarray(np.moveaxis(x, 1, -1)) if last else x
    assert_statistics(x, 3 if last else 1)


@pytest.mark.parametrize("scale", [1e-150, 1e-30, 1e30, 1e150])
@over_shapes
def test_statistics_at_any_scale(scale, shape, axis):
    x = np.random.default_rng(11).normal(3, 1, shape) * scale
    assert_statistics(x, axis)


@pytest.mark.slow
@over_shapes
def test_half_types_do_not_overflow(shape, axis):
    for dtype, scale in ((np.float16, 6e4), (ml_dtypes.bfloat16, 1e38)):
        x = np.random.default_rng(12).uniform(-scale, scale, shape).astype(dtype)
        assert_statistics(x.astype(np.float64), axis)
        y, stats = nbn.batch_norm_train(x, channel_axis=axis)
        means, _ = channel_moments(x.astype(np.float64), axis)
        assert np.abs(stats.mean - [float(m) for m in means]).max() <= 1e-12 * scale
        assert np.isfinite(y.astype(np.float64)).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", quickly(["float32", "float64"], "float16"))
@over_shapes
def test_bad_values_stay_in_their_channel(backend, bad, dtype, shape, axis):
    x = np.random.default_rng(13).normal(size=shape).astype(dtype)
    clean, known = nbn.batch_norm_train(x, channel_axis=axis)
    channel = shape[axis] // 2
    at = [0] * x.ndim
    at[axis] = channel
    x[tuple(at)] = bad
    with quiet(backend):
        y, stats = nbn.batch_norm_train(x, channel_axis=axis)
        same = nbn.channel_stats(x, channel_axis=axis)
    spoilt = np.arange(shape[axis]) == channel
    for one in (stats, same):
        assert np.array_equal(one.count, known.count)
        assert np.array_equal(one.mean, np.where(spoilt, np.nan, known.mean), equal_nan=True)
        assert np.array_equal(one.m2, np.where(spoilt, np.nan, known.m2), equal_nan=True)
    y, clean = np.moveaxis(y, axis, 0), np.moveaxis(clean, axis, 0)
    assert np.isnan(y[spoilt]).all()
    assert np.array_equal(y[~spoilt], clean[~spoilt])


@pytest.mark.parametrize("case", [c for c in CASES if c.norm != "batch"], ids=name)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_bad_values_stay_in_their_sample(backend, case, bad):
    x = np.random.default_rng(14).normal(size=case.shape).astype(np.float32)
    d = Data(x, np.cos(x), None, None, None, None)
    clean, known = forward(case, d), backward(case, d)
    x[1, 0] = bad
    with quiet(backend):
        y, got = forward(case, d), backward(case, d)
    assert np.isnan(y[1]).any()
    others = np.arange(len(x)) != 1
    assert np.array_equal(y[others], clean[others])
    assert np.array_equal(got.dx[others], known.dx[others])


def test_the_worked_example():
    x = np.full((2, 2, 2, 2), 7.0)
    x[..., 0] = np.array([[1, 2], [3, 4]]), np.array([[2, 3], [4, 5]])
    y, stats = nbn.batch_norm_train(x, channel_axis=-1, eps=0.0)
    assert stats.mean.tolist() == [3.0, 7.0]
    assert stats.var().tolist() == [1.5, 0.0]
    third = np.sqrt(2 / 3)
    expected = [-2 * third, -third, 0, third, -third, 0, third, 2 * third]
    np.testing.assert_allclose(y[..., 0].ravel(), expected, rtol=1e-15)
    np.testing.assert_allclose(expected[:4], [-1.633, -0.816, 0, 0.816], atol=5e-4)
    assert not y[..., 1].any()
