"""The calls of the soak, and the digests of what they returned when nothing else ran. No tests.

A module of its own, so that processes of every kind can import it.
"""

import faulthandler
import os
import random
from functools import cache, partial
from hashlib import blake2b
from itertools import product
from typing import NamedTuple

import numpy as np
import table
from table import Case

import numba_bn as nbn

DTYPES = [np.dtype(t) for t in (np.float32, np.float16)]
SMALL = {1: (2, 6, 7, 9), -1: (2, 7, 9, 6)}
LARGE = {1: (4, 6, 120, 100), -1: (4, 120, 100, 6)}
"""By the axis of the channels; even in uint8 they are above 256 KB, where calls go parallel."""


class Job(NamedTuple):
    """A norm, forward and backward, or the statistics, on arrays of a dtype."""

    case: Case
    dtype: np.dtype
    statistics: bool = False

    @property
    def id(self) -> str:
        return f"{'stats-' * self.statistics}{self.case.id}-{self.dtype}"


def _jobs(shapes):
    """Return the jobs on arrays of these shapes."""
    cases = []
    for axis, shape in shapes.items():
        cases += [Case(norm, shape, (axis,)) for norm in ("batch", "frozen", "instance")]
        cases.append(Case("group", shape, (axis,), groups=3))
        rows = (-1,) if axis == -1 else (-2, -1)
        cases += [Case(norm, shape, rows) for norm in ("layer", "rms")]
    jobs = [Job(case, dtype) for case, dtype in product(cases, DTYPES)]
    return jobs + [job._replace(statistics=True) for job in jobs if job.case.norm == "batch"]


SMALL_JOBS, LARGE_JOBS = _jobs(SMALL), _jobs(LARGE)
JOBS = SMALL_JOBS + LARGE_JOBS


@cache
def _arrays(shape, dtype):
    """Return x and dy, which the jobs of a shape and dtype share."""
    return table.data(Case("layer", shape), dtype)


@cache
def _data(case, dtype):
    """Return the arrays of a job."""
    shared = _arrays(case.shape, dtype)
    vectors = np.random.default_rng(1).uniform(0.5, 3, (4, *case.parameter_shape))
    gamma, beta, mean, var = vectors.astype(shared.gamma.dtype)
    return shared._replace(gamma=gamma, beta=beta, mean=mean, var=var)


def run(job):
    """Make the calls of a job; return every array that came out of them."""
    data = _data(job.case, job.dtype)
    if job.statistics:
        one = nbn.channel_stats(data.x, **job.case.options)
        two = one + nbn.channel_stats(data.x[:1], **job.case.options)
        return [one.count, one.mean, one.m2, two.count, two.mean, two.m2]
    y, gradients = table.forward(job.case, data), table.backward(job.case, data)
    return [y, *(array for array in gradients if array is not None)]


def digests(job):
    """Return a hash of every bit of every array of a job."""
    return [_digest(array) for array in run(job)]


def _digest(array):
    about = f"{array.dtype} {array.shape}".encode()
    return blake2b(np.ascontiguousarray(array), digest_size=16, key=about).digest()


def serially():
    """Return the digests of all jobs, by their place in `JOBS`, computed by one thread."""
    with nbn.threads(1):
        return [digests(job) for job in JOBS]


def do(right, main, limit):
    """Make the calls of some jobs, `right` by place, and compare every bit; return how many.

    Another process than `main` ends itself, if after so many seconds it still is there: where it
    hangs is known there alone.
    """
    if os.getpid() != main:
        faulthandler.dump_traceback_later(limit, exit=True)
    for place, expected in right.items():
        found = digests(JOBS[place])
        if found != expected:
            pairs = enumerate(zip(found, expected, strict=True))
            wrong = [i for i, pair in pairs if len({*pair}) > 1]
            raise AssertionError(f"{JOBS[place].id}: other bits in arrays {wrong}")
    return len(right)


class Deal(NamedTuple):
    """Deals out jobs at random."""

    rng: random.Random
    right: list[list[bytes]]
    limit: float
    main: int

    def tasks(self, count, size):
        """Return so many functions, which go to other processes too, of so many jobs each."""
        dealt = [self.rng.sample(range(len(JOBS)), size) for _ in range(count)]
        return [
            partial(do, {place: self.right[place] for place in places}, self.main, self.limit)
            for places in dealt
        ]

    def apart(self):
        """Return another, for use by another thread."""
        return self._replace(rng=random.Random(self.rng.random()))
