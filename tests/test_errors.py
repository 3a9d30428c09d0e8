"""What goes in, refused: which error, in which words, before anything is compiled or changed."""

import math

import ml_dtypes
import numpy as np
import pytest
from calls import (
    CALLS,
    CHANNELS,
    LENGTH,
    LIKE_X,
    NORMS,
    PARAMETERS,
    SHAPE,
    TAKES_WHERE,
    TRAINS,
    forbid_backends,
    places,
    refuses,
    stats,
    vector,
    x,
)

ARRAYS = places("x", "weight", *LIKE_X, *PARAMETERS)


@pytest.fixture(autouse=True)
def no_backend(monkeypatch):
    forbid_backends(monkeypatch)


def function(call):
    return CALLS[call].function


def test_this_file_sees_a_backend_that_is_touched():
    with pytest.raises(pytest.fail.Exception):
        CALLS["layer_norm"]()


# ---- kinds: never np.asarray a stranger ----


def stranger(kind):
    """An array of a kind that numba_bn does not know, by the name of its class."""

    def convert(self, *_, **__):
        pytest.fail(f"a {kind} was converted")

    return type(kind, (), {"__array__": convert, "shape": SHAPE, "dtype": np.dtype("f4")})()


KINDS = {
    "MaskedArray": (
        np.ma.masked_equal(np.arange(30.0), 3.0),
        "pass {0}.filled(...); where=~x.mask leaves values of x out",
    ),
    "matrix": (np.ones((2, 2)).view(np.matrix), "pass np.asarray({0})"),
    "DataFrame": (stranger("DataFrame"), "pass {0}.to_numpy()"),
    "Series": (stranger("Series"), "pass {0}.to_numpy()"),
    "DataArray": (stranger("DataArray"), "pass {0}.data"),
    "Tensor": (stranger("Tensor"), "pass {0}.detach().numpy()"),
    "Lazy": (stranger("Lazy"), "convert it with np.asarray first"),
    "recarray": (np.zeros(3, "f4,f4").view(np.recarray), "convert it with np.asarray first"),
    "set": ({1.0, 2.0}, "convert it with np.asarray first"),
    "str": ("1 2 3", "convert it with np.asarray first"),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("call", "name"), [*ARRAYS, *((c, "where") for c in TAKES_WHERE)])
def test_unknown_kind_of_array(call, name, kind):
    value, hint = KINDS[kind]
    text = f"{function(call)}: {name} must be a NumPy array, got {kind}; {hint.format(name)}"
    refuses(call, TypeError, text, **{name: value})


@pytest.mark.parametrize(("call", "name"), ARRAYS)
def test_ragged_list(call, name):
    with pytest.raises(ValueError, match=f"^{function(call)}: {name} must be an array of numbers"):
        CALLS[call](**{name: [[1.0], [1.0, 2.0]]})


# ---- dtypes ----

DTYPES = {
    "bool": "convert it with {0}.astype(np.uint8)",
    "complex64": "convert it with {0}.astype(np.float64)",
    "complex128": "convert it with {0}.astype(np.float64)",
    "object": "convert it with {0}.astype(np.float64)",
    "<U3": "convert it with {0}.astype(np.float64)",
    "|S3": "convert it with {0}.astype(np.float64)",
    "float8_e4m3fn": "convert it with {0}.astype(np.float64)",
    np.dtype(np.longdouble).name: "convert it with {0}.astype(np.float64)",
    "datetime64[s]": "convert it with {0}.astype(np.float64)",
    "[('a', '<f4'), ('b', '<f4')]": "take one of its fields, {0}['a']",
}


def dtype_named(text):
    if text.startswith("["):
        return np.dtype([("a", "<f4"), ("b", "<f4")])
    return np.dtype(ml_dtypes.float8_e4m3fn if text.startswith("float8") else text)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("call", "name"), ARRAYS)
def test_dtype_without_a_norm(call, name, dtype):
    value = np.zeros_like(CALLS[call].arguments()[name], dtype_named(dtype))
    text = (
        f"{function(call)}: {name} must have a real floating-point or integer dtype, "
        f"got {dtype}; {DTYPES[dtype].format(name)}"
    )
    refuses(call, TypeError, text, **{name: value})


@pytest.mark.parametrize("call", TAKES_WHERE)
def test_where_is_boolean(call):
    text = f"{function(call)}: where must have dtype bool, got float32"
    refuses(call, TypeError, text, where=x())


# ---- shapes ----


@pytest.mark.parametrize("wrong", [(3,), (1,), (), (2, 3), (0,)])
@pytest.mark.parametrize(("call", "name"), places(*PARAMETERS))
def test_parameter_of_another_shape(call, name, wrong):
    of = "weight" if call == "fold_batch_norm" else "x"
    text = (
        f"{function(call)}: {name} must have shape ({CALLS[call].parameters},), "
        f"got {wrong} for {of} of shape {SHAPE}"
    )
    refuses(call, ValueError, text, **{name: np.ones(wrong)})


@pytest.mark.parametrize("wrong", [(4, 6), (4, 6, 1), (5, 6, 4), ()])
@pytest.mark.parametrize(("call", "name"), places(*LIKE_X))
def test_array_not_of_the_shape_of_x(call, name, wrong):
    text = f"{function(call)}: {name} must have the shape of x, {SHAPE}, got {wrong}"
    refuses(call, ValueError, text, **{name: np.ones(wrong)})


@pytest.mark.parametrize("wrong", [(4, 6), (3, 6, 5), (1, 4, 6, 5)])
@pytest.mark.parametrize("call", TAKES_WHERE)
def test_where_that_does_not_broadcast(call, wrong):
    text = f"{function(call)}: where must broadcast to the shape of x, {SHAPE}, got {wrong}"
    refuses(call, ValueError, text, where=np.ones(wrong, bool))


IMAGES = (8, 32, 32, 3)
HINTS = [
    ("batch_norm", 3, "; axis -1 has length 3: channel_axis=-1?"),
    ("batch_norm_train", 3, "; axis -1 has length 3: channel_axis=-1?"),
    ("batch_norm_backward-given", 3, "; axis -1 has length 3: channel_axis=-1?"),
    ("instance_norm", 3, "; axis -1 has length 3: channel_axis=-1?"),
    ("group_norm", 3, "; axis -1 has length 3: channel_axis=-1?"),
    ("batch_norm", 8, "; axis 0 has length 8: channel_axis=0?"),
    ("instance_norm", 8, ""),
    ("batch_norm", 7, ""),
    ("layer_norm", 8, ""),
    ("rms_norm", 8, ""),
]


@pytest.mark.parametrize(("call", "length", "hint"), HINTS)
def test_channels_last_data_under_the_default_is_pointed_out(call, length, hint):
    images = np.ones(IMAGES, np.float32)
    channels = 3 if CALLS[call].parameters == LENGTH else 32
    text = (
        f"{function(call)}: gamma must have shape ({channels},), got ({length},) "
        f"for x of shape {IMAGES}{hint}"
    )
    rest = {"x": images, "dy": images, "residual": None}
    rest = {name: rest[name] for name in CALLS[call].arguments() if name in rest}
    refuses(call, ValueError, text, gamma=np.ones(length), **rest)


def test_another_output_axis_is_pointed_out():
    text = (
        "fold_batch_norm: bias must have shape (4,), got (5,) for weight of shape (4, 6, 5); "
        "axis -1 has length 5: output_axis=-1?"
    )
    refuses("fold_batch_norm", ValueError, text, bias=np.ones(5))


# ---- options ----

EPSILONS = [
    (-1e-9, ValueError, "must be finite and >= 0, got -1e-09"),
    (-1, ValueError, "must be finite and >= 0, got -1"),
    (math.inf, ValueError, "must be finite and >= 0, got inf"),
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


@pytest.mark.parametrize("value", ["tanh", "ReLU", 1, np.maximum])
@pytest.mark.parametrize("call", [c for c in NORMS if c.startswith("batch")])
def test_activation(call, value):
    text = f"{function(call)}: activation must be None or 'relu', got {value!r}"
    refuses(call, ValueError, text, activation=value)


def test_activation_needs_the_output_to_go_back_through():
    text = "batch_norm_backward: activation='relu' needs y, the forward's output"
    refuses("batch_norm_backward", ValueError, text, activation="relu")


@pytest.mark.parametrize("value", ["ignore", None, 1])
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
