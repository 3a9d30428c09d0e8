"""Statistics of an array, with NaN and masks; running statistics of a training run."""

import copy
import math
import pickle

import ml_dtypes
import numpy as np
import pytest

import numba_bn as nbn

NAN = np.nan
WITH_NAN = np.array([[1.0, 2.0, NAN], [3.0, NAN, NAN], [8.0, 6.0, NAN]])


def batches(*sizes, channels=4):
    """Uneven batches whose mean drifts."""
    rng = np.random.default_rng(1)
    return [rng.normal(3.0 * i, 1.0 + i, (n, channels)) for i, n in enumerate(sizes)]


# ---- channel_stats ----


def test_of_an_array(backend):
    x = np.random.default_rng(0).normal(size=(3, 4, 5, 6)).astype(np.float32)
    found = nbn.channel_stats(x)
    wide = x.astype(np.float64)
    np.testing.assert_array_equal(found.count, [90.0] * 4)
    np.testing.assert_allclose(found.mean, wide.mean((0, 2, 3)), rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(found.var(), wide.var((0, 2, 3)), rtol=1e-6)


@pytest.mark.parametrize("axes", [(1, 2), (2, 1), (1, -1), (0, 3), (-4, -1), (0, 1, 2, 3)])
@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 2, 1, 0), (2, 0, 3, 1)])
def test_several_channel_axes(axes, order, backend):
    x = np.random.default_rng(0).normal(size=(3, 4, 5, 6))
    x = np.ascontiguousarray(x.transpose(order)).transpose(np.argsort(order))
    others = tuple(set(range(4)) - {a % 4 for a in axes})
    found = nbn.channel_stats(x, channel_axis=axes)
    assert found.mean.shape == tuple(x.shape[a] for a in sorted({a % 4 for a in axes}))
    np.testing.assert_allclose(found.mean, x.mean(others), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(found.m2, x.var(others) * found.count, rtol=1e-12, atol=1e-14)


def test_nan_propagates_within_its_channel(backend):
    found = nbn.channel_stats(WITH_NAN)
    np.testing.assert_array_equal(found.count, [3, 3, 3])
    np.testing.assert_array_equal(found.mean, [4, NAN, NAN])
    np.testing.assert_array_equal(found.m2, [26, NAN, NAN])


@pytest.mark.parametrize("infinity", [math.inf, -math.inf])
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # the reference's subtraction
def test_infinity_makes_nan_within_its_channel(infinity, backend):
    found = nbn.channel_stats([[1.0, 2.0], [3.0, infinity]])
    np.testing.assert_array_equal(found.mean, [2, NAN])
    np.testing.assert_array_equal(found.m2, [2, NAN])


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32, np.float64])
def test_nan_omitted_does_not_count(dtype, backend):
    found = nbn.channel_stats(WITH_NAN.astype(dtype), nan_policy="omit")
    np.testing.assert_array_equal(found.count, [3, 2, 0])
    np.testing.assert_array_equal(found.mean, [4, 4, NAN])
    np.testing.assert_array_equal(found.m2, [26, 8, 0])


def test_omitting_goes_with_a_mask(backend):
    where = [[True], [True], [False]]
    found = nbn.channel_stats(WITH_NAN, where=where, nan_policy="omit")
    np.testing.assert_array_equal(found.count, [2, 1, 0])
    np.testing.assert_array_equal(found.mean, [2, 2, NAN])


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32, np.float64])
def test_nan_raises(dtype, backend):
    with pytest.raises(ValueError, match="nan_policy") as caught:
        nbn.channel_stats(WITH_NAN.astype(dtype), nan_policy="raise")
    assert str(caught.value) == (
        "channel_stats: x of shape (3, 3) has NaN, with nan_policy='raise'"
    )


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # the reference's subtraction
def test_only_nan_that_counts_raises(backend):
    where = ~np.isnan(WITH_NAN)
    masked = nbn.channel_stats(WITH_NAN, where=where, nan_policy="raise")
    assert masked == nbn.channel_stats(WITH_NAN, nan_policy="omit")
    assert nbn.channel_stats([[1, 2]], nan_policy="raise").mean.tolist() == [1, 2]
    infinite = nbn.channel_stats([[1.0], [math.inf]], nan_policy="raise")
    np.testing.assert_array_equal(infinite.mean, [NAN])


def test_a_mask_keeps_values_out(backend):
    x = np.array([[1.0, 2.0], [NAN, 4.0], [5.0, 1e30]])
    where = np.array([[True, True], [False, True], [True, False]])
    found = nbn.channel_stats(x, where=where)
    assert found == nbn.ChannelStats([2, 2], [3, 3], [8, 2])
    nobody = nbn.channel_stats(x, where=False)
    assert nobody == nbn.ChannelStats([0, 0], [NAN, NAN], [0, 0])


# ---- RunningStats ----


@pytest.mark.parametrize("momentum", [0.1, 0.0, 1.0, 1, np.float32(0.25)])
@pytest.mark.parametrize("correction", [0, 1])
def test_momentum_is_the_weight_of_the_new_value(momentum, correction):
    running = nbn.RunningStats(4, momentum=momentum, correction=correction)
    mean, var = np.zeros(4), np.ones(4)
    for batch in batches(5, 9):
        running.update(nbn.channel_stats(batch))
        m = float(momentum)
        mean = (1 - m) * mean + m * batch.mean(0)
        var = (1 - m) * var + m * batch.var(0, ddof=correction)
    np.testing.assert_allclose(running.running_mean, mean, rtol=1e-14, atol=1e-14)
    np.testing.assert_allclose(running.running_var, var, rtol=1e-13)
    assert running.num_batches_tracked == 2


@pytest.mark.parametrize("correction", [0, 1])
def test_without_momentum_they_are_those_of_all_that_was_seen(correction):
    running = nbn.RunningStats(4, momentum=None, correction=correction)
    parts = batches(2, 50, 3, 17)
    for part in parts:
        running.update(nbn.channel_stats(part))
    whole = np.concatenate(parts)
    np.testing.assert_allclose(running.running_mean, whole.mean(0), rtol=1e-14)
    np.testing.assert_allclose(running.running_var, whole.var(0, ddof=correction), rtol=1e-13)
    averaged = np.mean([p.var(0, ddof=correction) for p in parts], axis=0)
    assert (np.abs(running.running_var - averaged) > 0.1).all()


@pytest.mark.parametrize("momentum", [0.5, None])
def test_channels_without_a_value_keep_what_they_have(momentum):
    running = nbn.RunningStats(2, momentum=momentum)
    running.update(nbn.ChannelStats([0, 2], [NAN, 6.0], [0, 8.0]))
    assert (running.running_mean[0], running.running_var[0]) == (0.0, 1.0)
    first = running.running_mean[1], running.running_var[1]
    running.update(nbn.ChannelStats([2, 0], [6.0, NAN], [8.0, 0]))
    assert (running.running_mean[1], running.running_var[1]) == first
    if momentum is None:
        np.testing.assert_array_equal(running.running_mean, [6.0, 6.0])
        np.testing.assert_array_equal(running.running_var, [8.0, 8.0])


def test_arrays_handed_out_before_do_not_change():
    running = nbn.RunningStats(4)
    before = running.running_mean
    running.update(nbn.channel_stats(batches(5)[0]))
    np.testing.assert_array_equal(before, np.zeros(4))


ONE_EACH = nbn.ChannelStats([3, 1], [1, 1], [1, 0])
REFUSED = [
    (
        ONE_EACH,
        ValueError,
        "expected more than 1 value per channel in training, got 1",
    ),
    (
        nbn.ChannelStats([3], [1], [1]),
        ValueError,
        "stats must have channels of shape (2,), got (1,)",
    ),
    (
        nbn.ChannelStats([[3, 3]], [[1, 1]], [[1, 1]]),
        ValueError,
        "stats must have channels of shape (2,), got (1, 2)",
    ),
    ((3, 1, 1), TypeError, "stats must be a ChannelStats, got tuple"),
    (np.ones((3, 2)), TypeError, "stats must be a ChannelStats, got ndarray"),
]


@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize(("stats", "error", "text"), REFUSED)
def test_an_error_leaves_the_state(stats, error, text, momentum):
    running = nbn.RunningStats(2, momentum=momentum)
    running.update(nbn.ChannelStats([3, 3], [5, 6], [7, 8]))
    before = copy.deepcopy(vars(running))
    with pytest.raises(error) as caught:
        running.update(stats)
    assert str(caught.value) == f"RunningStats.update: {text}"
    for name, value in vars(running).items():
        np.testing.assert_array_equal(value, before[name])


def test_without_correction_one_value_is_enough():
    running = nbn.RunningStats(2, momentum=1.0, correction=0)
    running.update(ONE_EACH)
    np.testing.assert_array_equal(running.running_var, [1 / 3, 0.0])


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"num_channels": 0}, ValueError, "num_channels must be at least 1, got 0"),
        ({"num_channels": 2.0}, TypeError, "num_channels must be an integer, got 2.0"),
        ({"momentum": math.nan}, ValueError, "momentum must not be NaN"),
        ({"momentum": 2}, ValueError, "momentum must lie in [0, 1] or be None, got 2"),
        ({"momentum": -0.1}, ValueError, "momentum must lie in [0, 1] or be None, got -0.1"),
        ({"momentum": "0.1"}, TypeError, "momentum must be a real number, got '0.1'"),
        ({"correction": math.nan}, ValueError, "correction must not be NaN"),
        ({"correction": None}, TypeError, "correction must be a real number, got None"),
    ],
)
def test_options_that_do_not_fit(arguments, error, text):
    with pytest.raises(error) as caught:
        nbn.RunningStats(**{"num_channels": 2, **arguments})
    assert str(caught.value) == f"RunningStats: {text}"


def test_prints_and_pickles():
    running = nbn.RunningStats(4, momentum=None)
    running.update(nbn.channel_stats(batches(5)[0]))
    text = "RunningStats(4, momentum=None, correction=1, num_batches_tracked=1)"
    assert repr(running) == text
    copied = pickle.loads(pickle.dumps(running))
    for both in (running, copied):
        both.update(nbn.channel_stats(batches(7)[0]))
    np.testing.assert_array_equal(copied.running_var, running.running_var)
