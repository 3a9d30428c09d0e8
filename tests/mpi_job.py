"""What ranks do together: scenarios, each a function of a communicator of four ranks. No tests.

Threads run them, and, as a program under mpirun, processes; each prints its name and "ok".
"""

import hashlib
import importlib.util
import sys
import traceback

import numpy as np
from mpi_errors import (
    differences,
    different_calls,
    errors_of_one,
    layer_errors,
    raises,
    tensor_errors,
    too_few_values,
)

import numba_bn as nbn

SIZES = (7, 0, 1, 24)
"""Samples of each rank."""

STEPS = 10
C = 5


def own(comm, array):
    """Return this rank's samples."""
    return np.split(array, np.cumsum(SIZES)[:-1])[comm.Get_rank()]


def same_bits(comm, *arrays):
    """Raise unless all ranks have the same bits."""
    digest = hashlib.sha256(b"".join(np.asarray(a).tobytes() for a in arrays)).digest()
    assert len(set(comm.allgather(digest))) == 1


def batch(step, dtype, channel_axis, mean=3.0):
    """Return x, dy, a mask and a residual of all ranks."""
    rng = np.random.default_rng(step)
    x, dy, residual = rng.normal(size=(3, sum(SIZES), C, 6, 7))
    arrays = [(x * 2 + mean).astype(dtype), dy.astype(dtype), x > -1, residual.astype(dtype)]
    return [np.ascontiguousarray(np.moveaxis(a, 1, channel_axis)) for a in arrays]


def train(dtype, channel_axis, masked, part=lambda a: a, comm=None, mean=3.0):
    """Take steps of training; return (per sample, per channel) what they computed."""
    running, options = nbn.RunningStats(C), {"channel_axis": channel_axis, "comm": comm}
    gamma, beta = np.linspace(0.5, 2, C).astype(dtype), np.linspace(-1, 1, C).astype(dtype)
    samples, channels = [], []
    for step in range(STEPS):
        x, dy, where, residual = (part(a) for a in batch(step, dtype, channel_axis, mean))
        extra = {"where": where, "activation": "relu"} if masked else {}
        y, stats = nbn.batch_norm_train(
            x, gamma, beta, residual=residual if masked else None, **extra, **options
        )
        running.update(stats)
        extra |= {"y": y} if masked else {}
        dx, dgamma, dbeta, _ = nbn.batch_norm_backward(
            dy, x, gamma, stats=stats, **extra, **options
        )
        gamma, beta = gamma - dgamma / 100, beta - dbeta / 100
        samples += [y, dx]
        channels += [stats.count, stats.mean, stats.m2, dgamma, dbeta]
    return samples, [*channels, gamma, beta, running.running_mean, running.running_var]


def as_one_process(comm, dtype, channel_axis, masked, mean=3.0, near=1e-12):
    """The steps of all ranks together are those of one process on the whole batch."""
    part = lambda a: own(comm, a)  # noqa: E731
    samples, channels = train(dtype, channel_axis, masked, part, comm, mean)
    all_samples, all_channels = train(dtype, channel_axis, masked, mean=mean)
    same_bits(comm, *channels)
    found = [*zip(samples, map(part, all_samples), strict=True)]
    for got, want in [*found, *zip(channels, all_channels, strict=True)]:
        assert got.dtype == want.dtype
        np.testing.assert_allclose(got, want, rtol=near, atol=near * np.abs(want).max(initial=1))


def float64(comm):
    as_one_process(comm, np.float64, 1, masked=False)


def float64_masked(comm):
    as_one_process(comm, np.float64, 1, masked=True)


def float64_channels_last(comm):
    as_one_process(comm, np.float64, -1, masked=False)


def float64_channels_last_masked(comm):
    as_one_process(comm, np.float64, -1, masked=True)


def float32(comm):
    as_one_process(comm, np.float32, 1, masked=False, near=1e-5)


def float64_large_mean(comm):
    as_one_process(comm, np.float64, 1, masked=False, mean=1e6)


def at_test_time(comm):
    """With constant statistics, dgamma and dbeta are of all ranks, and dx needs no others."""
    x, dy, *_ = batch(0, np.float64, 1)
    known = {"mean": np.full(C, 2.0), "var": np.full(C, 5.0)}
    want = nbn.batch_norm_backward(dy, x, **known)
    dx, dgamma, dbeta, _ = nbn.batch_norm_backward(own(comm, dy), own(comm, x), **known, comm=comm)
    assert np.array_equal(dx, own(comm, want.dx))
    np.testing.assert_allclose(dgamma, want.dgamma, rtol=1e-12)
    np.testing.assert_allclose(dbeta, want.dbeta, rtol=1e-12)
    same_bits(comm, dgamma, dbeta)


def values_on_one_rank_only(comm):
    """Masked out on all ranks but one, a channel is normalized by that one's values."""
    x, _, where, _ = batch(0, np.float64, 1)
    where[:, 2] = False
    where[-1, 2] = True
    y, stats = nbn.batch_norm_train(own(comm, x), where=own(comm, where), comm=comm)
    want, whole = nbn.batch_norm_train(x, where=where)
    assert np.array_equal(stats.count, whole.count)
    np.testing.assert_allclose(y, own(comm, want), atol=1e-12)


def layer(comm):
    """The layer in training and at test time is that of one process."""
    together, alone = nbn.BatchNorm2d(C, comm=comm), nbn.BatchNorm2d(C)
    for step in range(3):
        x, dy, where, _ = batch(step, np.float64, 1)
        mine, y = together(own(comm, x), where=own(comm, where)), alone(x, where=where)
        np.testing.assert_allclose(mine, own(comm, y), atol=1e-12)
        dx = alone.backward(dy)
        np.testing.assert_allclose(together.backward(own(comm, dy)), own(comm, dx), atol=1e-12)
        for one in (together, alone):
            one.gamma -= 0.01 * one.dgamma
            one.beta -= 0.01 * one.dbeta
    state, expected = together.state_dict(), alone.state_dict()
    for name, value in expected.items():
        np.testing.assert_allclose(state[name], value, rtol=1e-6, atol=1e-6)
    same_bits(comm, *state.values())
    if comm.Get_rank() == 3:  # alone: test time needs no others
        assert together.eval()(x).shape == x.shape


def allreduce(comm):
    """Statistics of parts become those of the whole on every rank."""
    x, *_ = batch(0, np.float64, 1, mean=1e4)
    got = nbn.channel_stats(own(comm, x)).allreduce(comm)
    want = nbn.channel_stats(x)
    assert np.array_equal(got.count, want.count)
    np.testing.assert_allclose(got.mean, want.mean, rtol=1e-15)
    np.testing.assert_allclose(got.var(), want.var(), rtol=1e-12)
    same_bits(comm, got.mean, got.m2)
    wrong = nbn.ChannelStats(*np.ones((3, 2 + (comm.Get_rank() == 3))))
    raises(r"the shape of .* \(2,\) on .* \(3,\) on rank 3", lambda: wrong.allreduce(comm))


def reproducible(comm):
    """Exact sums have one bit pattern, whatever part of the data each rank has."""
    size, rank = comm.Get_size(), comm.Get_rank()
    for dtype in (np.float32, np.float64):
        x, *_ = batch(0, dtype, 1, mean=1e4)
        cuts = np.sort(np.random.default_rng(size).integers(0, len(x), size - 1))
        mine = np.split(x[::-1], cuts)[rank]
        got = nbn.channel_stats(mine, reproducible=True).allreduce(comm)
        want = nbn.channel_stats(x, reproducible=True)
        assert got == want
        assert [v.tobytes() for v in (got.mean, got.m2)] == [
            v.tobytes() for v in (want.mean, want.m2)
        ]


def any_number_of_ranks(comm):
    """Each number of the ranks alone, and the rest of them."""
    for number in range(1, comm.size + 1):
        some = comm.Split(comm.rank < number)
        reproducible(some)
        some.Free()


def parts_of_the_ranks(comm):
    """Two halves of the ranks train apart from each other."""
    half = comm.Split(comm.rank % 2)
    x, *_ = batch(0, np.float64, 1)
    y, stats = nbn.batch_norm_train(own(comm, x), comm=half)
    mine = [np.split(x, np.cumsum(SIZES)[:-1])[rank] for rank in range(comm.rank % 2, 4, 2)]
    want = nbn.channel_stats(np.concatenate(mine))
    assert np.array_equal(stats.count, want.count)
    np.testing.assert_allclose(stats.mean, want.mean, rtol=1e-14)
    assert y.shape == own(comm, x).shape
    null = type(comm)()
    raises("got the null communicator", lambda: nbn.batch_norm_train(x, comm=null))
    half.Free()


ANYWHERE = [
    float64,
    float64_masked,
    float64_channels_last,
    float64_channels_last_masked,
    float32,
    float64_large_mean,
    at_test_time,
    values_on_one_rank_only,
    differences,
    different_calls,
    errors_of_one,
    too_few_values,
    layer,
    layer_errors,
    allreduce,
]
if importlib.util.find_spec("torch"):
    ANYWHERE.append(tensor_errors)
ALL = [*ANYWHERE, any_number_of_ranks, parts_of_the_ranks]


def main():
    """Run all scenarios on the world's ranks, and end them all when one fails on any."""
    from mpi4py import MPI

    comm = MPI.COMM_WORLD
    for scenario in ALL:
        try:
            scenario(comm)
        except BaseException:
            print(f"{scenario.__name__}: rank {comm.rank}", file=sys.stderr)
            traceback.print_exc()
            comm.Abort(1)
        comm.Barrier()
        if comm.rank == 0:
            print(scenario.__name__, "ok", flush=True)


if __name__ == "__main__":
    main()
