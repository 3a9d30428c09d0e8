"""Normalizing what is larger than memory."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from numba_bn import _validate as check
from numba_bn._arrays import Array, as_array, result_dtype
from numba_bn._files import failure
from numba_bn._view import Axes, batch_view
from numba_bn.chunks.checkpoint import digest
from numba_bn.chunks.plan import Block, blocks
from numba_bn.chunks.sources import Source, source_of
from numba_bn.chunks.targets import Target, target_of
from numba_bn.chunks.work import Job, Options, run
from numba_bn.functional import batch_norm
from numba_bn.stats import ChannelStats

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

_CALL = "normalize_chunks"


def normalize_chunks(
    source: Any,
    target: Any,
    stats: ChannelStats,
    gamma: ArrayLike | None = None,
    beta: ArrayLike | None = None,
    *,
    channel_axis: int | Sequence[int] = 1,
    eps: float = 1e-5,
    activation: str | None = None,
    progress: bool | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_every: float = 5.0,
) -> Any:
    """Normalize each channel of data larger than memory, by given statistics, block by block.

    ``y = (x - mean) / sqrt(var + eps) * gamma + beta``, then the activation, with the mean and the
    biased variance of `stats`: what `batch_norm` computes. The next block is read while the one at
    hand is computed and written.

    Parameters
    ----------
    source : array, any shape
        Of NumPy, a memory map, an HDF5 dataset (h5py), a zarr array, or whatever else has chunks
        and slices alike.
    target : array, shape of source
        Any of those, open for writing; of source's dtype, or float32 for integers of up to 16 bits,
        float64 for wider ones. Chunks that are compressed are written whole where source's and its
        own fit into a block together.
    stats : ChannelStats
        Of all the data, as of `channel_stats`.
    gamma, beta, channel_axis, eps, activation
        As for `batch_norm`.
    progress : bool, optional
        Whether to show a bar, which needs tqdm; by default on a terminal, if tqdm is there.
    checkpoint : path, optional
        File that keeps what was done, for a call that is stopped, or killed, and made again, with
        the target as it was left. It looks at what was written, so the target must be lossless:
        no filter that rounds. A job that is done is not done again: remove the file if the source
        was changed in place since.
    checkpoint_every : float, default 5.0
        Seconds from one checkpoint to the next.

    Returns
    -------
    target

    Raises
    ------
    TypeError, ValueError, AxisError
        If an argument does not fit, before anything is written; if the checkpoint is of another
        job, or target does not hold what it says.
    OSError
        If source cannot be read, or target or checkpoint not be written, as on a full disk.

    References
    ----------
    S. Ioffe, C. Szegedy, "Batch Normalization", ICML 2015, algorithm 2.

    Examples
    --------
    >>> import numpy as np
    >>> import numba_bn as nbn
    >>> x = np.array([[1.0, 10.0], [3.0, 30.0]])
    >>> nbn.normalize_chunks(x, np.empty_like(x), nbn.channel_stats(x), eps=0.0)
    array([[-1., -1.],
           [ 1.,  1.]])
    """
    read = source_of(_CALL, "source", source)
    result_dtype(_CALL, "source", read.dtype)
    axes = check.axis_tuple(_CALL, "channel_axis", channel_axis, read.shape, "source")
    how = {"eps": check.epsilon(_CALL, eps), "activation": activation}
    check.activation(_CALL, activation)
    parameters = _parameters(stats, gamma, beta, read.shape, axes)
    written = target_of(_CALL, target, read)
    job = _job(read, written, parameters, axes, how)
    with _explained(written):
        written.prepare()
    run(job, Options(progress, checkpoint, checkpoint_every))
    return target


def _job(
    source: Source, target: Target, parameters: dict[str, Array], axes: Axes, how: dict[str, Any]
) -> Job:
    """Return the job: what is done with a block, and how a block is known to be done."""

    def normalized(block: Block, part: Array, out: Array | None) -> Array:
        place = tuple([block[a] for a in axes])
        of_block: dict[str, Any] = {name: array[place] for name, array in parameters.items()}
        y: Array = batch_norm(part, channel_axis=axes, out=out, **of_block, **how)
        return y

    def look(block: Block, part: Array) -> None:
        with _explained(target):
            target.write(block, normalized(block, part, target.room(block)))

    def settle() -> None:
        with _explained(target):
            target.settle()

    def resume(block: Block, part: Array) -> None:
        if not np.array_equal(target.kept.read(block), normalized(block, part, None), True):
            raise ValueError(
                f"{_CALL}: target does not hold what checkpoint says was written to it; if it was "
                "made anew, remove the checkpoint; if it rounds what is written, as lossy filters "
                "do, it goes without one"
            )
        target.kept.release(block)

    chunking = target.chunking(source)

    def identity() -> dict[str, Any]:
        digests = {name: digest(array) for name, array in parameters.items()}
        place = {"target": target.kept.name, "chunks with target's": chunking.chunk}
        return {**place, "channel_axis": axes, **how, **digests}

    planned = blocks(source.shape, chunking, target.bytes_per_value(source), Source.limit)
    return Job(_CALL, source, planned, identity, look, lambda merged, *_: merged, settle, resume)


@contextmanager
def _explained(target: Target) -> Iterator[None]:
    """Let an error of a full or failing disk say what could not be written."""
    try:
        yield
    except OSError as error:
        name = f" {target.kept.name}" if target.kept.name else ""
        text = f"{_CALL}: cannot write to target{name} ({error})"
        raise failure(error, text) from error


def _parameters(
    stats: object, gamma: object, beta: object, shape: Axes, axes: Axes
) -> dict[str, Array]:
    """Return mean, var and, where they are given, gamma and beta, over the channel axes."""
    if not isinstance(stats, ChannelStats):
        raise check.no_stats(_CALL, "stats", stats)
    view = batch_view(shape, tuple(range(len(shape))), axes)
    named = {"stats.mean": stats.mean, "gamma": gamma, "beta": beta}
    for name, value in named.items():
        check.parameter(_CALL, name, value, view, shape)
    if not stats.count.all():
        raise ValueError(
            f"{_CALL}: stats must have counted values in every channel, got {stats.count}"
        )
    found = {"mean": stats.mean, "var": stats.var(), "gamma": gamma, "beta": beta}
    return {name: as_array(_CALL, name, v) for name, v in found.items() if v is not None}
