"""A layer's state: on disk, from PyTorch, and refused."""

import numpy as np
import pytest
from test_layers import data, trained
from test_layers_errors import assert_unchanged, state

import numba_bn as nbn

KEYS = ["bias", "num_batches_tracked", "running_mean", "running_var", "weight"]


def assert_alike(one, other):
    """Assert that two layers do the same, at test time and in further training."""
    x = data(seed=7)
    np.testing.assert_allclose(one.eval()(x), other.eval()(x), rtol=1e-13)
    one.train()(x)
    other.train()(x)
    for name, value in one.state_dict().items():
        np.testing.assert_allclose(value, other.state_dict()[name], rtol=1e-13)


@pytest.mark.parametrize("momentum", [0.2, None])
def test_a_state_goes_through_a_file(tmp_path, momentum):
    layer = trained(momentum=momentum)
    np.savez(tmp_path / "state.npz", **layer.state_dict())
    other = nbn.BatchNorm(3, dtype=np.float64, momentum=momentum)
    with np.load(tmp_path / "state.npz", allow_pickle=False) as file:
        other.load_state_dict(file)
    assert other.num_batches_tracked == 3
    assert_alike(layer, other)


def test_keys_are_those_of_pytorch():
    assert sorted(trained().state_dict()) == KEYS
    assert sorted(trained(momentum=None).state_dict()) == sorted([*KEYS, "running_count"])
    assert trained().state_dict()["num_batches_tracked"].shape == ()


def test_a_state_is_a_copy():
    layer = trained()
    taken = layer.state_dict()
    before = {name: value.copy() for name, value in taken.items()}
    layer(data())
    layer.gamma += 1
    for name, value in taken.items():
        np.testing.assert_array_equal(value, before[name])
    other = nbn.BatchNorm(3)
    other.load_state_dict(taken)
    for value in taken.values():
        value[...] = 77
    np.testing.assert_array_equal(other.running_mean, before["running_mean"])
    np.testing.assert_array_equal(other.gamma, before["weight"])


def test_dtype_is_the_layers_own():
    layer = nbn.BatchNorm(3, dtype=np.float32)
    layer.load_state_dict(trained().state_dict())
    assert (layer.gamma.dtype, layer.running_mean.dtype) == (np.float32, np.float64)


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("tracking", [True, False])
def test_a_state_from_pytorch(affine, tracking):
    torch = pytest.importorskip("torch")
    theirs = torch.nn.BatchNorm1d(3, affine=affine, track_running_stats=tracking).double()
    if affine:
        torch.nn.init.normal_(theirs.weight)
        torch.nn.init.normal_(theirs.bias)
    for seed in range(3):
        theirs(torch.from_numpy(data(seed=seed)))
    ours = nbn.BatchNorm1d(3, affine=affine, track_running_stats=tracking, dtype=np.float64)
    ours.load_state_dict({name: value.numpy() for name, value in theirs.state_dict().items()})
    for training in (False, True, False):
        x = data(seed=5 + training)
        expected = theirs.train(training)(torch.from_numpy(x)).detach().numpy()
        np.testing.assert_allclose(ours.train(training)(x), expected, rtol=1e-12, atol=1e-12)
    for name, value in theirs.state_dict().items():
        np.testing.assert_allclose(ours.state_dict()[name], value.numpy(), rtol=1e-12)


def test_a_state_to_pytorch():
    torch = pytest.importorskip("torch")
    ours = trained()
    theirs = torch.nn.BatchNorm1d(3).double()
    theirs.load_state_dict({k: torch.from_numpy(v) for k, v in ours.state_dict().items()})
    expected = theirs.eval()(torch.from_numpy(data())).detach().numpy()
    np.testing.assert_allclose(ours.eval()(data()), expected, rtol=1e-12, atol=1e-12)


def test_exact_statistics_need_the_count_to_go_on():
    loaded = nbn.BatchNorm(3, momentum=None)
    loaded.load_state_dict(trained().state_dict())
    loaded.eval()(data())
    loaded.train()
    before, x = state(loaded), data()
    with pytest.raises(ValueError, match="needs the number of values seen so far"):
        loaded(x, out=x)
    assert_unchanged(loaded, before)
    np.testing.assert_array_equal(x, data())
    with pytest.raises(ValueError, match=r"^RunningStats.update: momentum=None needs the number"):
        loaded.running.update(nbn.channel_stats(data()))


def without(*names):
    return {k: v for k, v in trained().state_dict().items() if k not in names}


STATES = [
    (without("weight"), ValueError, "missing keys ['weight'], unexpected keys []"),
    (
        {**without("weight", "bias"), "gamma": np.ones(3)},
        ValueError,
        "missing keys ['bias', 'weight'], unexpected keys ['gamma']",
    ),
    (
        {**without(), "running_var": np.ones(4)},
        ValueError,
        "running_var must have shape (3,), got (4,)",
    ),
    (
        {**without(), "num_batches_tracked": [1]},
        ValueError,
        "num_batches_tracked must have shape (), got (1,)",
    ),
    (
        {**without(), "num_batches_tracked": np.nan},
        TypeError,
        "num_batches_tracked must be an integer, got nan",
    ),
    (
        {**without(), "bias": np.ones(3, bool)},
        TypeError,
        "bias must have a real floating-point or integer dtype, got bool; "
        "convert it with bias.astype(np.uint8)",
    ),
    (
        {**without(), "running_mean": {1, 2, 3}},
        TypeError,
        "running_mean must be a NumPy array, got set; convert it with np.asarray first",
    ),
    ([1, 2], TypeError, "state must be a mapping, got list"),
    ({**without(), 1: 2, "a": 3}, ValueError, "missing keys [], unexpected keys [1, 'a']"),
]


@pytest.mark.parametrize(("given", "error", "text"), STATES)
def test_states_that_do_not_fit(given, error, text):
    layer = trained(batches=1)
    before = state(layer)
    with pytest.raises(error) as caught:
        layer.load_state_dict(given)
    assert str(caught.value) == f"BatchNorm.load_state_dict: {text}"
    assert_unchanged(layer, before)


@pytest.mark.parametrize("name", ["weight", "bias"])
def test_a_value_too_large_for_the_layer_changes_nothing(name):
    """The parameter that does not fit float32 may come after one that does."""
    layer = nbn.BatchNorm(3)
    before = state(layer)
    with pytest.raises(RuntimeWarning, match="overflow"):
        layer.load_state_dict({**without(), name: np.full(3, 1e300)})
    assert_unchanged(layer, before)


def test_the_number_of_batches_may_be_missing():
    layer = nbn.BatchNorm(3)
    layer.load_state_dict(without("num_batches_tracked"))
    assert layer.num_batches_tracked == 0
    np.testing.assert_array_equal(layer.running_var, trained().running_var)
