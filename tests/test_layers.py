"""The layer: training and test time, its state, and what an error leaves behind."""

import copy
import pickle

import numpy as np
import pytest

import numba_bn as nbn

LAYERS = [
    (nbn.BatchNorm, (7, 3)),
    (nbn.BatchNorm, (7, 3, 2, 4, 5)),
    (nbn.BatchNorm1d, (7, 3)),
    (nbn.BatchNorm1d, (7, 3, 4)),
    (nbn.BatchNorm2d, (7, 3, 4, 5)),
    (nbn.BatchNorm3d, (7, 3, 2, 4, 5)),
]


def data(shape=(7, 3, 4), seed=0, dtype=np.float64):
    return np.random.default_rng(seed).normal(3.0, 2.0, shape).astype(dtype)


def trained(layer=None, batches=3, **options):
    """A layer that has seen a few batches, with parameters of its own."""
    layer = layer or nbn.BatchNorm(3, dtype=np.float64, **options)
    if layer.gamma is not None:
        layer.gamma[...], layer.beta[...] = [1.0, 2.0, -3.0], [0.5, 0.0, 1.0]
    for seed in range(batches):
        layer(data(seed=seed) + seed)
    return layer


# ---- forward and backward ----


@pytest.mark.parametrize(("kind", "shape"), LAYERS)
def test_training_then_test_time(kind, shape):
    layer = kind(3, eps=1e-3, momentum=0.25)
    x = data(shape, dtype=np.float32)
    axes = tuple(a for a in range(x.ndim) if a != 1)
    y, _ = nbn.batch_norm_train(x, eps=1e-3)
    np.testing.assert_array_equal(layer(x), y)
    np.testing.assert_allclose(layer.running_mean, 0.25 * x.mean(axes), rtol=1e-5)
    n = x.size // 3
    var = 0.75 + 0.25 * x.var(axes) * n / (n - 1)
    np.testing.assert_allclose(layer.running_var, var, rtol=1e-5)
    assert layer.num_batches_tracked == 1
    before = layer.state_dict()
    expected = nbn.batch_norm(x, mean=layer.running_mean, var=layer.running_var, eps=1e-3)
    np.testing.assert_array_equal(layer.eval()(x), expected)
    for name, value in layer.state_dict().items():
        np.testing.assert_array_equal(value, before[name])


def test_train_and_eval_switch():
    layer = nbn.BatchNorm(3)
    assert layer.training
    assert layer.eval() is layer
    assert not layer.training
    assert layer.train() is layer
    assert layer.training
    assert not layer.train(False).training


def test_one_value_per_channel_is_fine_at_test_time():
    layer = trained().eval()
    y = layer(np.ones((1, 3)))
    expected = (1.0 - layer.running_mean) / np.sqrt(layer.running_var + layer.eps)
    np.testing.assert_allclose(y, [expected * layer.gamma + layer.beta])
    assert layer(np.ones((0, 3))).shape == (0, 3)


def test_backward_of_training():
    layer = trained()
    x, dy = data(), data(seed=9)
    layer(x)
    stats = nbn.channel_stats(x)
    expected = nbn.batch_norm_backward(dy, x, layer.gamma, stats=stats)
    np.testing.assert_allclose(layer.backward(dy), expected.dx)
    np.testing.assert_allclose(layer.dgamma, expected.dgamma)
    np.testing.assert_allclose(layer.dbeta, expected.dbeta)


def test_backward_of_test_time():
    layer = trained().eval()
    x, dy = data(), data(seed=9)
    layer(x)
    dx = layer.backward(dy)
    scale = layer.gamma / np.sqrt(layer.running_var + layer.eps)
    np.testing.assert_allclose(dx, dy * scale[:, None])
    np.testing.assert_allclose(layer.dbeta, dy.sum((0, 2)))


def test_backward_leaves_out_what_the_forward_left_out():
    layer = trained()
    x, dy = data(), data(seed=9)
    where = np.random.default_rng(3).random(x.shape) < 0.6
    layer(x, where=where)
    stats = nbn.channel_stats(x, where=where)
    expected = nbn.batch_norm_backward(dy, x, layer.gamma, stats=stats, where=where)
    np.testing.assert_allclose(layer.backward(dy), expected.dx)


@pytest.mark.parametrize("training", [True, False])
def test_in_place(training):
    plain, in_place = trained().train(training), trained().train(training)
    x, dy = data(), data(seed=9)
    expected = plain(x), plain.backward(dy), plain.dgamma
    buffer, gradient = x.copy(), dy.copy()
    assert in_place(buffer, out=buffer) is buffer
    np.testing.assert_array_equal(buffer, expected[0])
    assert in_place.backward(gradient, out=gradient) is gradient
    np.testing.assert_array_equal(gradient, expected[1])
    np.testing.assert_array_equal(in_place.dgamma, expected[2])


def test_out():
    layer, out = trained(), np.zeros((7, 3, 4))
    assert layer(data(), out=out) is out
    np.testing.assert_array_equal(out, trained()(data()))


def test_without_parameters():
    layer = nbn.BatchNorm(3, affine=False)
    assert (layer.gamma, layer.beta, layer.parameters()) == (None, None, [])
    np.testing.assert_array_equal(layer(data()), nbn.batch_norm(data()))
    np.testing.assert_allclose(layer.backward(np.ones((7, 3, 4))), 0, atol=1e-12)
    assert (layer.dgamma, layer.dbeta) == (None, None)
    assert sorted(layer.state_dict()) == ["num_batches_tracked", "running_mean", "running_var"]


@pytest.mark.parametrize("training", [True, False])
def test_without_tracking_the_batch_counts(training):
    layer = nbn.BatchNorm(3, track_running_stats=False).train(training)
    x, dy = data(), data(seed=9)
    np.testing.assert_array_equal(layer(x), nbn.batch_norm(x))
    expected = nbn.batch_norm_backward(dy, x, stats=nbn.channel_stats(x))
    np.testing.assert_allclose(layer.backward(dy), expected.dx)
    assert (layer.running_mean, layer.running_var, layer.num_batches_tracked) == (None, None, 0)
    assert sorted(layer.state_dict()) == ["bias", "weight"]


def test_without_momentum_the_statistics_are_those_of_the_data_set():
    layer = nbn.BatchNorm2d(3, momentum=None)
    images = data((23, 3, 4, 5)) * np.linspace(1, 9, 23)[:, None, None, None]
    for batch in np.split(images, [2, 9, 10]):
        layer(batch)
    np.testing.assert_allclose(layer.running_mean, images.mean((0, 2, 3)), rtol=1e-13)
    np.testing.assert_allclose(layer.running_var, images.var((0, 2, 3), ddof=1), rtol=1e-13)


def test_channels_last():
    first, last = nbn.BatchNorm2d(3), nbn.BatchNorm2d(3, channel_axis=-1)
    x = data((7, 3, 4, 5))
    np.testing.assert_allclose(np.moveaxis(last(np.moveaxis(x, 1, -1)), -1, 1), first(x))
    np.testing.assert_allclose(last.running_var, first.running_var)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dtype(dtype):
    layer = nbn.BatchNorm(3, dtype=dtype)
    assert [p.dtype for p in layer.parameters()] == [dtype, dtype]
    assert layer(data(dtype=np.float16)).dtype == np.float16
    layer.backward(data(dtype=np.float16))
    assert (layer.dgamma.dtype, layer.dbeta.dtype) == (dtype, dtype)
    assert layer.running_mean.dtype == np.float64


def test_halves_have_float32_parameters():
    assert nbn.BatchNorm(3, dtype=np.float16).gamma.dtype == np.float32


def test_parameters_are_those_in_use():
    layer = nbn.BatchNorm(3)
    gamma, beta = layer.parameters()
    gamma *= 2
    beta += 1
    np.testing.assert_array_equal(layer(data()), nbn.batch_norm(data(), gamma, beta))


def test_lists_and_copies():
    layer = trained()
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        np.testing.assert_array_equal(other.eval()(data().tolist()), trained().eval()(data()))


def test_momentum_is_fixed():
    layer = nbn.BatchNorm(3, momentum=0.3)
    assert layer.momentum == 0.3
    with pytest.raises(AttributeError):
        layer.momentum = 0.5
