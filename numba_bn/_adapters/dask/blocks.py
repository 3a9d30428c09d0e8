"""What a task on blocks of arrays computes, each by the one thread it runs in."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from numba_bn import _validate as check
from numba_bn._arrays import Array, five_axes
from numba_bn._call import Gradients, Output, per_channel
from numba_bn._dispatch import backend
from numba_bn._threads import threads
from numba_bn._view import View
from numba_bn.functional.batch import _batch_call, _statistics, batch_norm
from numba_bn.stats import ChannelStats

_CALL = "batch_norm_backward"


def run(function: Callable[..., Any], names: Iterable[str], options: Any, *blocks: Any) -> Any:
    """Call a function on blocks by name; the scheduler's other threads have work of their own."""
    with threads(1):
        return function(**dict(zip(names, blocks, strict=True)), **options)


def merged(parts: Any, axis: object = None, keepdims: bool = False) -> Any:
    """Add up a nested list of blocks, in its order, for `dask.array.reduction`."""
    if not isinstance(parts, list):
        return parts
    first, *others = (merged(part) for part in parts)
    for other in others:
        first = first + other
    return first


def same(block: Any, axis: object = None, keepdims: bool = False) -> Any:
    """Return the block: what `dask.array.reduction` does first."""
    return block


def joined(parts: Any, axis: int = 0) -> ChannelStats:
    """Put the statistics of blocks of channels, a nested list, side by side."""
    if isinstance(parts, ChannelStats):
        return parts
    arrays = [joined(part, axis + 1)._arrays() for part in parts]
    return ChannelStats._from_arrays(
        {name: np.concatenate([each[name] for each in arrays], axis) for name in arrays[0]}
    )


def field(stats: ChannelStats, name: str, *args: float) -> Array:
    """Return what a property or method of statistics gives."""
    value = getattr(stats, name)
    return np.asarray(value(*args) if callable(value) else value)


def counted(stats: ChannelStats, otherwise: str) -> ChannelStats:
    """Return the statistics, or raise if a channel has no values to normalize by."""
    if not stats.count.all():
        raise ValueError(otherwise)
    return stats


def of_parameters(gradients: Gradients) -> Array:
    """Return dgamma and dbeta of a block, if there is one."""
    return np.stack([g for g in (gradients.dgamma, gradients.dbeta) if g is not None])


def normalized(x: Array, stats: ChannelStats, **options: Any) -> Any:
    """Normalize a block by the statistics of the whole."""
    return batch_norm(x, mean=stats.mean, var=stats.var(), **options)


def gradient_sums(eps: float, **given: Any) -> Array:
    """Return dgamma and dbeta of a block, in float64."""
    _, view, arrays, statistics, where5 = _backward(**given)
    if not arrays[1].size:
        return np.zeros((2, *view.channels))
    dbeta, dgamma = backend().gradient_sums(*arrays, *statistics, eps, where5)
    return np.stack([per_channel(dgamma, view), per_channel(dbeta, view)])


def input_gradient(
    eps: float,
    gamma: Array | None = None,
    sums: Array | None = None,
    count: Array | None = None,
    **given: Any,
) -> Any:
    """Return dx of a block; of a training step by dgamma, dbeta and count of the whole."""
    x, view, arrays, statistics, where5 = _backward(**given)
    dx = Output(_CALL, None, x, view)
    if x.size:
        vectors = gamma, count, *((None, None) if sums is None else sums)
        g, n, dgamma, dbeta = (check.parameter(_CALL, "", v, view, x.shape, 1.0) for v in vectors)
        both = None if sums is None else (dbeta, dgamma)
        n = n.reshape(1, -1)
        backend().input_gradient(*arrays, *statistics, g, both, n, eps, dx.five_axes, where5)
    return dx.done(None)


def _backward(
    dy: Array, x: Array, mean: Array, var: Array, channel_axis: Any, where: Array | None = None
) -> tuple[Array, View, tuple[Array, Array], tuple[Array, Array], Array | None]:
    """Return x and its view, and as the backend takes them: dy and x, mean and var, the mask."""
    a, view = _batch_call(_CALL, x, channel_axis)
    statistics = _statistics(_CALL, None, mean, var, view, a)[:2]
    mask = check.mask(_CALL, where, a)
    arrays = five_axes(check.like(_CALL, "dy", dy, a), view), five_axes(a, view)
    return a, view, arrays, statistics, None if mask is None else five_axes(mask, view)
