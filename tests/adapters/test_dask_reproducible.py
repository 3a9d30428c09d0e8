"""Exact sums of Dask arrays: one bit pattern, in any chunks and by every scheduler."""

import numpy as np
import pytest

import numba_bn as nbn

da = pytest.importorskip("dask.array")
import dask  # noqa: E402

SHAPE = (40, 6, 5, 7)


def bits(stats):
    assert stats.reproducible
    return b"".join(values.tobytes() for values in (stats.count, stats.mean, stats.m2))


def chunkings(count):
    rng = np.random.default_rng(1)
    return [tuple(int(rng.integers(1, n + 1)) for n in SHAPE) for _ in range(count)]


@pytest.fixture(scope="module")
def x():
    return np.random.default_rng(0).normal(1e4, 1, SHAPE).astype(np.float32)


@pytest.fixture(scope="module")
def expected(x):
    return bits(nbn.channel_stats(x, reproducible=True))


@pytest.mark.parametrize("chunks", chunkings(20), ids=str)
@pytest.mark.parametrize("scheduler", ["synchronous", "threads"])
def test_any_chunks_give_the_same_bits(x, expected, chunks, scheduler):
    lazy = nbn.channel_stats(da.from_array(x, chunks=chunks), reproducible=True)
    with dask.config.set(scheduler=scheduler):
        got = lazy.compute()
        assert lazy.mean.compute().tobytes() == got.mean.tobytes()
    assert bits(got) == expected


@pytest.mark.slow
def test_processes_give_the_same_bits(x, expected):
    distributed = pytest.importorskip("distributed")
    lazy = nbn.channel_stats(da.from_array(x, chunks=(7, 4, 5, 3)), reproducible=True)
    assert bits(lazy.compute(scheduler="processes", num_workers=2)) == expected
    options = {"threads_per_worker": 2, "dashboard_address": None}
    with distributed.LocalCluster(2, **options) as cluster, distributed.Client(cluster):
        assert bits(lazy.compute()) == expected
