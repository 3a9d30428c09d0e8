"""The layers, the optimizer and the training of `examples/digits.py`."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
import pytest
from digits_example import CLASSES, EXAMPLES, SIZE, save_blobs

sys.path.insert(0, str(EXAMPLES))

from _data import Dataset, load_dataset
from _network import Adam, Conv, MaxPool, Network, build_network, cross_entropy
from _training import (
    BATCH_SIZE,
    EarlyStopping,
    Epoch,
    batches,
    evaluate,
    predict,
    train,
    with_exact_statistics,
    with_folded_norm,
)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


@pytest.fixture
def data(tmp_path: Path, rng: np.random.Generator) -> Dataset:
    return load_dataset(save_blobs(tmp_path, rng), rng)


@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("model", ["mlp", "cnn"])
def test_gradients_match_numerical_ones(rng: np.random.Generator, model: str, norm: bool) -> None:
    network = build_network(model, SIZE, CLASSES, rng, norm=norm, dtype=np.float64)
    x, labels = rng.normal(size=(5, 1, *SIZE)), rng.integers(0, CLASSES, 5)
    dx = network.backward(cross_entropy(network(x), labels)[1])
    pairs = [(x, dx), *((p, np.array(gradient)) for p, gradient in network.parameters())]
    assert len(pairs) == 1 + (5 if norm else 4)
    for values, gradient in pairs:
        assert gradient.shape == values.shape
        for _ in range(20):
            where = tuple(rng.integers(values.shape))
            kept, losses = values[where], []
            for step in (1e-6, -1e-6):
                values[where] = kept + step
                losses.append(cross_entropy(network(x), labels)[0])
            values[where] = kept
            numerical = (losses[0] - losses[1]) / 2e-6
            assert gradient[where] == pytest.approx(numerical, rel=1e-5, abs=1e-8)


def test_conv_is_the_sum_over_each_window(rng: np.random.Generator) -> None:
    conv = Conv((4, 2, 3, 3), rng, dtype=np.float64)
    conv.bias = rng.normal(size=4)
    x = rng.normal(size=(3, 2, *SIZE))
    y = conv(x)
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    assert y.shape == (3, 4, *SIZE)
    for n, o, i, j in [(0, 0, 0, 0), (1, 2, 3, 4), (2, 3, 6, 5)]:
        expected = (padded[n, :, i : i + 3, j : j + 3] * conv.weight[o]).sum() + conv.bias[o]
        assert y[n, o, i, j] == pytest.approx(expected)


def test_max_pool_takes_the_largest_and_leaves_out_odd_rows() -> None:
    pool = MaxPool()
    x = np.arange(9.0).reshape(1, 1, 3, 3)
    assert pool(x).tolist() == [[[[4.0]]]]
    expected = [[0, 0, 0], [0, 5, 0], [0, 0, 0]]
    assert pool.backward(np.array([[[[5.0]]]]))[0, 0].tolist() == expected


def test_max_pool_shares_the_gradient_among_equals() -> None:
    pool = MaxPool()
    pool(np.array([[[[2.0, 2.0], [1.0, 0.0]]]]))
    assert pool.backward(np.array([[[[6.0]]]]))[0, 0].tolist() == [[3.0, 3.0], [0.0, 0.0]]


def test_cross_entropy_of_known_probabilities() -> None:
    loss, gradient = cross_entropy(np.log([[0.25, 0.75], [0.5, 0.5]]), np.array([0, 1]))
    assert loss == pytest.approx(-math.log(0.25) / 2 - math.log(0.5) / 2)
    np.testing.assert_allclose(gradient, [[-0.375, 0.375], [0.25, -0.25]])
    assert cross_entropy(np.array([[1e4, -1e4]]), np.array([1]))[0] == pytest.approx(2e4)


def test_first_step_of_adam_is_the_learning_rate_against_the_gradient(
    rng: np.random.Generator,
) -> None:
    network = build_network("mlp", SIZE, CLASSES, rng, dtype=np.float64)
    before = [parameter.copy() for parameter, _ in network.parameters()]
    adam = Adam(network, learning_rate=0.01)
    network.backward(cross_entropy(network(rng.normal(size=(8, 1, *SIZE))), np.zeros(8, int))[1])
    adam.step()
    for old, (new, gradient) in zip(before, network.parameters(), strict=True):
        moved = np.abs(gradient) > 1e-4
        expected = -0.01 * np.sign(gradient[moved])
        np.testing.assert_allclose((new - old)[moved], expected, rtol=1e-3)


@pytest.mark.parametrize("model", ["mlp", "cnn"])
def test_the_layer_before_the_norm_has_no_bias(rng: np.random.Generator, model: str) -> None:
    def biases(norm: bool) -> list[bool]:
        layers = build_network(model, SIZE, CLASSES, rng, norm=norm).layers
        return [layer.bias is not None for layer in layers if hasattr(layer, "bias")]

    assert biases(norm=True) == [False, True]
    assert biases(norm=False) == [True, True]


@pytest.mark.parametrize("n", [2, 63, 64, 65, 129, 1149])
def test_no_batch_has_a_single_sample(n: int) -> None:
    parts = batches(np.arange(n))
    assert np.concatenate(parts).tolist() == list(range(n))
    assert all(2 <= len(part) <= BATCH_SIZE for part in parts)


def test_early_stopping_restores_the_best_model(rng: np.random.Generator) -> None:
    network = build_network("mlp", SIZE, CLASSES, rng)
    weight = network.parameters()[0][0]
    stopping = EarlyStopping(network, patience=3, delta=0.001)
    losses = [1.0, 0.5, 0.4, 0.3995, 0.6, 0.45]  # 0.3995 is not better by delta
    stops = []
    for number, loss in enumerate(losses, 1):
        weight[...] = number
        stops.append(stopping.update(Epoch(number, 0.0, loss, 0.0), network))
    assert stops == [False] * 5 + [True]
    assert (stopping.best_epoch, stopping.best_loss) == (3, 0.4)
    assert (stopping.best.parameters()[0][0] == 3).all()


def test_early_stopping_survives_a_loss_that_is_nan(rng: np.random.Generator) -> None:
    network = build_network("mlp", SIZE, CLASSES, rng)
    stopping = EarlyStopping(network, patience=2)
    stops = [stopping.update(Epoch(i, math.nan, math.nan, 0.1), network) for i in (1, 2)]
    assert stops == [False, True]
    assert stopping.best_epoch == 0


@pytest.fixture(params=["mlp", "cnn"])
def trained(request: pytest.FixtureRequest, data: Dataset, rng: np.random.Generator) -> Network:
    pytest.importorskip("tqdm")
    network = build_network(request.param, SIZE, CLASSES, rng)
    epochs = list(train(network, data, rng, epochs=6, learning_rate=0.01))
    assert [epoch.number for epoch in epochs] == [1, 2, 3, 4, 5, 6]
    assert epochs[-1].train_loss < epochs[0].train_loss
    return network


def test_training_learns(trained: Network, data: Dataset) -> None:
    assert evaluate(trained, data.test)[1] > 0.9


def test_folded_network_predicts_the_same(trained: Network, data: Dataset) -> None:
    folded = with_folded_norm(trained)
    assert len(folded.layers) == len(trained.layers) - 1
    expected, got = predict(trained, data.test.images), predict(folded, data.test.images)
    np.testing.assert_allclose(got, expected, atol=1e-4)
    assert (got.argmax(axis=1) == expected.argmax(axis=1)).all()


def test_exact_statistics_are_those_of_the_data_set(trained: Network, data: Dataset) -> None:
    running = [layer.running_mean for layer in trained.layers if hasattr(layer, "running_mean")]
    exact = with_exact_statistics(trained, data.train.images)
    (i,) = (i for i, layer in enumerate(exact.layers) if hasattr(layer, "running_mean"))
    x = Network(exact.layers[:i])(data.train.images)
    x = np.moveaxis(x, 1, -1).reshape(-1, x.shape[1]).astype(np.float64)
    np.testing.assert_allclose(exact.layers[i].running_mean, x.mean(axis=0), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(exact.layers[i].running_var, x.var(axis=0, ddof=1), rtol=1e-5)
    assert not np.allclose(running[0], exact.layers[i].running_mean)
    assert trained.layers[i].running_mean is running[0]
