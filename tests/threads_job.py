"""Every norm, forward and backward, at several thread counts: prints whether the bits are the same.

Run in a process of its own, as the number of threads is fixed when Numba starts.
"""

import hashlib
import sys

import numpy as np

import numba_bn as nbn
from numba_bn._kernels import _launch
from numba_bn.functional import _plain

SHAPES = {
    "long planes": (3, 5, 90_001),
    "planes": (16, 40, 28, 28),
    "small planes": (40, 130, 7, 7),
    "rows": (30_011, 5),
    "wide rows": (700, 1030),
}


def results(x, channel_axis):
    """Yield every array that the public functions compute from x."""
    rng = np.random.default_rng(1)
    dy = rng.standard_normal(x.shape).astype(x.dtype)
    where = rng.random(x.shape) < 0.9
    options = {"channel_axis": channel_axis}
    for mask in (None, where):
        y, stats = nbn.batch_norm_train(x, where=mask, **options)
        yield from (y, stats.mean, stats.m2)
        yield from nbn.batch_norm_backward(dy, x, stats=stats, where=mask, **options)[:3]
    yield nbn.batch_norm(x, mean=stats.mean, var=stats.var(), **options)
    yield nbn.channel_stats(x, **options).m2
    yield nbn.channel_stats(x, reproducible=True, **options).m2
    yield nbn.instance_norm(x, **options)
    yield from nbn.instance_norm_backward(dy, x, **options)[:3]
    yield nbn.group_norm(x, 5, **options)
    yield from nbn.group_norm_backward(dy, x, 5, **options)[:3]
    yield nbn.layer_norm(x)
    yield from nbn.layer_norm_backward(dy, x)[:3]
    yield nbn.rms_norm(x)
    yield from nbn.rms_norm_backward(dy, x)[:2]


def digest(x, channel_axis):
    """Return a hash of all results."""
    found = hashlib.sha256()
    for array in results(x, channel_axis):
        found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()


def main(threads):
    """Compare serial twins and parallel ones at each number of threads."""
    for name, shape in SHAPES.items():
        rng = np.random.default_rng(0)
        first = (rng.standard_normal(shape) * 3 + 100).astype(np.float32)
        for channel_axis in (1, -1):
            x = first if channel_axis == 1 else np.ascontiguousarray(np.moveaxis(first, 1, -1))
            _launch._PARALLEL_BYTES = 1 << 60
            _plain._kind.cache_clear()
            seen = {digest(x, channel_axis)}
            _launch._PARALLEL_BYTES = 0
            _plain._kind.cache_clear()
            for count in threads:
                nbn.set_num_threads(count)
                seen |= {digest(x, channel_axis) for _ in range(2)}
            print(name, channel_axis, "same" if len(seen) == 1 else f"{len(seen)} results")


if __name__ == "__main__":
    main([int(count) for count in sys.argv[1:]])
