"""The loop over the blocks of a job: reading ahead, a bar, a checkpoint."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from math import prod
from typing import Any, NamedTuple

from numba_bn import _validate as check
from numba_bn._arrays import Array, as_array
from numba_bn._files import failure
from numba_bn._progress import bars
from numba_bn._threads import get_num_threads, threads
from numba_bn.chunks.ahead import Part, ahead
from numba_bn.chunks.checkpoint import Checkpoint, Merged, State
from numba_bn.chunks.plan import Block, lengths_of
from numba_bn.chunks.sources import Source

_MOST = 8
"""Threads that look at blocks of their own, of which each has one in memory."""


class Options(NamedTuple):
    """What every call on chunks may be told."""

    progress: bool | None = None
    checkpoint: str | os.PathLike[str] | None = None
    checkpoint_every: float = 5.0


class Job(NamedTuple):
    """Blocks of a source, and what to do with each."""

    call: str
    source: Source
    blocks: Sequence[Block]
    identity: Callable[[], Mapping[str, Any]]
    """What, beside the source, tells a checkpoint of this job from others."""
    look: Callable[[Block, Array], Any]
    """What is done with a block by itself."""
    step: Callable[[Merged, Block, Any], Merged]
    """From what was merged, and what became of the next block, to what is merged then."""
    settle: Callable[[], None]
    """Brings what was done to where it stays, before a checkpoint says that it is done."""
    resume: Callable[[Block, Array], None] | None = None
    """Raises if a block that a checkpoint says was done was not."""
    apart: bool = False
    """Whether several blocks may be kept that were read, for a thread each to look at."""


def run(job: Job, options: Options) -> Merged:
    """Do all blocks, or those that a checkpoint leaves; return what was merged."""
    checkpoint = _checkpoint(job, options)
    state = checkpoint.load() if checkpoint else State(0, {})
    if checkpoint:
        checkpoint.tidy()
    left = job.blocks[state.done :]
    if state.done and job.resume:
        last = state.done - 1
        for k in sorted({0, last // 2, last}):  # one alone may be what a new target holds too
            job.resume(job.blocks[k], _read(job, job.blocks[k]))
            job.source.release(job.blocks[k])
    if checkpoint and left:
        checkpoint.save(state)  # a path that cannot be written is an error now, not in an hour
    with _bar(job, options, state) as advance, _looks(job, left) as looks:
        try:
            for found, block in zip(looks, left, strict=True):
                # in one assignment: an interrupt finds the old state or the new one
                state = State(state.done + 1, job.step(state.merged, block, found))
                advance(_nbytes(job, block))
                if checkpoint and checkpoint.due():
                    _keep(job, checkpoint, state)
            if left:
                _keep(job, checkpoint, state)
        except BaseException as error:
            if checkpoint:
                _save_after(error, job, checkpoint, state)
            raise
    return state.merged


def _checkpoint(job: Job, options: Options) -> Checkpoint | None:
    """Return the file that is to hold the job's state."""
    every = check.number(job.call, "checkpoint_every", options.checkpoint_every)
    if every < 0:
        raise ValueError(f"{job.call}: checkpoint_every must be >= 0 seconds, got {every:g}")
    if options.checkpoint is None:
        return None
    identity = {**job.source.about(), "number of blocks": len(job.blocks), **job.identity()}
    return Checkpoint(job.call, options.checkpoint, every, identity)


def _read(job: Job, block: Block) -> Array:
    """Read a block; an error says which, and of what."""
    place = f"{_place(block)} of x of shape {job.source.shape}"
    try:
        found = job.source.read(block)
    except MemoryError:
        raise
    except Exception as error:  # what decompresses a damaged chunk can raise nearly anything
        where = f", {job.source.name}" if job.source.name else ""
        text = f"{job.call}: cannot read {place}{where} ({error})"
        raise failure(error, text) from error
    part = as_array(job.call, "x[...]", found)
    expected = lengths_of(block)
    if part.shape != expected:
        raise ValueError(f"{job.call}: {place} must have shape {expected}, got {part.shape}")
    return part


@contextmanager
def _looks(job: Job, left: Sequence[Block]) -> Iterator[Iterator[Any]]:
    """Give what becomes of every block, in order, while one thread reads those after it."""
    with ahead(partial(_read, job), left) as parts:
        if not job.apart:
            yield _look_in_turn(job, left, parts)
            return
        read = zip(left, parts, strict=True)
        with ahead(partial(_look_alone, job), read, min(get_num_threads(), _MOST)) as found:
            yield (one.value for one in found)


def _look_alone(job: Job, read: tuple[Block, Part[Array]]) -> Any:
    """Look at a block that was read in this thread alone, while others do at theirs.

    All threads at one block would wait for each other, and for the one that shares a core with the
    reader: on two cores, 1.07 to 1.25 times as long.
    """
    block, part = read
    with threads(1):
        found = _look(job, block, part.value)
    job.source.release(block)
    return found


def _look_in_turn(job: Job, left: Sequence[Block], parts: Iterator[Part[Array]]) -> Iterator[Any]:
    """Look at blocks with all threads, while one more reads the next."""
    for block in left:
        part, late = next(parts)
        with _room_for_the_reader(late and job.source.decodes):
            found = _look(job, block, part)
        yield found  # so that it counts as done before anything else
        job.source.release(block)
        del part  # while the next is waited for, its memory is free for what decodes that


def _room_for_the_reader(late: bool) -> AbstractContextManager[None]:
    """Leave half of the cores to a reader that decodes and is waited for.

    It needs them, and what the kernels gained by them would be waited away: their
    threads have equal shares, so the one that has a core with the reader keeps all.
    """
    return threads(max(1, get_num_threads() // 2)) if late else nullcontext()


def _look(job: Job, block: Block, part: Array) -> Any:
    """Look at a block; an error says at which, as its own text speaks of the block alone."""
    try:
        return job.look(block, part)
    except Exception as error:
        error.add_note(f"{job.call}: in {_place(block)} of x of shape {job.source.shape}")
        raise


def _nbytes(job: Job, block: Block) -> int:
    return prod(lengths_of(block)) * job.source.dtype.itemsize


def _place(block: Block) -> str:
    return f"block [{', '.join(f'{s.start}:{s.stop}' for s in block)}]"


def _keep(job: Job, checkpoint: Checkpoint | None, state: State) -> None:
    """Bring what was done to where it stays, and say so."""
    job.settle()
    if checkpoint:
        checkpoint.save(state)


def _save_after(error: BaseException, job: Job, checkpoint: Checkpoint, state: State) -> None:
    """Keep what was done before an error; where that fails too, the earlier checkpoint holds."""
    try:
        _keep(job, checkpoint, state)
    except Exception as second:
        error.add_note(f"{job.call}: the checkpoint is an earlier one ({second})")


@contextmanager
def _bar(job: Job, options: Options, state: State) -> Iterator[Callable[[int], object]]:
    """Give what moves the bar on by some bytes."""
    tqdm = bars(job.call, options.progress)
    if tqdm is None:
        yield int
        return
    sizes = [_nbytes(job, block) for block in job.blocks]
    done = sum(sizes[: state.done])
    with tqdm(total=sum(sizes), initial=done, desc=job.call, unit="B", unit_scale=True) as bar:
        yield bar.update
