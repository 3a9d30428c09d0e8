"""Every kind of array that is taken: right results, of the right kind, dtype and memory order."""

import ml_dtypes
import numpy as np
import pytest
from calls import CALLS, LENGTH, NORMS, SHAPE, stats, vector, x
from table import COMMON

import numba_bn as nbn
from numba_bn import _arrays
from numba_bn._view import batch_view, row_view, sample_view

NORM_OF_X = ["batch_norm", "instance_norm", "group_norm", "layer_norm", "rms_norm"]
BACKWARD = [name for name in NORMS if "backward" in name]


def arrays(value):
    """The arrays of any result."""
    if isinstance(value, nbn.ChannelStats):
        return [value.count, value.mean, value.m2]
    if isinstance(value, tuple):
        return [a for v in value if v is not None for a in arrays(v)]
    return [value]


def assert_same(got, expected):
    for a, b in zip(arrays(got), arrays(expected), strict=True):
        assert type(a) is np.ndarray
        assert a.dtype == b.dtype
        assert a.dtype.isnative
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6)


# ---- kinds and layouts: all arrays of a call at once ----


def readonly(a, _):
    a = a.copy()
    a.flags.writeable = False
    return a


def memmap(a, folder):
    path = folder / f"{len(list(folder.iterdir()))}"
    a.tofile(path)
    return np.memmap(path, a.dtype, "r", shape=a.shape)


def misaligned(a, _):
    b = np.zeros(a.nbytes + 1, np.uint8)[1:].view(a.dtype).reshape(a.shape)
    b[...] = a
    assert not b.flags.aligned
    return b


def broadcast(a, _):
    """Not the same values: constant along axis 0, and so in memory."""
    return np.broadcast_to(a[:1], a.shape)


KINDS = {
    "read-only": readonly,
    "memmap": memmap,
    "byte-swapped": lambda a, _: a.astype(a.dtype.newbyteorder()),
    "misaligned": misaligned,
    "reversed": lambda a, _: np.flip(a.copy()[(slice(None, None, -1),) * a.ndim]),
    "every second": lambda a, _: np.repeat(a, 2, axis=-1)[..., ::2],
    "Fortran": lambda a, _: np.asfortranarray(a),
    "list": lambda a, _: a.tolist(),
    "tuple": lambda a, _: tuple(a.tolist()),
    "broadcast": broadcast,
}


def changed(arguments, kind, folder):
    """The arguments, every array of them of a kind."""
    return {
        name: KINDS[kind](a, folder) if isinstance(a, np.ndarray) else a
        for name, a in arguments.items()
    }


@pytest.mark.parametrize("kind", [k for k in KINDS if k not in ("list", "tuple")])
@pytest.mark.parametrize("call", CALLS)
def test_kinds(call, kind, tmp_path, backend):
    given = changed(CALLS[call].arguments(), kind, tmp_path)
    plain = {n: np.array(a) if isinstance(a, np.ndarray) else a for n, a in given.items()}
    plain = {
        n: a.astype(a.dtype.newbyteorder("=")) if isinstance(a, np.ndarray) else a
        for n, a in plain.items()
    }
    assert_same(CALLS[call](**given), CALLS[call](**plain))


@pytest.mark.parametrize("kind", ["list", "tuple"])
@pytest.mark.parametrize("call", CALLS)
def test_lists_and_tuples_are_taken_as_numpy_takes_them(call, kind, tmp_path, backend):
    given = CALLS[call].arguments()
    doubles = {n: np.float64(a) if isinstance(a, np.ndarray) else a for n, a in given.items()}
    assert_same(CALLS[call](**changed(given, kind, tmp_path)), CALLS[call](**doubles))


def test_a_list_of_integers_is_an_array_of_integers():
    y = nbn.batch_norm([[1, 10], [3, 30]], eps=0.0)
    assert y.dtype == np.float64
    np.testing.assert_allclose(y, [[-1, -1], [1, 1]])


@pytest.mark.parametrize("kind", ["list", "tuple", "memmap", "read-only", "broadcast"])
@pytest.mark.parametrize("call", [c for c in CALLS if c.startswith(("batch", "channel"))])
def test_a_mask_of_any_kind(call, kind, tmp_path):
    where = np.arange(120).reshape(SHAPE) % 3 > 0
    given = KINDS[kind](where, tmp_path)
    assert_same(CALLS[call](where=given), CALLS[call](where=np.array(given)))


@pytest.mark.parametrize("shape", [(), (5,), (1, 5), (6, 1), (4, 1, 1), (4, 6, 5)])
@pytest.mark.parametrize("call", [c for c in CALLS if c.startswith(("batch", "channel"))])
def test_a_mask_broadcasts(call, shape):
    where = np.ones(shape, bool)
    where[(..., slice(1, None, 2))[: len(shape)]] = len(shape) == 0
    where[(..., *(0,) * len(shape))] = True
    assert_same(CALLS[call](where=where), CALLS[call](where=np.broadcast_to(where, SHAPE).copy()))


# ---- dtypes ----

DTYPES = {
    np.float16: np.float16,
    ml_dtypes.bfloat16: ml_dtypes.bfloat16,
    np.float32: np.float32,
    np.float64: np.float64,
    np.int8: np.float32,
    np.uint8: np.float32,
    np.int16: np.float32,
    np.uint16: np.float32,
    np.int32: np.float64,
    np.uint32: np.float64,
    np.int64: np.float64,
    np.uint64: np.float64,
}

WITH_RARE = "batch_norm_train"
"""One call is tried with dtypes that compile kernels of their own, all calls with the others."""


def others(call, dtype):
    """What is like x, in a dtype, and no residual; else there would be more kernels to compile."""
    given = CALLS[call].arguments()
    like = {name: given[name].astype(dtype) for name in given.keys() & {"dy", "y"}}
    return like | ({"residual": None} if "residual" in given else {})


@pytest.mark.parametrize(
    ("call", "dtype"),
    [(call, dtype) for call in NORMS for dtype in DTYPES if call == WITH_RARE or dtype in COMMON],
)
def test_dtype_of_the_result(call, dtype, backend):
    given = np.arange(120).reshape(SHAPE).astype(dtype)
    y = arrays(CALLS[call](x=given, **others(call, DTYPES[dtype])))[0]
    assert y.dtype == DTYPES[dtype]
    exact = arrays(CALLS[call](x=given.astype(np.float64), **others(call, np.float64)))[0]
    tolerance = 2e-2 if y.dtype.itemsize == 2 else 1e-5
    np.testing.assert_allclose(y.astype(np.float64), exact, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(
    ("gamma", "gradient"),
    [
        (np.float16, np.float32),
        (ml_dtypes.bfloat16, np.float32),
        (np.float32, np.float32),
        (np.float64, np.float64),
        (np.uint8, np.float32),
        (np.int64, np.float64),
        (">f4", np.float32),
        ("<f4", np.float32),
    ],
)
@pytest.mark.parametrize("call", BACKWARD)
def test_dtype_of_the_gradients(call, gamma, gradient):
    for dtype in (np.float16, np.float64):
        given = {"x": x().astype(dtype), **others(call, dtype)}
        gradients = CALLS[call](**given, gamma=vector(CALLS[call].parameters) * 2)
        assert gradients.dx.dtype == dtype
        for g in CALLS[call](**given, gamma=np.ones(CALLS[call].parameters, gamma))[1:3]:
            assert g is None or (g.dtype == gradient and g.dtype.isnative)


@pytest.mark.parametrize("call", BACKWARD)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_dtype_of_the_gradients_without_gamma(call, dtype):
    gradients = CALLS[call](x=x().astype(dtype), gamma=None, **others(call, dtype))
    assert gradients.dgamma.dtype == (np.float64 if dtype is np.float64 else np.float32)


@pytest.mark.parametrize("eps", [1, np.float32(1), np.float64(1), np.int8(1)])
def test_eps_may_be_any_real_number(eps):
    np.testing.assert_array_equal(nbn.layer_norm(x(), eps=eps), nbn.layer_norm(x(), eps=1.0))


# ---- memory order: a dense array is seen, not copied ----


def in_memory_as(order):
    """An array of four axes that lies in memory in an order of axes."""
    shape = (2, 3, 4, 5)
    dense = np.arange(120, dtype=np.float32).reshape([shape[a] for a in order])
    return dense.transpose(np.argsort(order))


ORDERS = [(0, 1, 2, 3), (3, 2, 1, 0), (0, 2, 3, 1), (0, 3, 1, 2), (1, 0, 2, 3), (2, 0, 3, 1)]


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("axes", [(0,), (1,), (2,), (3,)])
def test_batch_norm_copies_no_dense_array(order, axes):
    a = in_memory_as(order)
    view = batch_view(a.shape, _arrays.order_of(a), axes)
    seen = _arrays.five_axes(a, view)
    assert np.shares_memory(seen, a)
    assert seen.flags.c_contiguous
    assert _arrays.can_hold(a, view)


@pytest.mark.parametrize("order", [o for o in ORDERS if o[0] == 0])
def test_instance_and_group_norm_copy_no_array_with_samples_outermost(order):
    a = in_memory_as(order)
    for groups in (1, 3):
        view = sample_view(a.shape, _arrays.order_of(a), (1,), groups)
        assert np.shares_memory(_arrays.five_axes(a, view), a)


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (1, 0, 2, 3), (2, 1, 0, 3)])
def test_layer_norm_copies_no_array_with_rows_in_one_piece(order):
    a = in_memory_as(order)
    view = row_view(a.shape, _arrays.order_of(a), (3,))
    assert np.shares_memory(_arrays.five_axes(a, view), a)


@pytest.mark.parametrize("order", ORDERS)
def test_strided_arrays_are_packed(order):
    a = in_memory_as(order)[:, :, ::2]
    view = batch_view(a.shape, _arrays.order_of(a), (1,))
    assert not np.shares_memory(_arrays.five_axes(a, view), a)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("call", [c for c in NORMS if c.startswith("batch")])
def test_the_result_has_the_memory_order_of_x(call, order, backend):
    a = in_memory_as(order)
    given = {n: None for n in ("gamma", "beta", "mean", "var") if n in CALLS[call].arguments()}
    if call.endswith("given"):
        given["mean"], given["var"] = np.zeros(3), np.ones(3)
    if "stats" in CALLS[call].arguments():
        given["stats"] = nbn.channel_stats(a)
    like_x = {n: a for n in ("dy", "y", "residual") if n in CALLS[call].arguments()}
    y = arrays(CALLS[call](x=a, **given, **like_x))[0]
    assert y.strides == a.strides


# ---- nothing there ----


@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (0, 0), (2, 0, 5), (0, 3, 5)])
@pytest.mark.parametrize("call", ["layer_norm", "rms_norm"])
def test_rows_without_values_or_no_rows(call, shape):
    gamma = np.ones(shape[-1], np.float32)
    y = getattr(nbn, call)(np.zeros(shape, np.float32), gamma)
    assert (y.shape, y.dtype) == (shape, np.float32)
    gradients = getattr(nbn, f"{call}_backward")(y, y, gamma)
    assert gradients.dx.shape == shape
    np.testing.assert_array_equal(gradients.dgamma, np.zeros(shape[-1]))


@pytest.mark.parametrize("shape", [(4, 0, 5), (0, 6, 5), (4, 6, 0)])
@pytest.mark.parametrize("call", [c for c in NORMS if c.startswith(("instance", "group"))])
def test_samples_without_values_or_no_samples(call, shape):
    a = np.zeros(shape, np.float32)
    changes = {"gamma": np.ones(shape[1]), "beta": np.zeros(shape[1]), "dy": a}
    changes = {name: changes[name] for name in CALLS[call].arguments() if name in changes}
    assert arrays(CALLS[call](x=a, **changes))[0].shape == shape


@pytest.mark.parametrize("groups", [1, 2, 10**30])
def test_any_number_of_groups_divides_no_channels(groups):
    empty = np.zeros((4, 0, 5), np.float32)
    assert nbn.group_norm(empty, groups).shape == empty.shape
    assert nbn.group_norm_backward(empty, empty, groups).dx.shape == empty.shape


def test_no_channels():
    empty = np.zeros((4, 0, 5), np.float32)
    y, found = nbn.batch_norm_train(empty, [], [])
    assert y.shape == empty.shape
    assert found == nbn.channel_stats(empty)
    assert found.count.shape == (0,)
    assert nbn.batch_norm(empty, mean=[], var=[]).shape == empty.shape
    gradients = nbn.batch_norm_backward(empty, empty, stats=found)
    assert (gradients.dx.shape, gradients.dgamma.shape) == ((4, 0, 5), (0,))


def test_an_empty_batch_by_given_statistics():
    empty = np.zeros((0, 6, 5), np.float16)
    out = np.zeros_like(empty)
    y = nbn.batch_norm(empty, vector(), mean=vector(), var=vector(), out=out)
    assert y is out
    gradients = nbn.batch_norm_backward(empty, empty, mean=vector(), var=vector())
    np.testing.assert_array_equal(gradients.dgamma, np.zeros(6))
    found = nbn.channel_stats(empty)
    np.testing.assert_array_equal(found.count, np.zeros(6))
    assert stats() + found == stats()


def test_axes_of_length_one_and_one_value():
    y, found = nbn.batch_norm_train(np.float32([[7.0]]), [2.0], [3.0])
    assert y.item() == 3.0
    assert (found.count.item(), found.mean.item(), found.m2.item()) == (1.0, 7.0, 0.0)
    assert nbn.layer_norm(np.full((LENGTH, 1), 9.0), [2.0], [3.0]).tolist() == [[3.0]] * LENGTH
