"""Kernels in the simulator of Numba's CUDA target, beside the reference backend. No tests.

The simulator runs the Python source of kernels, a thread of Python for each of theirs. It has
neither intrinsics nor shuffles: those of `memory` and `shfl_down_sync` have stand-ins here.
"""

import ctypes
import sys
import threading
from collections import defaultdict

import numpy as np
from numba.cuda.simulator.kernelapi import FakeCUDAModule

from numba_bn._kernels import reference
from numba_bn._kernels.cuda import memory, target
from numba_bn._kernels.cuda import plan as plans
from numba_bn._kernels.cuda.kernel import COUNTERS, Device
from numba_bn._kernels.cuda.plan import Call

EPS, WARP = 1e-3, 32
PATIENCE = 60.0  # seconds for the threads of a warp to meet
DEVICE = Device(multiprocessors=4, threads=2048, l2_bytes=1 << 20)
_counts = threading.Lock()


def values(address, index, dtype, count=1):
    """An array over the memory that a kernel has an address of."""
    dtype = np.dtype(dtype)
    begin = address + int(index) * dtype.itemsize
    assert begin % min(16, count * dtype.itemsize) == 0, "misaligned"
    room = (ctypes.c_char * (count * dtype.itemsize)).from_address(begin)
    return np.frombuffer(room, dtype)


def loader(dtype, count):
    def load(address, index, buffer, at):
        buffer[at : at + count] = values(address, index, dtype, count)

    return load


def storer(dtype, count, streams=False):
    def store(address, index, buffer, at):
        values(address, index, dtype, count)[:] = buffer[at : at + count]

    return store


def getter(dtype):
    return lambda address, index: values(address, index, dtype)[0]


def putter(dtype):
    def put(address, index, value):
        values(address, index, dtype)[0] = value

    return put


def count_up(address, index):
    counter = values(address, index, np.int32)
    with _counts:
        counter[0] += 1
        return int(counter[0]) - 1


def reset(address, index):
    values(address, index, np.int32)[0] = 0


class Warps:
    """Shuffles of a block: the threads of a warp lay down their values, wait, and look."""

    def __init__(self):
        self.values = defaultdict(lambda: [0.0] * WARP)
        self.barriers = defaultdict(lambda: threading.Barrier(WARP, timeout=PATIENCE))

    def shfl_down(self, mask, value, by):
        thread = threading.current_thread()
        lane, warp = thread.thread_id % WARP, (*thread.blockIdx, thread.thread_id // WARP)
        with _counts:
            laid, barrier = self.values[warp], self.barriers[warp]
        laid[lane] = value
        barrier.wait()
        seen = laid[lane + by if lane + by < WARP else lane]
        barrier.wait()
        return seen


def stand_in():
    """Give the simulator what it lacks, before any module of kernels is imported."""
    for function in (loader, storer, getter, putter, count_up, reset):
        setattr(memory, function.__name__, function)
    warps = Warps()
    FakeCUDAModule.shfl_down_sync = lambda self, *given: warps.shfl_down(*given)


def run(plan, arrays):
    """Run a plan in the simulator; addresses are those of NumPy's arrays."""
    arrays = {**arrays, "workspace": np.zeros(plan.workspace, np.uint8)}
    for step in plan.steps:
        kernel, signature = step.kernel.build(step.variant)
        given = iter([address(a, arrays) for a in step.arguments])
        # a tuple of a signature is as many arguments of a launch
        counts = [getattr(kind, "count", None) for kind in signature.args]
        grouped = [tuple(next(given) for _ in range(n)) if n else next(given) for n in counts]
        target.cuda.jit(kernel)[step.grid, step.block](*grouped)
    assert not arrays["workspace"][:COUNTERS].any(), "counters left behind"


def address(argument, arrays):
    if not isinstance(argument, str):
        return argument
    name, _, offset = argument.partition("+")
    return arrays[name].ctypes.data + int(offset or 0)


def normalize(shape):
    """y for given statistics."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(3.0, 2.0, shape).astype(np.float32), np.zeros(shape, np.float32)
    mean, var, gamma, beta = rng.uniform(0.5, 2.0, (4, shape[2])).astype(np.float32)
    call = Call(shape, "float32", given="float32")
    arrays = {"x": x, "y": y, "mean": mean, "var": var, "gamma": gamma, "beta": beta}
    run(plans.normalize(call, EPS, DEVICE), arrays)
    want = np.empty(shape)
    wide = (a.astype(np.float64) for a in (mean[None], var[None], gamma, beta))
    reference.normalize(x, *wide, EPS, want)
    np.testing.assert_allclose(y, want, rtol=1e-6, atol=1e-6)


def moments(shape):
    """Count, mean, low and m2, by several blocks whose sums the last puts together."""
    x = np.random.default_rng(0).normal(3.0, 2.0, shape).astype(np.float32)
    results = {name: np.zeros(shape[2]) for name in ("count", "mean", "low", "m2")}
    plan = plans.moments(Call(shape, "float32"), DEVICE)
    assert plan.steps[0].grid[1] > 1
    run(plan, {"x": x, **results})
    count, mean, _, m2 = (vector[0] for vector in reference.moments(x, None))
    assert np.array_equal(results["count"], count)
    np.testing.assert_allclose(results["mean"] + results["low"], mean, rtol=1e-6)
    np.testing.assert_allclose(results["m2"], m2, rtol=1e-6)


if __name__ == "__main__":
    stand_in()
    {"normalize": normalize, "moments": moments}[sys.argv[1]](tuple(map(int, sys.argv[2:])))
