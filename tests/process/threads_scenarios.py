"""Many callers in one process; run by harness. Each prints what its test looks at."""

import sys
import threading
import time
import warnings

import numpy as np
import work

import numba_bn as nbn
from numba_bn._kernels._policy import policy


def in_threads(count, function):
    """Call a function from so many threads at once; raise what any of them raised."""
    errors, gate = [], threading.Barrier(count)

    def body():
        try:
            gate.wait()
            function()
        except BaseException as error:
            errors.append(error)
        gate.wait()

    threads = [threading.Thread(target=body) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def python_threads(count):
    """The very first calls of a process, all at once; prints the most OS threads it had."""
    count, seen = int(count), []
    work.prepare()
    before = work.os_threads()

    def body():
        for _ in range(3):
            work.check()
        seen.append(work.os_threads() - before - count)

    in_threads(count, body)
    print(max(seen))


def dask_threads():
    """Dask's threaded scheduler, eight workers."""
    import dask

    work.prepare()
    tasks = [dask.delayed(work.task)(i, dask_key_name=f"task-{i}") for i in range(40)]
    print(len(set(dask.compute(*tasks, scheduler="threads", num_workers=8))))


def distributed(processes):
    """A worker of dask.distributed with four threads, in a process of its own or in this one."""
    from dask.distributed import Client, LocalCluster

    work.prepare()
    options = {"n_workers": 1, "threads_per_worker": 4, "dashboard_address": ":0"}
    cluster = LocalCluster(processes=processes == "own", **options)
    with cluster, Client(cluster) as client:
        found = client.gather(client.map(work.task, range(40), pure=False))
    print(len(set(found)))


def nested():
    """Calls from within a caller's own prange; prints how many of them launched in parallel."""
    import numba

    work.prepare()
    launched = []
    launch = policy.launch

    def recorded(*args):
        launched.append(threading.get_ident())
        launch(*args)

    policy.launch = recorded

    @numba.njit(parallel=True)
    def outer(done):
        for i in numba.prange(done.size):
            with numba.objmode():
                work.check()
            done[i] += 1

    before = work.os_threads()
    done = np.zeros(32)
    outer(done)
    print(int(done.sum()), len(launched), work.os_threads() - before)


def gil():
    """Another thread runs while one computes; prints "seen" if it ever did."""
    x = np.ones((64, 8, 1 << 14), np.float32)
    computing = False

    def body():
        nonlocal computing
        with nbn.threads(1):
            computing = True
            nbn.channel_stats(x)
            computing = False

    body()
    sys.setswitchinterval(1000)  # nobody takes the GIL: whoever computes must let go of it
    for _ in range(20):
        thread = threading.Thread(target=body)
        thread.start()
        while thread.is_alive():
            if computing:
                print("seen")
                thread.join()
                return
            time.sleep(0)  # lets the other thread have it


def masks():
    """The caller's mask holds, comes back, also after an exception, and is its thread's own."""
    import numba

    work.prepare()
    used = []
    launch = policy.launch

    def recorded(threads, twin, args):
        used.append(threads)

        def failing(*args):
            assert numba.get_num_threads() == threads
            twin(*args)
            raise KeyboardInterrupt

        launch(threads, failing if fail else twin, args)

    policy.launch = recorded
    fail = False
    work.check()
    assert set(used) == {4}
    numba.set_num_threads(3)
    for asked, expected in ((2, {2}), (3, {3}), (4, {3}), (1, set())):
        used.clear()
        with nbn.threads(asked):
            assert nbn.get_num_threads() == min(asked, 3)
            work.check()
        assert set(used) == expected
        assert numba.get_num_threads() == 3
    fail = True
    try:
        with nbn.threads(2):
            work.check()
    except KeyboardInterrupt:
        assert numba.get_num_threads() == 3
        assert not policy._busy
        print("restored")


def bits(repeats, *counts):
    """The same call, over and over, at each number of threads; prints each hash it saw."""
    seen = set()
    for count in map(int, counts):
        with nbn.threads(count):
            assert nbn.get_num_threads() == count
            seen |= {work.digest() for _ in range(int(repeats))}
    print(*seen)


def no_layer():
    """No layer can be loaded: right results all the same, and one warning."""
    work.prepare()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        work.check()
        work.check()
    print(*(f"{w.category.__name__}: {w.message}".splitlines()[0] for w in caught))
