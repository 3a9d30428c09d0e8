"""Dask's schedulers: one bit pattern, right results when a worker dies, one thread a block."""

import os
import signal
import time

import numpy as np
import pytest

import numba_bn as nbn

da = pytest.importorskip("dask.array")
import dask  # noqa: E402

SHAPE = (12, 6, 40, 40)
CHUNKS = (2, 3, 40, 20)


@pytest.fixture(scope="module")
def x():
    return np.random.default_rng(0).normal(1e4, 1, SHAPE).astype(np.float32)


def step(x):
    """What a training step gives, of a Dask array."""
    y, stats = nbn.batch_norm_train(x)
    dx, dgamma, dbeta, _ = nbn.batch_norm_backward(y, x, stats=stats)
    return [y, stats.mean, stats.m2, dx, dgamma, dbeta, *nbn.layer_norm_backward(y, x)[:3]]


def bits(results):
    return [np.asarray(array).tobytes() for array in results]


@pytest.fixture(scope="module")
def expected(x):
    """The results of the simplest scheduler, which are right."""
    with dask.config.set(scheduler="synchronous"):
        results = dask.compute(*step(da.from_array(x, chunks=CHUNKS)))
    y, stats = nbn.batch_norm_train(x)
    np.testing.assert_allclose(results[0], y, atol=1e-4)
    np.testing.assert_allclose(results[1], stats.mean, rtol=1e-12)
    np.testing.assert_allclose(results[2], stats.m2, rtol=1e-12)
    return bits(results)


@pytest.fixture
def cluster():
    """Start a cluster of processes, or of threads in this one; nothing is left of it."""
    distributed = pytest.importorskip("distributed")
    started = []

    def start(workers, processes):
        options = {"threads_per_worker": 1, "dashboard_address": None}
        started.append(distributed.LocalCluster(workers, processes=processes, **options))
        started.append(distributed.Client(started[-1]))
        return started[-1]

    yield start
    for each in reversed(started):
        each.close()


@pytest.mark.parametrize("workers", [1, 2, 8])
def test_threads(x, expected, workers):
    with dask.config.set(scheduler="threads", num_workers=workers):
        got = dask.compute(*step(da.from_array(x, chunks=CHUNKS)))
    assert bits(got) == expected


@pytest.mark.slow
def test_processes(x, expected):
    with dask.config.set(scheduler="processes", num_workers=2):
        got = dask.compute(*step(da.from_array(x, chunks=CHUNKS)))
    assert bits(got) == expected


@pytest.mark.parametrize("processes", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_distributed(x, expected, cluster, processes):
    client = cluster(2, processes)
    futures = client.compute(step(da.from_array(x, chunks=CHUNKS)))
    assert bits(client.gather(futures)) == expected
    lazy = client.persist(nbn.channel_stats(da.from_array(x, chunks=CHUNKS)))
    assert lazy.compute().mean.tobytes() == expected[1]


@pytest.mark.slow
def test_a_worker_killed_on_the_way(x, expected, cluster):
    client = cluster(2, True)
    workers = client.run(os.getpid)
    delayed = da.from_array(x, chunks=CHUNKS).map_blocks(
        lambda block: time.sleep(0.2) or block, dtype=x.dtype, meta=x[:0, :0, :0, :0]
    )
    futures = client.compute(step(delayed))
    address, process = next(iter(workers.items()))
    while len(client.has_what()[address]) < 3 and not any(f.done() for f in futures):
        time.sleep(0.02)
    os.kill(process, signal.SIGKILL)
    assert bits(client.gather(futures)) == expected
    assert process not in client.run(os.getpid).values()


def test_each_block_takes_one_thread(monkeypatch):
    from numba_bn import _threads
    from numba_bn._kernels._policy import policy

    asked = []
    monkeypatch.setattr(policy, "threads", lambda: asked.append(_threads.asked()) or 1)
    x = da.ones((4, 8, 128, 128), chunks=(2, -1, -1, -1))
    with nbn.threads(2), dask.config.set(scheduler="synchronous"):
        dask.compute(*step(x))
    assert set(asked) == {1}
