"""Layers and running statistics on a device: what they take, and copies of them."""

import copy
import pickle

import numpy as np
import pytest

import numba_bn as nbn

X = np.random.default_rng(0).normal(size=(4, 3, 5)).astype(np.float32)
COPIES = {"deepcopy": copy.deepcopy, "pickle": lambda layer: pickle.loads(pickle.dumps(layer))}


def numbers(bench, **attributes):
    """What an update gives to its kernel beside addresses, after attributes were set."""
    running = nbn.RunningStats(3, correction=0)
    vars(running).update(attributes)
    running.update(nbn.batch_norm_train(bench.cupy.array(X))[1])
    return bench.driver.launched[-1].arguments[-3:]


@pytest.mark.parametrize("value", [1, np.float32(0.5), np.int64(1)])
@pytest.mark.parametrize("name", ["momentum", "correction"])
def test_numbers_of_any_class_reach_the_kernel_as_floats(bench, name, value):
    wanted = {"momentum": 0.1, "correction": 0.0, name: float(value)}
    *got, channels = numbers(bench, **{name: value})
    assert got == list(wanted.values())
    assert [type(number) for number in got] == [float, float]
    assert channels == 3


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("make", COPIES.values(), ids=COPIES)
def test_a_layer_is_copied_with_what_its_backward_needs(bench, make, training):
    layer, x = nbn.BatchNorm(3), bench.cupy.array(np.asfortranarray(X))
    layer.train(training)(x, where=bench.cupy.array(X > -1))
    other = make(layer)
    x.view[...] = 0  # the copy has an x of its own
    before = len(bench.driver.launched)
    dx = other.backward(bench.cupy.array(X))
    assert (dx.shape, dx.dtype) == (X.shape, X.dtype)
    kept = other._step.x
    np.testing.assert_array_equal(kept.owner.view, X)
    assert (kept.pointer, kept.strides) == (kept.owner.data.ptr, kept.owner.strides)
    addresses = {a for step in bench.driver.launched[before:] for a in step.arguments}
    assert kept.pointer in addresses
    assert x.data.ptr not in addresses
    assert other.running_mean.data.ptr != layer.running_mean.data.ptr


@pytest.mark.parametrize("make", COPIES.values(), ids=COPIES)
def test_statistics_are_copied(bench, make):
    stats = nbn.batch_norm_train(bench.cupy.array(X))[1]
    stats._moments.rows.owner.view[...] = np.arange(12.0).reshape(4, 3)
    other = make(stats)
    np.testing.assert_array_equal(other.count.view, [0.0, 1.0, 2.0])
    assert other.count.data.ptr != stats.count.data.ptr
    assert repr(other) == repr(stats)
