"""Every norm of Dask arrays: what is computed of its blocks, and what is summed over them."""

from __future__ import annotations

from operator import getitem
from typing import Any

import dask.array as da
import numpy as np

import numba_bn
from numba_bn._adapters.dask import blocks
from numba_bn._adapters.dask.graphs import Graph, each
from numba_bn._adapters.dask.stats import DaskChannelStats
from numba_bn._arrays import cast
from numba_bn._call import Gradients


def forward(call: Graph) -> da.Array:
    """Normalize each block by itself, or by given statistics."""
    return call.blocks(call.function, call.dtype, *call.arrays, **call.options)


def backward(call: Graph) -> Gradients:
    """Return the gradients of a norm whose statistics lie within a block."""
    channels = [call.chunks[a] for a in call.own]
    gamma = call.arrays.get("gamma", da.ones([sum(c) for c in channels], chunks=channels))
    # in float64, so that the shares that are to be summed are too
    arrays = {**call.arrays, "gamma": gamma.astype(np.float64)}
    both = call.blocks(call.function, call.dtype, **arrays, **call.options)
    sums = call.total(each(blocks.of_parameters, both, np.float64))
    dgamma, *dbeta = call.gradients(sums, 1 if call.name.startswith("rms") else 2)
    return Gradients(each(getitem, both, call.dtype, 0), dgamma, dbeta[0] if dbeta else None)


def channel_stats(call: Graph) -> DaskChannelStats:
    """Return the statistics of the whole, merged from those of the blocks."""
    parts = call.blocks(numba_bn.channel_stats, np.float64, "x", "where", **call.options)
    return DaskChannelStats(call.total(parts))


def batch_norm(call: Graph) -> da.Array:
    """Normalize by given statistics, which no mask has a part in, or by those of the batch."""
    if "mean" not in call.arrays:
        return batch_norm_train(call)[0]
    names = [name for name in call.arrays if name != "where"]
    return call.blocks(call.function, call.dtype, *names, **call.options)


def batch_norm_train(call: Graph) -> tuple[da.Array, DaskChannelStats]:
    """Normalize each block by the statistics of the whole."""
    axis = call.options["channel_axis"]
    parts = call.blocks(numba_bn.channel_stats, np.float64, "x", "where", channel_axis=axis)
    stats = DaskChannelStats(call.total(parts))
    if "where" in call.arrays:
        of = f"a channel of x of shape {call.arrays['x'].shape}"
        stats = stats.counted(f"{call.name}: where leaves no values in {of}")
    names = ("x", "gamma", "beta", "residual")
    more: dict[str, Any] = {"stats": stats.blocks, **call.options}
    return call.blocks(blocks.normalized, call.dtype, *names, **more), stats


def batch_norm_backward(call: Graph) -> Gradients:
    """Sum up the gradients of parameters; those of a training step enter dx of every block."""
    arrays, stats, dresidual = call.arrays, call.stats, None
    if "activation" in call.options:
        arrays["dy"] = da.where(arrays["y"] <= 0, 0, arrays["dy"])
        dresidual = each(cast, arrays["dy"], call.dtype, call.dtype)
    if isinstance(stats, DaskChannelStats):
        stats = stats.counted(f"{call.name}: stats must have counted values in every channel")
    if stats is not None:
        given = {"mean": stats.mean, "var": stats.var(), "count": stats.count, "low": stats._low}
        arrays |= {n: call.aligned(n, value) for n, value in given.items()}
    names = ("dy", "x", "mean", "var", "where", "low")
    options = {n: call.options[n] for n in ("channel_axis", "eps")}
    sums = call.total(call.blocks(blocks.gradient_sums, np.float64, *names, **options))
    more = options if stats is None else {"sums": sums, **options}
    dx = call.blocks(blocks.input_gradient, call.dtype, *names, "gamma", "count", **more)
    dgamma, dbeta = call.gradients(sums)
    return Gradients(dx, dgamma, dbeta, dresidual)
