"""A batch norm folded into the layer before it: the same output, for every kind of layer."""

import numpy as np
import pytest

import numba_bn as nbn

RNG = np.random.default_rng(0)
GAMMA, BETA, MEAN, BIAS = RNG.normal(size=(4, 5))
VAR = RNG.uniform(0.5, 2.0, 5)
NORM = {"mean": MEAN, "var": VAR, "eps": 1e-3}


def dense(x, weight, bias):
    """(N, in) by (out, in) → (N, out)."""
    return x @ weight.T + bias


def convolution(x, weight, bias):
    """(N, in, L) by (out, in, K) → (N, out, L - K + 1)."""
    windows = np.lib.stride_tricks.sliding_window_view(x, weight.shape[2], axis=2)
    return np.einsum("nilk,oik->nol", windows, weight) + bias[:, None]


LAYERS = {"dense": (dense, (6, 3), (5, 3)), "convolution": (convolution, (6, 3, 9), (5, 3, 2))}


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("missing", [(), ("bias",), ("gamma",), ("beta",), ("gamma", "beta")])
def test_gives_what_layer_and_norm_gave(layer, missing):
    compute, x_shape, weight_shape = LAYERS[layer]
    x, weight = RNG.normal(size=x_shape), RNG.normal(size=weight_shape)
    given = {"bias": BIAS, "gamma": GAMMA, "beta": BETA}
    given = {name: None if name in missing else value for name, value in given.items()}
    bias = np.zeros(5) if given["bias"] is None else given["bias"]
    expected = nbn.batch_norm(compute(x, weight, bias), given["gamma"], given["beta"], **NORM)
    folded = nbn.fold_batch_norm(weight, **given, **NORM)
    np.testing.assert_allclose(compute(x, *folded), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("axis", [0, 1, 2, -1])
def test_output_axis(axis):
    weight = RNG.normal(size=(5, 3, 2))
    expected, bias = nbn.fold_batch_norm(weight, BIAS, GAMMA, BETA, **NORM)
    moved = np.moveaxis(weight, 0, axis)
    got = nbn.fold_batch_norm(moved, BIAS, GAMMA, BETA, **NORM, output_axis=axis)
    np.testing.assert_array_equal(got[0], np.moveaxis(expected, 0, axis))
    np.testing.assert_array_equal(got[1], bias)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_dtype_is_the_weights(dtype):
    weight = RNG.normal(size=(5, 3)).astype(dtype)
    before = weight.copy()
    got = nbn.fold_batch_norm(weight, BIAS, GAMMA, BETA, **NORM)
    assert (got[0].dtype, got[1].dtype) == (dtype, dtype)
    exact = nbn.fold_batch_norm(weight.astype(np.float64), BIAS, GAMMA, BETA, **NORM)
    for a, b in zip(got, exact, strict=True):
        np.testing.assert_array_equal(a, b.astype(dtype))  # rounded once, at the end
    np.testing.assert_array_equal(weight, before)


def test_a_channel_without_spread_is_mapped_to_beta_as_at_test_time():
    mean, var = [1.0, 2.0], [0.0, 4.0]
    y = nbn.batch_norm([[1.0, 4.0]], None, [7.0, 0.0], mean=mean, var=var, eps=0.0)
    np.testing.assert_array_equal(y, [[7.0, 1.0]])
    weight, bias = nbn.fold_batch_norm(np.eye(2), None, None, [7.0, 0.0], mean, var, eps=0.0)
    np.testing.assert_array_equal([[1.0, 4.0]] @ weight.T + bias, y)


def test_a_trained_layer_folds():
    layer = nbn.BatchNorm(5, dtype=np.float64)
    weight = RNG.normal(size=(5, 3))
    for _ in range(3):
        layer(dense(RNG.normal(size=(8, 3)), weight, BIAS))
    layer.gamma[...], layer.beta[...] = GAMMA, BETA
    x = RNG.normal(size=(6, 3))
    folded = nbn.fold_batch_norm(
        weight, BIAS, layer.gamma, layer.beta, layer.running_mean, layer.running_var, eps=layer.eps
    )
    expected = layer.eval()(dense(x, weight, BIAS))
    np.testing.assert_allclose(dense(x, *folded), expected, rtol=1e-12, atol=1e-12)


def test_as_pytorch_folds():
    torch = pytest.importorskip("torch")
    from torch.nn.utils.fusion import fuse_conv_bn_weights

    weight = RNG.normal(size=(5, 3, 2))
    given = [torch.from_numpy(a) for a in (weight, BIAS, MEAN, VAR)]
    norm = [torch.from_numpy(a) for a in (GAMMA, BETA)]
    expected = fuse_conv_bn_weights(*given, 1e-3, *norm)
    got = nbn.fold_batch_norm(weight, BIAS, GAMMA, BETA, **NORM)
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_allclose(a, b.detach().numpy(), rtol=1e-12)
