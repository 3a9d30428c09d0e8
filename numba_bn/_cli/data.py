"""The commands on data: ``stats``, ``normalize``, ``merge``."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from numba_bn._cli.arrays import array_of, check_apart, created, expanded, opened
from numba_bn._cli.parsers import add_data, command

if TYPE_CHECKING:
    from numba_bn._arrays import Array
    from numba_bn.stats import ChannelStats


def add_stats(commands: Any) -> None:
    """Add ``stats``."""
    parser = command(
        commands,
        "stats",
        "print the count, mean and standard deviation of each channel, and save them",
        "  numba-bn stats images.npy --channel-axis -1 -o stats.npz\n"
        "  numba-bn stats 'runs/*.h5:/images' --checkpoint stats-job.npz -o stats.npz\n"
        "  numba-bn stats cube.zarr --channel-axis 0 --plot stats.png\n"
        "  numba-bn stats cube.raw --dtype uint16 --shape 200,512,512 --channel-axis 0 --json",
    )
    parser.add_argument(
        "sources",
        nargs="+",
        metavar="SOURCE",
        help=".npy, file.npz:name, zarr, file.h5:/dataset, or raw with --dtype and --shape; "
        "several are taken as one data set",
    )
    add_data(parser)
    parser.add_argument(
        "--reproducible", action="store_true", help="the same bits in whatever parts and order"
    )
    parser.add_argument("--nan-policy", choices=("propagate", "omit", "raise"), default="propagate")
    parser.add_argument("--plot", metavar="PICTURE", help="draw them, with matplotlib")
    _add_results(parser)
    parser.set_defaults(run=_stats)


def _stats(arguments: argparse.Namespace) -> None:
    from numba_bn._cli import plot

    raw = bool(arguments.dtype or arguments.shape)
    names = expanded(arguments.sources, arguments.output, partial(array_of, raw=raw))
    _check_place("--output", arguments.output)
    if arguments.plot:
        _check_place("--plot", arguments.plot)
        plot.check(arguments.plot)
    total = _merged(names, (_of_source(n, x, names, arguments) for n, x in enumerate(names)))
    try:
        _save(total, arguments)
        if arguments.plot:
            plot.draw(total).savefig(arguments.plot)
    finally:  # what took an hour is not lost to a full disk
        _show(total, arguments)


def _of_source(n: int, name: str, names: Sequence[str], arguments: argparse.Namespace) -> Any:
    """Return the statistics of one source; an error says of which."""
    from numba_bn.stats import channel_stats

    named = ("channel_axis", "nan_policy", "reproducible", "progress")
    how = {option: getattr(arguments, option) for option in named}
    with opened(name, arguments.dtype, arguments.shape) as x:
        if arguments.checkpoint and type(x) is not np.ndarray:
            several = len(names) > 1
            how["checkpoint"] = arguments.checkpoint + (f".{n}" if several else "")
        try:
            return channel_stats(x, **how)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{name}: {error}") from error


def add_normalize(commands: Any) -> None:
    """Add ``normalize``."""
    parser = command(
        commands,
        "normalize",
        "normalize each channel by saved statistics, into a new file",
        "  numba-bn normalize images.npy normalized.npy --channel-axis -1 --stats stats.npz\n"
        "  numba-bn normalize cube.zarr out.zarr --channel-axis 0 --stats stats.npz "
        "--checkpoint normalize-job.npz\n"
        "  numba-bn normalize data.h5:/x out.h5:/x --stats stats.npz",
    )
    parser.add_argument("source", metavar="SOURCE", help="as for stats")
    parser.add_argument(
        "target", metavar="TARGET", help="a new .npy, .zarr or file.h5:/dataset, in source's chunks"
    )
    parser.add_argument("--stats", required=True, metavar="FILE", help="saved by stats or merge")
    parser.add_argument("--eps", type=float, default=1e-5, help="(default: 1e-5)")
    add_data(parser)
    parser.set_defaults(run=_normalize)


def _normalize(arguments: argparse.Namespace) -> None:
    from numba_bn._arrays import result_dtype
    from numba_bn.chunks.checkpoint import Checkpoint
    from numba_bn.chunks.normalizing import normalize_chunks
    from numba_bn.chunks.sources import source_of
    from numba_bn.stats import ChannelStats

    stats = ChannelStats.load(arguments.stats)
    name, *more = expanded([arguments.source])
    if more:
        raise ValueError(f"SOURCE must be a single array, got {', '.join([name, *more])}")
    check_apart(name, arguments.target)
    kept = arguments.checkpoint
    again = kept is not None and Checkpoint("normalize_chunks", kept, 0.0, {}).begun()
    with opened(name, arguments.dtype, arguments.shape) as x:
        source = source_of("normalize_chunks", "source", x)
        dtype = result_dtype("normalize_chunks", "source", source.dtype).newbyteorder("=")
        with created(arguments.target, x, dtype, again, kept) as y:
            normalize_chunks(
                x,
                y,
                stats,
                channel_axis=arguments.channel_axis,
                eps=arguments.eps,
                progress=arguments.progress,
                checkpoint=kept,
            )


def add_merge(commands: Any) -> None:
    """Add ``merge``."""
    parser = command(
        commands,
        "merge",
        "merge saved statistics of parts into those of the whole",
        "  numba-bn merge part1.npz part2.npz -o all.npz\n  numba-bn merge 'stats*.npz' --json",
    )
    parser.add_argument("files", nargs="+", metavar="FILE", help="saved by stats or merge")
    _add_results(parser)
    parser.set_defaults(run=_merge)


def _merge(arguments: argparse.Namespace) -> None:
    from numba_bn.stats import ChannelStats

    names = expanded(arguments.files, arguments.output)
    _check_place("--output", arguments.output)
    total = _merged(names, map(ChannelStats.load, names))
    _save(total, arguments)
    _show(total, arguments)


def _merged(names: Sequence[str], parts: Iterable[ChannelStats]) -> ChannelStats:
    """Return the statistics of all parts; an error says which does not fit."""
    named = zip(names, parts, strict=True)
    _, total = next(named)
    for name, part in named:
        try:
            total += part
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
    return total


def _add_results(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-o", "--output", metavar="FILE", help="save the statistics as .npz")
    parser.add_argument("--json", action="store_true", help="for programs")


def _check_place(option: str, path: str | None) -> None:
    """Raise now, not after an hour, where a result cannot be written."""
    if path and not os.path.isdir(os.path.dirname(path) or "."):
        raise FileNotFoundError(f"{option} must be in a folder that is there, got {path}")
    if path and not os.access(os.path.dirname(path) or ".", os.W_OK):
        raise PermissionError(f"{option} must be in a folder that can be written, got {path}")
    if path and os.path.exists(path) and not os.path.isfile(path):
        raise ValueError(f"{option} must be a regular file or a new one, got {path}")


def _save(stats: ChannelStats, arguments: argparse.Namespace) -> None:
    """Save statistics if that was asked for."""
    if arguments.output:
        stats.save(arguments.output)


def _show(stats: ChannelStats, arguments: argparse.Namespace) -> None:
    """Print statistics."""
    columns = {"count": stats.count, "mean": stats.mean, "std": stats.std()}
    if arguments.json:
        shown = {name: _plain(values) for name, values in columns.items()}
        print(json.dumps({"channels": stats.count.shape, **shown}))
        return
    print(f"{'channel':>12} {'count':>14} {'mean':>16} {'std':>16}")
    for place in np.ndindex(stats.count.shape):
        count, mean, std = (values[place] for values in columns.values())
        print(f"{','.join(map(str, place)):>12} {count:14.0f} {mean:16.9g} {std:16.9g}")


def _plain(values: Array) -> Any:
    """Return numbers as JSON has them, which knows no NaN."""
    plain = values.astype(object)
    plain[~np.isfinite(values)] = None
    return plain.tolist()
