"""What goes in, refused: which error, in which words, before anything is compiled or changed."""

import ml_dtypes
import numpy as np
import pytest
from calls import (
    CALLS,
    LENGTH,
    LIKE_X,
    PARAMETERS,
    SHAPE,
    TAKES_WHERE,
    forbid_backends,
    places,
    refuses,
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


@pytest.mark.parametrize("nested", [lambda a: [a], lambda a: ([1.0, a], (1.0, 2.0))])
@pytest.mark.parametrize(("call", "name"), ARRAYS)
def test_list_with_an_unknown_kind_of_array(call, name, nested):
    for kind in ("MaskedArray", "Tensor"):
        text = f"{function(call)}: {name} must be an array of numbers, got a list with a {kind}"
        refuses(call, TypeError, text, **{name: nested(KINDS[kind][0])})


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
