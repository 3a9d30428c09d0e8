"""The calls that scenarios make, large enough to go parallel, and what is right. No tests."""

import hashlib
import os
from functools import cache

import numpy as np

import numba_bn as nbn
from numba_bn import _dispatch

LAYOUTS = (1, -1)


@cache
def arrays(channel_axis):
    """Return dy and x of one layout, 0.5 MB each."""
    rng = np.random.default_rng(0)
    shape = (4, 8, 64, 64) if channel_axis == 1 else (4, 64, 64, 8)
    return rng.standard_normal((2, *shape)).astype(np.float32) * 3 + 10


def results(channel_axis):
    """Return what a step of training computes."""
    dy, x = arrays(channel_axis)
    y, stats = nbn.batch_norm_train(x, channel_axis=channel_axis)
    gradients = nbn.batch_norm_backward(dy, x, stats=stats, channel_axis=channel_axis)
    alone = nbn.channel_stats(x, channel_axis=channel_axis)
    return [y, stats.mean, stats.m2, *gradients[:3], alone.mean, alone.m2]


@cache
def expected(channel_axis):
    """Return the same by the reference backend, which has no threads."""
    ours = _dispatch._BACKENDS["numpy"]
    _dispatch._BACKENDS["numpy"] = "numba_bn._kernels.reference"
    _dispatch.backend.cache_clear()
    try:
        return results(channel_axis)
    finally:
        _dispatch._BACKENDS["numpy"] = ours
        _dispatch.backend.cache_clear()


def prepare():
    """Compute what is right, before threads do it all at once."""
    for channel_axis in LAYOUTS:
        expected(channel_axis)


def check():
    """Make the calls; raise unless all their results are right."""
    for channel_axis in LAYOUTS:
        for found, right in zip(results(channel_axis), expected(channel_axis), strict=True):
            np.testing.assert_allclose(found, right, rtol=1e-4, atol=1e-4)


def launches():
    """Make the calls; return how many kernels were launched in parallel."""
    from numba_bn._kernels._policy import policy

    launched, launch = [], policy.launch
    policy.launch = lambda *args: (launched.append(args), launch(*args))
    check()
    del policy.launch
    return len(launched)


def task(_=None):
    """Do as `check`, for pools; return the process that did it."""
    check()
    return os.getpid()


def digest():
    """Return a hash of every bit of the results."""
    found = hashlib.sha256()
    for channel_axis in LAYOUTS:
        for array in results(channel_axis):
            found.update(array.tobytes())
    return found.hexdigest()


def compile_all():
    """Compile both twins of every kernel of `results`."""
    prepare()
    check()
    with nbn.threads(1):
        check()


def os_threads():
    """Return the number of threads the operating system counts."""
    return len(os.listdir("/proc/self/task"))
