"""What a layer refuses, and that an error leaves the layer and ``out`` as they were."""

import numpy as np
import pytest
from test_layers import data, trained

import numba_bn as nbn


def state(layer):
    """All that a layer holds, to compare."""
    held = {**layer.state_dict(), "dgamma": layer.dgamma, "dbeta": layer.dbeta}
    return {**held, "training": layer.training, "step": layer._step}


def assert_unchanged(layer, before):
    after = state(layer)
    assert after.keys() == before.keys()
    assert after.pop("step") is before["step"]
    for name, value in after.items():
        np.testing.assert_array_equal(value, before[name])


MASK = np.ones((7, 3, 4), bool)
MASK[:, 1] = False
MASK[2, 1, 3] = True
NOBODY = MASK.copy()
NOBODY[:, 1] = False
CALLS = [
    (np.ones((1, 3)), {}, "expected more than 1 value per channel in training, got x of "
     "shape (1, 3)"),
    (data(), {"where": MASK}, "expected more than 1 value per channel in training, got x of "
     "shape (7, 3, 4) with this where"),
    (np.ones((7, 4)), {}, "expected 3 channels along axis 1, got 4 for x of shape (7, 4)"),
    (np.ones((8, 9, 9, 3)), {}, "expected 3 channels along axis 1, got 9 for x of shape "
     "(8, 9, 9, 3); axis -1 has length 3: channel_axis=-1?"),
]  # fmt: skip


@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize(("x", "options", "text"), CALLS)
def test_a_call_that_fails(x, options, text, momentum):
    layer = trained(momentum=momentum)
    before, given, out = state(layer), x.copy(), x.copy()
    for target in (out, x):
        with pytest.raises(ValueError, match="got") as caught:
            layer(x, out=target, **options)
        assert str(caught.value) == f"BatchNorm: {text}"
        assert_unchanged(layer, before)
        np.testing.assert_array_equal(target, given)


OTHERS = [
    (np.ones((0, 3)), {}, ValueError, "batch_norm_train: no values to take statistics of"),
    (data(), {"where": NOBODY}, ValueError, "batch_norm_train: where leaves no values in chan"),
    (data(), {"where": data()}, TypeError, "BatchNorm: where must have dtype bool"),
    (data(), {"out": data()[1:]}, ValueError, "batch_norm_train: out must have the shape of x"),
    (data(), {"out": "y"}, TypeError, "batch_norm_train: out must be a NumPy array, got str"),
    (np.ones(3), {}, np.exceptions.AxisError, "BatchNorm: channel_axis must lie in"),
    (object(), {}, TypeError, "BatchNorm: x must be a NumPy array, got object"),
    (np.ma.masked_array(data()), {}, TypeError, "BatchNorm: x must be a NumPy array, got Mask"),
    (data() > 0, {}, TypeError, "batch_norm_train: x must have a real floating-point"),
]


@pytest.mark.parametrize(("x", "options", "error", "text"), OTHERS)
def test_other_calls_that_fail(x, options, error, text):
    layer = trained()
    before = state(layer)
    with pytest.raises(error, match=f"^{text}"):
        layer(x, **options)
    assert_unchanged(layer, before)


def test_a_backward_that_fails():
    layer = trained()
    before = state(layer)
    with pytest.raises(ValueError, match=r"^batch_norm_backward: dy must have the shape of x"):
        layer.backward(np.ones((7, 3)))
    assert_unchanged(layer, before)
    with pytest.raises(ValueError, match=r"^BatchNorm2d.backward: call the layer on x first$"):
        nbn.BatchNorm2d(3).backward(data())


@pytest.mark.parametrize(
    ("kind", "ndim", "wanted"),
    [
        (nbn.BatchNorm1d, 1, "2-D or 3-D"),
        (nbn.BatchNorm1d, 4, "2-D or 3-D"),
        (nbn.BatchNorm2d, 3, "4-D"),
        (nbn.BatchNorm2d, 5, "4-D"),
        (nbn.BatchNorm3d, 4, "5-D"),
    ],
)
def test_number_of_dimensions(kind, ndim, wanted):
    shape = (3,) * ndim
    with pytest.raises(ValueError, match="expected") as caught:
        kind(3)(np.ones(shape))
    text = f"{kind.__name__}: expected {wanted} x, got {ndim}-D of shape {shape}"
    assert str(caught.value) == text


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"num_channels": 0}, ValueError, "num_channels must be at least 1, got 0"),
        ({"num_channels": "3"}, TypeError, "num_channels must be an integer, got '3'"),
        ({"momentum": 2}, ValueError, "momentum must lie in [0, 1] or be None, got 2"),
        ({"momentum": np.nan}, ValueError, "momentum must not be NaN"),
        ({"eps": -1.0}, ValueError, "eps must be finite and >= 0, got -1.0"),
        ({"channel_axis": 1.0}, TypeError, "channel_axis must be an integer, got 1.0"),
        ({"channel_axis": (1, 2)}, TypeError, "channel_axis must be an integer, got (1, 2)"),
        ({"dtype": complex}, TypeError, "dtype must be a real floating-point dtype, got "
         "complex128"),
        ({"dtype": int}, TypeError, "dtype must be a real floating-point dtype, got int64"),
        ({"dtype": "wide"}, TypeError, "dtype must name a dtype, got 'wide': data type 'wide' not "
         "understood"),
    ],
)  # fmt: skip
def test_options_that_do_not_fit(options, error, text):
    with pytest.raises(error) as caught:
        nbn.BatchNorm3d(**{"num_channels": 3, **options})
    assert str(caught.value) == f"BatchNorm3d: {text}"
