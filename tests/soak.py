"""Calls of all sorts from everywhere at once, for as long as is asked; ends with 1 if any hurts.

``python tests/soak.py --minutes 10``: rounds of calls from threads, forks, Dask, joblib and pools;
every result has the bits that one thread computed at the start, the memory and the threads of this
process are bounded, and a round that hangs is ended, with a word on where its threads are.
``python tests/soak.py --calls 2000000``: small calls in a loop, and no memory is lost.
"""

import argparse
import ctypes
import faulthandler
import gc
import os
import random
import sys
import threading
import time
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).with_name("process")))  # whose scenarios import each other

import numba
import psutil
from soak_calls import JOBS, SMALL_JOBS, Deal, digests, run, serially

MB = 1 << 20
M_MMAP_THRESHOLD = -3  # of malloc.h
COMPILING = 900.0
"""Seconds in which all kernels are compiled, from nothing."""
MEMORY = 16
"""MB this process may grow by between rounds, after each way has been gone once."""
FLAT = 2
"""MB that small calls may take, however many there are."""
HELPERS = 24
"""Threads of a round beside the callers: in the mixed one those of Dask, of a pool, of forks."""


class Watchdog:
    """Ends the process with 1, once a time is over, and tells where all threads are."""

    def __init__(self):
        self._deadline = time.monotonic()
        self._forking = threading.Lock()
        # a child would wait for ever for the watching thread, which it has not
        os.register_at_fork(
            before=self._pause, after_in_parent=self._resume, after_in_child=self._resume
        )

    def limit(self, seconds):
        """Give what comes next so many seconds."""
        self._deadline = time.monotonic() + seconds
        self._arm()

    def _pause(self):
        self._forking.acquire()  # or another fork could resume it before this one happens
        faulthandler.cancel_dump_traceback_later()

    def _resume(self):
        self._arm()
        self._forking.release()

    def _arm(self):
        left = max(self._deadline - time.monotonic(), 0.1)
        faulthandler.dump_traceback_later(left, exit=True)


class Threads:
    """The most threads this process has during a ``with`` block, by the system's count."""

    def __enter__(self):
        self.most = 0
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()
        return self

    def _look(self):
        while not self._end.wait(0.02):
            self.most = max(self.most, PROCESS.num_threads())

    def __exit__(self, *_):
        self._end.set()
        self._thread.join()


PROCESS = psutil.Process()


def keep_nothing():
    """Have the C library give back what is freed: of each thread's arena it kept up to 9 MB."""
    if sys.platform == "linux":
        # what is set is no longer adapted to what is freed; nor is how much it keeps, 128 KB
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, 128 << 10)


def resident():
    """Return the MB this process holds."""
    gc.collect()
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)
    return PROCESS.memory_info().rss / MB


def idle_threads(bound):
    """Return how many threads are left between rounds; those of OpenMP take a moment to end."""
    for _ in range(100):
        if PROCESS.num_threads() <= bound:
            break
        time.sleep(0.05)
    return PROCESS.num_threads()


class Soak:
    """Rounds of calls, each checked, timed and measured."""

    def __init__(self, seed, limit):
        from soak_ways import CALLERS, WAYS

        keep_nothing()
        self._ways, self._limit, self._seed, self._rounds = WAYS, limit, seed, 0
        self._rng = random.Random(seed)
        self._watchdog = Watchdog()
        self._watchdog.limit(COMPILING)
        pool = numba.config.NUMBA_NUM_THREADS
        before = PROCESS.num_threads()
        self._idle = before + pool + 1
        self._most = before + (CALLERS + HELPERS) * pool
        self._memory = None
        self._right = serially()
        assert [digests(job) for job in JOBS] == self._right, "parallel calls give other bits"

    def go(self, minutes):
        """Go every way once, then any, until the time is over."""
        print(f"{len(JOBS)} jobs, seed {self._seed}, layer {numba.threading_layer()}", flush=True)
        for name in self._ways:
            self._round(name)
        self._memory = resident() + MEMORY
        print(
            f"from here on at most {self._memory:.0f} MB; "
            f"threads at most {self._most}, {self._idle} between rounds",
            flush=True,
        )
        until = time.monotonic() + minutes * 60
        while time.monotonic() < until:
            names = list(self._ways)
            self._rng.shuffle(names)
            for name in names:
                if time.monotonic() < until:
                    self._round(name)
        faulthandler.cancel_dump_traceback_later()

    def _round(self, name):
        self._rounds += 1
        started = time.monotonic()
        self._watchdog.limit(self._limit)
        deal = Deal(random.Random(self._rng.random()), self._right, 0.8 * self._limit, os.getpid())
        with Threads() as threads:
            done = self._ways[name](deal)
        idle, memory = idle_threads(self._idle), resident()
        print(
            f"round {self._rounds:4}  {name:16} {done:4} jobs right  "
            f"{time.monotonic() - started:5.1f} s  {memory:6.1f} MB  "
            f"threads {threads.most:3}, then {idle:2}",
            flush=True,
        )
        assert threads.most <= self._most, f"more than {self._most} threads"
        assert idle <= self._idle, f"more than {self._idle} threads are left"
        assert self._memory is None or memory <= self._memory, f"above {self._memory:.0f} MB"


def small_calls(count):
    """Make so many small calls; the memory of this process must stay as it is."""
    right = {job: digests(job) for job in SMALL_JOBS}
    per_cycle = 2 * len(SMALL_JOBS)  # a job is a forward and a backward, or statistics twice
    cycles = -(-count // per_cycle)
    part = -(-cycles // 10)
    for _ in range(part):
        _cycle()
    first = most = PROCESS.memory_info().rss / MB
    done, started = 0, time.monotonic()
    while done < cycles:
        for _ in range(min(part, cycles - done)):
            _cycle()
            done += 1
        now = PROCESS.memory_info().rss / MB
        most = max(most, now)
        took = time.monotonic() - started
        print(f"{done * per_cycle:9} calls  {took:6.1f} s  {now:7.2f} MB ({now - first:+.2f})")
        assert {job: digests(job) for job in SMALL_JOBS} == right, "other bits"
    print(f"{most - first:.2f} MB above the {first:.2f} MB after {part * per_cycle} calls before")
    assert most - first <= FLAT, f"more than {FLAT} MB"


def _cycle():
    for job in SMALL_JOBS:
        run(job)


def main():
    """Do what the command line says; whatever is raised ends it with 1."""
    parser = argparse.ArgumentParser(description=__doc__)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--minutes", type=float, help="after each way has been gone once")
    what.add_argument("--calls", type=int)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--limit", type=float, default=180, help="seconds for a round")
    options = parser.parse_args()
    warnings.filterwarnings("ignore", "This process", DeprecationWarning)  # forks beside threads
    if options.calls:
        small_calls(options.calls)
    else:
        Soak(options.seed, options.limit).go(options.minutes)


if __name__ == "__main__":
    main()
