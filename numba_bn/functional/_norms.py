"""What sets one norm apart from another: how it sees its arrays."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from numba_bn import _validate as check
from numba_bn._view import Axes, View, batch_view, row_view, sample_view

Axis = int | Sequence[int]


@dataclass(frozen=True, eq=False)
class Norm:
    """A norm; there is one of each, which is found by itself, not by what it holds."""

    view: Callable[[str, Axes, Axes, Axis, int], View]
    """Call, shape, order in memory, axis, number of groups (or 1) → view, all of them checked."""
    axis: str = "channel_axis"
    """The caller's name of the argument that says where the channels are."""
    own: bool = True
    """Whether samples have statistics of their own, which nobody is given."""
    centred: bool = True
    """Whether the mean is subtracted."""


def _batch(call: str, shape: Axes, order: Axes, axis: Axis, groups: int) -> View:
    return batch_view(shape, order, check.axis_tuple(call, "channel_axis", axis, shape))


def _rows(call: str, shape: Axes, order: Axes, axis: Axis, groups: int) -> View:
    return row_view(shape, order, check.trailing_axes(call, axis, shape))


def _samples(call: str, shape: Axes, axis: Axis) -> tuple[Axes, int]:
    """Return the channel axes, checked, and how many channels they hold."""
    axes = check.axis_tuple(call, "channel_axis", axis, shape)
    if 0 in axes:
        raise ValueError(
            f"{call}: channel_axis must not be 0, the axis of the samples, "
            f"got {axis!r} for x of shape {shape}"
        )
    return axes, math.prod(shape[a] for a in axes)


def _instances(call: str, shape: Axes, order: Axes, axis: Axis, groups: int) -> View:
    axes, channels = _samples(call, shape, axis)
    return sample_view(shape, order, axes, max(channels, 1))


def _groups(call: str, shape: Axes, order: Axes, axis: Axis, groups: int) -> View:
    axes, channels = _samples(call, shape, axis)
    number = check.positive_int(call, "num_groups", groups)
    if channels % number:
        raise ValueError(
            f"{call}: num_groups must divide the number of channels, {channels}, "
            f"got {number} for x of shape {shape}"
        )
    return sample_view(shape, order, axes, number if channels else 1)


BATCH = Norm(_batch, own=False)
INSTANCE, GROUP = Norm(_instances), Norm(_groups)
LAYER = Norm(_rows, axis="axis")
RMS = Norm(_rows, axis="axis", centred=False)
