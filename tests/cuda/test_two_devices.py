"""Arrays on more than one device, or on one that is not current."""

import numpy as np
import pytest

import numba_bn as nbn


def test_arrays_of_two_devices_are_refused_by_name(bench):
    x = bench.cupy.array(np.ones((2, 4), np.float32))
    gamma = bench.cupy.ndarray(x.view[0], 1)
    with pytest.raises(TypeError) as caught:
        nbn.batch_norm(x, gamma)
    assert str(caught.value) == (
        "batch_norm: all arrays must be on one device, got x on cuda:0 and gamma on cuda:1"
    )


def test_what_a_layer_or_statistics_kept_on_another_device_is_refused_by_name(bench):
    x = bench.cupy.array(np.ones((2, 4), np.float32))
    elsewhere = bench.cupy.ndarray(x.view, 1)
    layer = nbn.BatchNorm(4)
    layer(x)
    stats = nbn.batch_norm_train(elsewhere)[1]
    before = len(bench.driver.launched)
    for wrong, named in [
        (lambda: layer.backward(elsewhere), "x on cuda:0 and dy on cuda:1"),
        (lambda: nbn.batch_norm_backward(x, x, stats=stats), "x on cuda:0 and stats on cuda:1"),
    ]:
        with pytest.raises(TypeError, match=f"must be on one device, got {named}"):
            wrong()
    assert len(bench.driver.launched) == before


def test_a_library_computes_on_the_device_of_the_arrays_that_it_is_given(bench):
    make = lambda a: bench.cupy.ndarray(bench.cupy.array(a).view, 1)  # noqa: E731
    wide = make(np.ones((4, 6), np.float32))
    strided = bench.cupy.ndarray(wide.view[:, ::2], 1)
    y = nbn.batch_norm(strided, make(np.ones(3, np.int64)), out=strided)
    assert y is strided
    given = make(np.ones((4, 6), bool))
    stats = nbn.channel_stats(wide, where=given, nan_policy="omit")
    assert stats.mean.device.id == 1
    gradients = nbn.layer_norm_backward(wide, wide, make(np.ones(6, np.float32)))
    assert gradients.dgamma.device.id == 1
