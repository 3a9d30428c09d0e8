"""The five-axis view: the table of norms and layouts, and which memory needs no copy."""

from math import prod

import numpy as np
import pytest
from table import LAYOUTS

from numba_bn._arrays import can_hold, empty_like_view, five_axes, order_of
from numba_bn._view import batch_view, memory_order, row_view, sample_view

N, C, G, H, W = 2, 6, 3, 4, 5
HW = H * W
FIRST, LAST = (N, C, H, W), (N, H, W, C)
C_ORDER = (0, 1, 2, 3)
FEW = [shape for n in (1, 2, 3, 4) for shape in np.ndindex(*(3,) * n) if prod(shape)]


@pytest.mark.parametrize(
    ("view", "expected"),
    [
        (batch_view(FIRST, C_ORDER, (1,)), (1, N, C, 1, HW)),
        (batch_view(LAST, C_ORDER, (3,)), (1, N * HW, C, 1, 1)),
        (sample_view(FIRST, C_ORDER, (1,), C), (N, 1, C, 1, HW)),
        (sample_view(LAST, C_ORDER, (3,), C), (N, HW, C, 1, 1)),
        (sample_view(FIRST, C_ORDER, (1,), G), (N, 1, G, C // G, HW)),
        (sample_view(LAST, C_ORDER, (3,), G), (N, HW, G, C // G, 1)),
        (row_view(FIRST, C_ORDER, (3,)), (N * C * H, 1, 1, W, 1)),
        (row_view(FIRST, C_ORDER, (2, 3)), (N * C, 1, 1, HW, 1)),
        (row_view((7,), (0,), (0,)), (1, 1, 1, 7, 1)),
        (batch_view((7,), (0,), (0,)), (1, 1, 7, 1, 1)),
        (batch_view(FIRST, C_ORDER, (1, 2)), (1, N, C * H, 1, W)),
        (batch_view(FIRST, C_ORDER, (0, 1, 2, 3)), (1, 1, N * C * HW, 1, 1)),
        (batch_view((N, C), (0, 1), (1,)), (1, N, C, 1, 1)),
        (batch_view((N, 0, H), (0, 1, 2), (1,)), (1, N, 0, 1, H)),
    ],
)
def test_the_table(view, expected):
    assert view.shape == expected
    assert view.axes == tuple(range(len(view.axes)))


@pytest.mark.parametrize(
    ("layout", "expected"),
    [("C", C_ORDER), ("F", (3, 2, 1, 0)), ("transposed", (0, 2, 3, 1)), ("strided", C_ORDER)],
)
def test_memory_order(layout, expected):
    x = LAYOUTS[layout](np.zeros(FIRST))
    assert memory_order(x.shape, x.strides) == expected
    assert order_of(x) == expected


@pytest.mark.parametrize("shape", FEW, ids=str)
def test_axes_of_length_one_need_no_copy(shape):
    """Wherever NumPy puts an axis of length one, the array stays dense."""
    x = np.zeros(shape).T
    view = batch_view(x.shape, order_of(x), (0,))
    assert can_hold(x, view)
    assert np.shares_memory(five_axes(x, view), x)


def channel_of_each(x, view, channel_axes):
    """Number the channels as gamma's flattened index, and see them through the view."""
    names = np.arange(prod(view.channels)).reshape(view.channels)
    others = tuple(a for a in range(x.ndim) if a not in channel_axes)
    x[...] = np.expand_dims(names, others)
    stored = names.transpose(view.channel_axes).ravel()
    _, _, groups, size, _ = view.shape
    return five_axes(x, view), stored.reshape(1, 1, groups, size, 1)


@pytest.mark.parametrize("layout", ["C", "F", "transposed", "interleaved", "readonly"])
@pytest.mark.parametrize("axes", [(0,), (1,), (3,)])
def test_a_batch_norm_copies_no_dense_array(layout, axes):
    x = LAYOUTS[layout](np.zeros(FIRST))
    view = batch_view(x.shape, order_of(x), axes)
    assert np.shares_memory(five_axes(x, view), x)


@pytest.mark.parametrize(
    ("layout", "axes"), [("C", (1,)), ("C", (3,)), ("transposed", (1,)), ("C", (1, 2))]
)
def test_a_sample_norm_copies_no_array_of_either_layout(layout, axes):
    x = LAYOUTS[layout](np.zeros(FIRST))
    channels = prod(FIRST[a] for a in axes)
    view = sample_view(x.shape, order_of(x), axes, channels)
    assert np.shares_memory(five_axes(x, view), x)


def test_gaps_are_packed():
    x = LAYOUTS["strided"](np.arange(float(prod(FIRST))).reshape(FIRST))
    view = batch_view(x.shape, order_of(x), (1,))
    assert not can_hold(x, view)
    packed = five_axes(x, view)
    assert not np.shares_memory(packed, x)
    assert np.array_equal(packed.reshape(FIRST), x)


@pytest.mark.parametrize("layout", [layout for layout in LAYOUTS if layout != "readonly"])
@pytest.mark.parametrize("axes", [(0,), (1,), (3,), (1, 2), (1, 3), (0, 3), (0, 1, 2)])
def test_every_value_meets_its_channel(layout, axes):
    x = LAYOUTS[layout](np.zeros(FIRST))
    views = [batch_view(x.shape, order_of(x), axes)]
    if 0 not in axes:
        channels = prod(FIRST[a] for a in axes)
        groups = [g for g in (1, 3, channels) if channels % g == 0]
        views += [sample_view(x.shape, order_of(x), axes, g) for g in groups]
    for view in views:
        seen, expected = channel_of_each(x, view, axes)
        assert seen.shape == view.shape
        assert (seen == expected).all()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("axes", [(3,), (2, 3), (1, 2, 3), (0, 1, 2, 3)])
def test_rows_stay_whole(layout, axes):
    x = LAYOUTS[layout](np.arange(float(prod(FIRST))).reshape(FIRST))
    view = row_view(x.shape, order_of(x), axes)
    rows = five_axes(x, view)[:, 0, 0, :, 0]
    width = prod(FIRST[a] for a in axes)
    assert sorted(map(tuple, rows)) == sorted(map(tuple, x.reshape(-1, width)))


@pytest.mark.parametrize("layout", ["C", "F", "transposed", "interleaved"])
def test_a_new_array_has_the_order_of_the_view(layout):
    x = LAYOUTS[layout](np.zeros(FIRST, np.float32))
    made = empty_like_view(x, x.dtype, batch_view(x.shape, order_of(x), (1,)))
    assert (made.shape, made.strides, made.dtype) == (x.shape, x.strides, x.dtype)
