"""A communicator among threads, with what this package asks of mpi4py's. No tests."""

import pickle
import threading

import pytest

LIMIT = 60.0
"""Seconds that a rank waits for the others before its test fails."""


class Communicator:
    """One thread's end of it."""

    def __init__(self, rank, slots, barrier):
        self.rank, self.slots, self.barrier = rank, slots, barrier
        self.collectives = 0

    def Get_rank(self):  # noqa: N802
        return self.rank

    def Get_size(self):  # noqa: N802
        return len(self.slots)

    def allgather(self, value):
        self.collectives += 1
        self.slots[self.rank] = pickle.dumps(value)
        self.barrier.wait(LIMIT)
        found = [pickle.loads(sent) for sent in self.slots]
        self.barrier.wait(LIMIT)
        return found


def together(function, size=4):
    """Call a function of a communicator on so many ranks; return what it gave or raised on each."""
    slots, barrier = [None] * size, threading.Barrier(size)
    results, failures = [None] * size, []

    def body(rank):
        try:
            results[rank] = function(Communicator(rank, slots, barrier))
        except (AssertionError, pytest.fail.Exception) as failure:
            failures.append(failure)
            barrier.abort()  # the others would wait for this rank
        except Exception as error:
            results[rank] = error

    threads = [threading.Thread(target=body, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return results
