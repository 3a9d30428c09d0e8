"""Options and statistics refused: which error, in which words, before anything is compiled."""

import math

import numpy as np
import pytest
from calls import (
    CALLS,
    CHANNELS,
    LENGTH,
    NORMS,
    SHAPE,
    TRAINS,
    forbid_backends,
    refuses,
    stats,
    vector,
    x,
)


@pytest.fixture(autouse=True)
def no_backend(monkeypatch):
    forbid_backends(monkeypatch)


def function(call):
    return CALLS[call].function


EPSILONS = [
    (-1e-9, ValueError, "must be finite and >= 0, got -1e-09"),
    (-1, ValueError, "must be finite and >= 0, got -1"),
    (math.inf, ValueError, "must be finite and >= 0, got inf"),
    (10**400, ValueError, f"must be finite and >= 0, got {10**400}"),
    (-(10**400), ValueError, f"must be finite and >= 0, got {-(10**400)}"),
    (math.nan, ValueError, "must not be NaN"),
    (np.float32("nan"), ValueError, "must not be NaN"),
    ("1e-5", TypeError, "must be a real number, got '1e-5'"),
    (None, TypeError, "must be a real number, got None"),
    (True, TypeError, "must be a real number, got True"),
    (1j, TypeError, "must be a real number, got 1j"),
    ([1e-5], TypeError, "must be a real number, got [1e-05]"),
]


@pytest.mark.parametrize(("eps", "error", "text"), EPSILONS)
@pytest.mark.parametrize("call", [*NORMS, "fold_batch_norm"])
def test_eps(call, eps, error, text):
    refuses(call, error, f"{function(call)}: eps {text}", eps=eps)


AXES = [
    (3, np.exceptions.AxisError, "must lie in [-3, 3), got 3 for {0} of shape (4, 6, 5)"),
    (-4, np.exceptions.AxisError, "must lie in [-3, 3), got -4 for {0} of shape (4, 6, 5)"),
    (1.0, TypeError, "must be an integer, got 1.0"),
    ("1", TypeError, "must be an integer, got '1'"),
    (None, TypeError, "must be an integer, got None"),
    (True, TypeError, "must be an integer, got True"),
]
SEVERAL_AXES = [
    ((1, 1), ValueError, "must name distinct axes, got (1, 1) for x of shape (4, 6, 5)"),
    ((1, -2), ValueError, "must name distinct axes, got (1, -2) for x of shape (4, 6, 5)"),
    ((), ValueError, "must name distinct axes, got () for x of shape (4, 6, 5)"),
    ((1, 3), np.exceptions.AxisError, "must lie in [-3, 3), got 3 for x of shape (4, 6, 5)"),
    ((1, 2.0), TypeError, "must be an integer, got 2.0"),
]


def axis_name(call):
    if call == "fold_batch_norm":
        return "output_axis"
    return "axis" if CALLS[call].parameters == LENGTH else "channel_axis"


@pytest.mark.parametrize(("axis", "error", "text"), AXES)
@pytest.mark.parametrize("call", CALLS)
def test_axis(call, axis, error, text):
    name = axis_name(call)
    text = text.format("weight" if name == "output_axis" else "x")
    refuses(call, error, f"{function(call)}: {name} {text}", **{name: axis})


@pytest.mark.parametrize(("axis", "error", "text"), SEVERAL_AXES)
@pytest.mark.parametrize("call", [c for c in CALLS if c != "fold_batch_norm"])
def test_several_axes(call, axis, error, text):
    name = axis_name(call)
    refuses(call, error, f"{function(call)}: {name} {text}", **{name: axis})


def test_one_output_axis():
    text = "fold_batch_norm: output_axis must be an integer, got (0, 1)"
    refuses("fold_batch_norm", TypeError, text, output_axis=(0, 1))


@pytest.mark.parametrize("axis", [0, 1, (0, 1), (0, 2)])
@pytest.mark.parametrize("call", [c for c in CALLS if axis_name(c) == "axis"])
def test_axes_of_a_layer_norm_are_trailing(call, axis):
    text = (
        f"{function(call)}: axis must name the trailing axes, got {axis} for x of shape {SHAPE}; "
        "an int means that axis alone"
    )
    refuses(call, ValueError, text, axis=axis)


@pytest.mark.parametrize("axis", [0, -3, (0, 1)])
@pytest.mark.parametrize("call", [c for c in CALLS if c.startswith(("instance", "group"))])
def test_samples_are_no_channels(call, axis):
    text = (
        f"{function(call)}: channel_axis must not be 0, the axis of the samples, "
        f"got {axis} for x of shape {SHAPE}"
    )
    refuses(call, ValueError, text, channel_axis=axis)


GROUPS = [
    (4, ValueError, "must divide the number of channels, 6, got 4 for x of shape (4, 6, 5)"),
    (12, ValueError, "must divide the number of channels, 6, got 12 for x of shape (4, 6, 5)"),
    (0, ValueError, "must be at least 1, got 0"),
    (-2, ValueError, "must be at least 1, got -2"),
    (2.0, TypeError, "must be an integer, got 2.0"),
    (None, TypeError, "must be an integer, got None"),
]


@pytest.mark.parametrize(("groups", "error", "text"), GROUPS)
@pytest.mark.parametrize("call", ["group_norm", "group_norm_backward"])
def test_num_groups(call, groups, error, text):
    refuses(call, error, f"{call}: num_groups {text}", num_groups=groups)


RELUS = [np.array("relu"), np.array(["relu", "relu"])]  # equal to it, in a way


@pytest.mark.parametrize("value", ["tanh", "ReLU", 1, np.maximum, *RELUS])
@pytest.mark.parametrize("call", [c for c in NORMS if c.startswith("batch")])
def test_activation(call, value):
    text = f"{function(call)}: activation must be None or 'relu', got {value!r}"
    refuses(call, ValueError, text, activation=value)


def test_activation_needs_the_output_to_go_back_through():
    text = "batch_norm_backward: activation='relu' needs y, the forward's output"
    refuses("batch_norm_backward", ValueError, text, activation="relu")


@pytest.mark.parametrize("value", ["ignore", None, 1, np.array(["omit", "omit"])])
def test_nan_policy(value):
    text = f"channel_stats: nan_policy must be 'propagate', 'omit' or 'raise', got {value!r}"
    refuses("channel_stats", ValueError, text, nan_policy=value)


# ---- statistics: given, or nothing to take them from ----


@pytest.mark.parametrize("missing", ["mean", "var"])
def test_mean_and_var_go_together(missing):
    text = "batch_norm: mean and var must be given together, or neither"
    refuses("batch_norm-given", ValueError, text, **{missing: None})


@pytest.mark.parametrize("missing", ["mean", "var"])
def test_folding_needs_statistics(missing):
    text = f"fold_batch_norm: {missing} must be an array of shape (4,), got None"
    refuses("fold_batch_norm", TypeError, text, **{missing: None})


@pytest.mark.parametrize(
    "given",
    [
        {"stats": None},
        {"stats": None, "mean": vector()},
        {"stats": None, "var": vector()},
        {"mean": vector()},
        {"var": vector()},
        {"mean": vector(), "var": vector()},
    ],
)
def test_a_backward_has_one_kind_of_statistics(given):
    text = "batch_norm_backward: give either stats (training) or both mean and var (test time)"
    refuses("batch_norm_backward", ValueError, text, **given)


def test_stats_of_another_kind():
    text = "batch_norm_backward: stats must be a ChannelStats, got tuple"
    refuses("batch_norm_backward", TypeError, text, stats=(vector(), vector()))


def test_stats_of_another_length():
    text = "batch_norm_backward: stats.mean must have shape (6,), got (5,) for x of shape (4, 6, 5)"
    text += "; axis -1 has length 5: channel_axis=-1?"
    short = type(stats())(np.ones(5), np.ones(5), np.ones(5))
    refuses("batch_norm_backward", ValueError, text, stats=short)


def test_stats_without_values():
    text = "batch_norm_backward: stats must have counted values in every channel, "
    empty = stats()
    empty.count[2] = 0
    refuses("batch_norm_backward", ValueError, f"{text}got {empty.count}", stats=empty)


@pytest.mark.parametrize("shape", [(0, CHANNELS, 5), (4, CHANNELS, 0)])
@pytest.mark.parametrize("call", TRAINS)
def test_an_empty_batch(call, shape):
    text = f"{call}: no values to take statistics of in x of shape {shape}"
    refuses(call, ValueError, text, x=np.ones(shape), residual=None)


@pytest.mark.parametrize("channel", [0, 3])
@pytest.mark.parametrize("call", TRAINS)
def test_a_fully_masked_channel(call, channel):
    where = np.ones(SHAPE, bool)
    where[:, channel] = False
    text = f"{call}: where leaves no values in channel {channel} of x of shape {SHAPE}"
    refuses(call, ValueError, text, where=where)
    refuses(call, ValueError, text, where=where, x=np.asfortranarray(x()), out=x())
