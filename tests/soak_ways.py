"""The ways the soak makes its calls: each takes a `Deal` and returns how many jobs it did."""

import multiprocessing
import operator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial

from forks_scenarios import in_child
from threads_scenarios import in_threads

CALLERS = 16
PROCESSES = 2


def threads(deal):
    """Threads of Python's own, all at once."""
    return _at_once(deal.tasks(CALLERS, 8))


def forks(deal):
    """Children of the main thread, with a child of their own; and of four threads at once."""
    first, second, *others = deal.tasks(6, 3)
    in_child(lambda: (first(), in_child(second)))
    _at_once([partial(in_child, task) for task in others])
    return 6 * 3


def dask_threads(deal):
    """Dask's threaded scheduler."""
    import dask

    tasks = [dask.delayed(task)() for task in deal.tasks(2 * CALLERS, 4)]
    with ThreadPoolExecutor(CALLERS) as pool:
        return sum(dask.compute(*tasks, scheduler="threads", pool=pool))


def dask_processes(deal):
    """Dask's process scheduler."""
    import dask

    tasks = [dask.delayed(task)() for task in deal.tasks(2 * PROCESSES, 6)]
    return sum(dask.compute(*tasks, scheduler="processes", num_workers=PROCESSES, chunksize=1))


def loky(deal):
    """The processes of joblib, which outlive a call: they are ended here, to begin anew."""
    import joblib
    from joblib.externals.loky import get_reusable_executor

    tasks = [joblib.delayed(task)() for task in deal.tasks(2 * PROCESSES, 6)]
    done = sum(joblib.Parallel(n_jobs=PROCESSES, backend="loky")(tasks))
    get_reusable_executor().shutdown(wait=True)
    return done


def thread_pool(deal):
    """The thread pool of concurrent.futures."""
    with ThreadPoolExecutor(CALLERS) as pool:
        return sum(pool.map(operator.call, deal.tasks(2 * CALLERS, 4)))


def process_pool(method, deal):
    """The process pool of concurrent.futures, its workers started by a method."""
    context = multiprocessing.get_context(method)
    with ProcessPoolExecutor(PROCESSES, mp_context=context) as pool:
        return sum(pool.map(operator.call, deal.tasks(2 * PROCESSES, 6)))


def mixed(deal):
    """Threads, forks, Dask and a process pool, all at once."""
    others = (forks, dask_threads, partial(process_pool, "spawn"))
    return _at_once([*deal.tasks(CALLERS, 16), *(partial(way, deal.apart()) for way in others)])


def _at_once(tasks):
    """Call each task in a thread of its own; return the sum of what they return."""
    waiting, done = list(tasks), []
    in_threads(len(waiting), lambda: done.append(waiting.pop()() or 0))
    return sum(done)


WAYS = {
    "threads": threads,
    "forks": forks,
    "dask threads": dask_threads,
    "dask processes": dask_processes,
    "joblib loky": loky,
    "thread pool": thread_pool,
    **{f"pool, {m}": partial(process_pool, m) for m in ("fork", "forkserver", "spawn")},
    "mixed": mixed,
}
