"""Shape and axes → five axes: the integer arithmetic behind every norm, and nothing else.

Every norm sees its array as ``(batch, outer, groups, group_size, inner)``. Statistics reduce axes
1, 3 and 4; parameters live on axes 2 and 3: channel ``c = g * group_size + k``.

``order`` is the order of an array's axes in memory, slowest first. A view names the order of axes
(``axes``) in which the five-axis shape is a plain reshape; whether that needs a copy is for the
array's owner to see.
"""

from __future__ import annotations

from functools import lru_cache
from math import prod
from typing import NamedTuple

Axes = tuple[int, ...]


class View(NamedTuple):
    """How to see an array as five axes, and its parameters as one."""

    axes: Axes
    """Order of x's axes before the reshape."""
    shape: tuple[int, int, int, int, int]
    """(batch, outer, groups, group_size, inner)."""
    channels: Axes
    """Shape of gamma, beta and of the statistics, in the order of x's axes."""
    channel_axes: Axes
    """Order of the channel axes in memory: permutes a parameter into the kernels' order."""

    plain: bool
    """Whether the axes come in the array's own order."""


def memory_order(shape: Axes, strides: Axes) -> Axes:
    """Axes from the slowest to the fastest in memory; axes of length one come first."""
    return tuple(
        sorted(range(len(shape)), key=lambda a: -abs(strides[a]) if shape[a] != 1 else -(1 << 62))
    )


def _neighbours(order: Axes, channel_axes: Axes) -> bool:
    """Tell whether the channel axes stand side by side in ``order``."""
    places = [order.index(a) for a in channel_axes]
    return max(places) - min(places) == len(places) - 1


@lru_cache(maxsize=1024)
def batch_view(shape: Axes, order: Axes, channel_axes: Axes) -> View:
    """View of a norm whose batch shares the statistics; other axes may come in any order."""
    if not _neighbours(order, channel_axes):
        order = tuple(a for a in range(len(shape)) if a not in channel_axes) + channel_axes
    at = min(order.index(a) for a in channel_axes)
    own = order[at : at + len(channel_axes)]
    sizes = [shape[a] for a in order]
    return View(
        axes=order,
        shape=(
            1,
            prod(sizes[:at]),
            prod(sizes[at : at + len(own)]),
            1,
            prod(sizes[at + len(own) :]),
        ),
        channels=tuple(shape[a] for a in channel_axes),
        channel_axes=tuple(channel_axes.index(a) for a in own),
        plain=order == tuple(range(len(shape))),
    )


@lru_cache(maxsize=1024)
def sample_view(shape: Axes, order: Axes, channel_axes: Axes, groups: int) -> View:
    """View of a norm within each sample (axis 0), over ``groups`` groups of channels."""
    rest = tuple(a for a in order if a != 0)
    own = tuple(a for a in rest if a in channel_axes)
    if own != channel_axes or not _neighbours(rest, channel_axes):
        rest = tuple(a for a in range(1, len(shape)) if a not in channel_axes) + channel_axes
    at = rest.index(channel_axes[0])
    sizes = [shape[a] for a in rest]
    channels = prod(sizes[at : at + len(channel_axes)])
    inner = prod(sizes[at + len(channel_axes) :])
    return View(
        plain=(0, *rest) == tuple(range(len(shape))),
        axes=(0, *rest),
        shape=(shape[0], prod(sizes[:at]), groups, channels // groups if groups else 0, inner),
        channels=tuple(shape[a] for a in channel_axes),
        channel_axes=tuple(range(len(channel_axes))),
    )


@lru_cache(maxsize=1024)
def row_view(shape: Axes, order: Axes, axes: Axes) -> View:
    """View of a norm over the trailing ``axes`` of each row."""
    rows = tuple(a for a in order if a not in axes)
    channels = tuple(shape[a] for a in axes)
    return View(
        plain=(*rows, *axes) == tuple(range(len(shape))),
        axes=(*rows, *axes),
        shape=(prod(shape[a] for a in rows), 1, 1, prod(channels), 1),
        channels=channels,
        channel_axes=tuple(range(len(axes))),
    )
