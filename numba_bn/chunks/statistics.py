"""Statistics of what comes in chunks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import reduce
from operator import add
from typing import Any

import numpy as np

from numba_bn import _validate as check
from numba_bn._arrays import Array, as_array, result_dtype
from numba_bn._progress import bars
from numba_bn._view import Axes
from numba_bn.chunks.checkpoint import Merged, digest
from numba_bn.chunks.plan import Block, blocks
from numba_bn.chunks.sources import source_of
from numba_bn.chunks.work import Job, Options, run
from numba_bn.stats import ChannelStats, channel_stats
from numba_bn.stats.of_array import merging_stats


def of_iterable(
    call: str, chunks: Iterable[Any], progress: bool | None, how: dict[str, Any]
) -> ChannelStats:
    """Return the statistics of arrays that come one after another."""
    try:
        parts = iter(chunks)
    except TypeError:
        kind = type(chunks).__name__
        raise TypeError(f"{call}: chunks must be an iterable of arrays, got {kind}") from None
    tqdm = bars(call, progress)
    bar = tqdm(desc=call, unit="B", unit_scale=True) if tqdm else None
    total: ChannelStats | None = None
    try:
        for chunk in parts:
            found = merging_stats(call, "a chunk", chunk, **how)
            total = found if total is None else total.merge(found)
            if bar is not None:
                bar.update(getattr(chunk, "nbytes", 0))
    finally:
        if bar is not None:
            bar.close()
    if total is None:
        raise ValueError(f"{call}: expected at least one chunk, got none, so of unknown channels")
    return total


def of_source(
    call: str,
    x: Any,
    channel_axis: int | Sequence[int],
    where: Any,
    how: dict[str, Any],
    options: Options,
) -> ChannelStats:
    """Return the statistics of a source, block by block in the order of its own chunks."""
    source = source_of(call, "x", x)
    result_dtype(call, "x", source.dtype)
    axes = check.axis_tuple(call, "channel_axis", channel_axis, source.shape)
    check.nan_policy(call, how["nan_policy"])
    mask = check.mask(call, where, source)

    def look(block: Block, part: Array) -> ChannelStats:
        w = None if mask is None else mask[block]
        return channel_stats(part, channel_axis=axes, where=w, **how)

    def step(merged: Merged, block: Block, found: ChannelStats) -> Merged:
        key = _key(block, axes)
        return {**merged, key: merged[key] + found if key in merged else found}

    planned = blocks(source.shape, source.chunking(), source.bytes_per_value, source.limit)
    if not planned:
        return channel_stats(np.empty(source.shape, source.dtype), channel_axis=axes, **how)

    def identity() -> dict[str, Any]:
        given = None if where is None else as_array(call, "where", where)
        return {"channel_axis": axes, "where": digest(given), **how}

    apart = not source.decodes  # others than memory maps may be for one thread at a time
    job = Job(call, source, planned, identity, look, step, lambda: None, apart=apart)
    merged = run(job, options)
    return _joined(merged, planned, axes, source.shape)


def _key(block: Block, axes: Axes) -> str:
    """Name the channels of a block."""
    return ",".join(f"{block[a].start}:{block[a].stop}" for a in axes)


def _joined(merged: Merged, planned: Sequence[Block], axes: Axes, shape: Axes) -> ChannelStats:
    """Return the statistics of all channels, from those of the channels of each block."""
    if len(merged) == 1:
        return next(iter(merged.values()))
    channels = tuple(shape[a] for a in axes)
    places = {_key(block, axes): tuple([block[a] for a in axes]) for block in planned}
    return reduce(add, (merged[key]._among(place, channels) for key, place in places.items()))
