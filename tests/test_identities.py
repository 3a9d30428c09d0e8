"""What must hold between norms, between layouts, and between parts and their whole."""

import functools
import operator

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import numba_bn as nbn

pytestmark = pytest.mark.usefixtures("backend")
sizes = st.integers(1, 6)
seeds = st.integers(0, 2**32 - 1)
dtypes = st.sampled_from([np.float32, np.float64])


@st.composite
def images(draw, channels=sizes):
    """An array (N, C, H, W) with gamma and beta, of any mean and scale."""
    n, c, h, w = draw(sizes), draw(channels), draw(sizes), draw(st.integers(1, 40))
    rng, dtype = np.random.default_rng(draw(seeds)), draw(dtypes)
    x = rng.normal(
        draw(st.sampled_from([0, 3, 1000])), draw(st.sampled_from([1, 50])), (n, c, h, w)
    )
    return x.astype(dtype), *rng.normal(size=(2, c)).astype(dtype)


def near(a, b, size=1.0):
    unit = np.finfo(np.asarray(b).dtype).eps
    room = 8 if unit > 1e-10 else 1e5  # the float64 mean at mean 1000 has a few digits less
    np.testing.assert_allclose(a, b, rtol=room * unit, atol=room * unit * size)


def near_gradients(a, b):
    for one, other in zip(a, b, strict=True):
        if other is not None:
            near(one, other, 100 * max(1.0, np.abs(other).max(initial=0)))


def near_stats(a, b):
    assert np.array_equal(a.count, b.count)
    # of a mean near zero the digits are those of the values it is the mean of
    spread = np.sqrt(np.max(b.m2 / np.maximum(b.count, 1), initial=0))
    np.testing.assert_allclose(a.mean, b.mean, rtol=1e-13, atol=1e-15 * spread)
    np.testing.assert_allclose(a.m2, b.m2, rtol=1e-11, atol=1e-18 * np.max(b.mean**2, initial=0))


@given(images())
def test_as_many_groups_as_channels_is_instance_norm(drawn):
    x, gamma, beta = drawn
    near(nbn.group_norm(x, x.shape[1], gamma, beta), nbn.instance_norm(x, gamma, beta), 10)
    dy = np.cos(x)
    near_gradients(
        nbn.group_norm_backward(dy, x, x.shape[1], gamma), nbn.instance_norm_backward(dy, x, gamma)
    )


@given(images())
def test_one_group_is_layer_norm_of_the_sample(drawn):
    x, gamma, beta = drawn
    full = [np.broadcast_to(p[:, None, None], x.shape[1:]) for p in (gamma, beta)]
    axes = (1, 2, 3)
    near(nbn.group_norm(x, 1, gamma, beta), nbn.layer_norm(x, *full, axis=axes), 10)
    dy = np.cos(x)
    got = nbn.layer_norm_backward(dy, x, full[0], axis=axes)
    summed = nbn.Gradients(got.dx, got.dgamma.sum((1, 2)), got.dbeta.sum((1, 2)))
    near_gradients(summed, nbn.group_norm_backward(dy, x, 1, gamma))


@given(images())
def test_one_sample_of_instance_norm_is_batch_norm(drawn):
    x, gamma, beta = drawn
    each = [nbn.batch_norm(x[i : i + 1], gamma, beta) for i in range(len(x))]
    near(nbn.instance_norm(x, gamma, beta), np.concatenate(each), 10)


@given(images())
def test_layer_norm_of_centred_rows_is_rms_norm(drawn):
    x, gamma, _ = drawn
    rows = x.astype(np.float64).reshape(-1, x.shape[1])
    rows -= rows.mean(1, keepdims=True)
    got = nbn.rms_norm(rows, gamma)
    np.testing.assert_allclose(got, nbn.layer_norm(rows, gamma), rtol=1e-9, atol=1e-9)


@given(images())
def test_channels_last_is_channels_first(drawn):
    x, gamma, beta = drawn
    last, dy = np.ascontiguousarray(np.moveaxis(x, 1, -1)), np.cos(x)
    dlast = np.ascontiguousarray(np.moveaxis(dy, 1, -1))
    y, stats = nbn.batch_norm_train(x, gamma, beta)
    z, same = nbn.batch_norm_train(last, gamma, beta, channel_axis=-1)
    near(np.moveaxis(z, -1, 1), y, 10)
    near_stats(same, stats)
    near_stats(nbn.channel_stats(last, channel_axis=-1), nbn.channel_stats(x))
    calls = [
        (functools.partial(nbn.batch_norm_backward, stats=stats), ()),
        (nbn.instance_norm_backward, ()),
        (nbn.group_norm_backward, (1,)),
    ]
    for backward, groups in calls:
        got = backward(dlast, last, *groups, gamma, channel_axis=-1)
        got = got._replace(dx=np.moveaxis(got.dx, -1, 1))
        near_gradients(got, backward(dy, x, *groups, gamma))


@given(images())
def test_an_order_of_memory_changes_nothing(drawn):
    x, gamma, beta = drawn
    seen = np.ascontiguousarray(x.transpose(2, 3, 1, 0)).transpose(3, 2, 0, 1)
    near(nbn.batch_norm(seen, gamma, beta), nbn.batch_norm(x, gamma, beta), 10)
    near(nbn.instance_norm(seen, gamma, beta), nbn.instance_norm(x, gamma, beta), 10)


@given(images())
def test_the_batchs_own_statistics_at_test_time_are_training(drawn):
    x, gamma, beta = drawn
    y, stats = nbn.batch_norm_train(x, gamma, beta)
    frozen = {"mean": stats.mean, "var": stats.var()}
    near(nbn.batch_norm(x, gamma, beta, **frozen), y, 10)
    assert np.array_equal(nbn.batch_norm(x, gamma, beta), y)
    dy = np.cos(x)
    train = nbn.batch_norm_backward(dy, x, gamma, stats=stats)
    test = nbn.batch_norm_backward(dy, x, gamma, **frozen)
    near_gradients(train[1:3], test[1:3])


@given(images(), st.integers(1, 5), st.randoms(use_true_random=False))
def test_parts_merge_to_the_whole_in_any_order(drawn, pieces, random):
    x, _, _ = drawn
    cuts = sorted(random.randint(0, x.shape[0]) for _ in range(pieces - 1))
    parts = [nbn.channel_stats(part) for part in np.split(x, cuts)]
    whole = nbn.channel_stats(x)
    near_stats(functools.reduce(operator.add, parts), whole)
    random.shuffle(parts)
    near_stats(functools.reduce(operator.add, parts), whole)
    running = nbn.ChannelStats(*np.zeros((3, x.shape[1])))
    for part in np.split(x, cuts):
        running.update(part)
    near_stats(running, whole)


@given(images())
def test_nothing_added_changes_nothing(drawn):
    x, _, _ = drawn
    stats = nbn.channel_stats(x)
    nothing = nbn.channel_stats(x[:0])
    assert (nothing.count == 0).all()
    assert stats + nothing == stats
    assert nothing + stats == stats
    assert (nothing + nothing).count.tolist() == nothing.count.tolist()


@given(images(), images())
def test_merging_commutes(one, other):
    a, b = nbn.channel_stats(one[0][:, :1]), nbn.channel_stats(other[0][:, :1])
    near_stats(a + b, b + a)


@given(images(), st.integers(-20, 20))
def test_a_power_of_two_scales_exactly(drawn, exponent):
    x, gamma, beta = drawn
    scale = x.dtype.type(2.0**exponent)
    stats, scaled = nbn.channel_stats(x), nbn.channel_stats(x * scale)
    assert np.array_equal(scaled.mean, stats.mean * float(scale))
    assert np.array_equal(scaled.m2, stats.m2 * float(scale) ** 2)
    assume((stats.m2 > 0).all())
    y = nbn.batch_norm(x, gamma, beta, eps=1e-5)
    z = nbn.batch_norm(x * scale, gamma, beta, eps=1e-5 * float(scale) ** 2)
    near(z, y, 4)


@given(images(), st.integers(-100, 100))
def test_an_exact_shift_moves_the_mean_alone(drawn, shift):
    """Values on a grid: x + shift is exact, so only the mean may move, and by just that."""
    x = np.rint(drawn[0] * 8) / 8
    shift = x.dtype.type(shift)
    stats, shifted = nbn.channel_stats(x), nbn.channel_stats(x + shift)
    np.testing.assert_allclose(shifted.mean, stats.mean + shift, rtol=1e-15, atol=1e-12)
    np.testing.assert_allclose(shifted.m2, stats.m2, rtol=1e-12, atol=1e-18)
    near(nbn.batch_norm(x + shift), nbn.batch_norm(x), 10)


@given(images())
def test_normalized_data_has_the_asked_mean_and_variance(drawn):
    x, gamma, beta = drawn
    assume(x[:, 0].size > 1)
    stats = nbn.channel_stats(x)
    again = nbn.channel_stats(nbn.batch_norm(x.astype(np.float64), gamma, beta, eps=0.0))
    np.testing.assert_allclose(again.mean, beta, rtol=1e-9, atol=1e-9)
    varies = stats.m2 > 0
    assert varies.all()
    np.testing.assert_allclose(again.std()[varies], np.abs(gamma)[varies], rtol=1e-8, atol=1e-9)


@given(images(st.just(4)))
def test_two_channel_axes_are_one(drawn):
    x, gamma, beta = drawn
    split = x.reshape(x.shape[0], 2, 2, *x.shape[2:])
    square = [p.reshape(2, 2) for p in (gamma, beta)]
    y, stats = nbn.batch_norm_train(x, gamma, beta)
    z, same = nbn.batch_norm_train(split, *square, channel_axis=(1, 2))
    assert np.array_equal(z.reshape(x.shape), y)
    assert same.mean.shape == (2, 2)
    assert np.array_equal(same.m2.ravel(), stats.m2)
    got = nbn.group_norm(split, 2, *square, channel_axis=(1, 2))
    assert np.array_equal(got.reshape(x.shape), nbn.group_norm(x, 2, gamma, beta))
