"""Ranks compute one result together, here as threads; processes are in process/test_mpirun.py."""

import copy
import pickle

import mpi_job
import numpy as np
import pytest
from ranks import Communicator, together

import numba_bn as nbn

TAKES_COMM = {
    "batch_norm_train": lambda comm: nbn.batch_norm_train(np.eye(3), comm=comm),
    "batch_norm_backward": lambda comm: nbn.batch_norm_backward(
        np.eye(3), np.eye(3), mean=np.ones(3), var=np.ones(3), comm=comm
    ),
    "BatchNorm2d": lambda comm: nbn.BatchNorm2d(3, comm=comm),
    "ChannelStats.allreduce": lambda comm: nbn.ChannelStats([1], [1], [1]).allreduce(comm),
}


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("scenario", mpi_job.ANYWHERE, ids=lambda scenario: scenario.__name__)
def test_ranks(scenario):
    assert together(scenario) == [None] * 4


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_exact_sums_by_any_number_of_ranks(size):
    assert together(mpi_job.reproducible, size) == [None] * size


@pytest.mark.parametrize("call", TAKES_COMM)
def test_what_is_no_communicator(call):
    with pytest.raises(TypeError, match=f"^{call}: comm must be a communicator of mpi4py, got int"):
        TAKES_COMM[call](3)


def test_an_intercommunicator():
    comm = Communicator(0, [None] * 2, None)
    comm.is_inter = True
    with pytest.raises(ValueError, match="got an intercommunicator"):
        nbn.BatchNorm(3, comm=comm)


def test_one_rank_is_no_rank():
    """The same bits, and nothing is sent."""
    comm = Communicator(0, [None], None)
    x, dy, *_ = mpi_job.batch(0, np.float32, 1)
    y, stats = nbn.batch_norm_train(x, comm=comm)
    alone, known = nbn.batch_norm_train(x)
    assert np.array_equal(y, alone)
    assert stats == known == stats.allreduce(comm)
    got = nbn.batch_norm_backward(dy, x, stats=stats, comm=comm)
    want = nbn.batch_norm_backward(dy, x, stats=known)
    assert all(np.array_equal(a, b) for a, b in zip(got[:3], want[:3], strict=True))
    assert nbn.BatchNorm(3, comm=comm).comm is None
    assert comm.collectives == 0


def test_a_step_waits_for_the_others_twice():
    def step(comm):
        layer = nbn.BatchNorm(3, comm=comm)
        layer.backward(layer(np.eye(3)))
        layer.eval()(np.eye(3))
        return comm.collectives

    assert together(step, size=2) == [2, 2]


def test_a_copy_shares_the_communicator_and_a_pickle_has_no_place_for_it():
    comm = Communicator(0, [None] * 2, None)
    layer = nbn.BatchNorm(3, comm=comm)
    assert copy.deepcopy(layer).comm is copy.copy(layer).comm is comm
    with pytest.raises(TypeError, match="a communicator cannot be pickled: pickle the layer's"):
        pickle.dumps(layer)
    layer.comm = None
    assert pickle.loads(pickle.dumps(layer)).comm is None


def test_memory_that_is_not_there_on_one_rank(monkeypatch):
    """An error of any kind, raised before the exchange, reaches all."""
    from numba_bn.functional import _steps

    moments = _steps.backend().moments

    def body(comm):
        x = np.full((2, 3), comm.rank)
        return nbn.batch_norm_train(x, comm=comm)

    def failing(x5, where5):
        if x5.flat[0] == 2:
            raise MemoryError("no room for 9 GiB")
        return moments(x5, where5)

    monkeypatch.setattr(_steps.backend(), "moments", failing)
    errors = together(body)
    assert [type(error) for error in errors] == [RuntimeError] * 2 + [MemoryError, RuntimeError]
    assert str(errors[0]).endswith("as rank 2 raised MemoryError: no room for 9 GiB")


def test_many_ranks_are_not_all_named():
    def body(comm):
        return nbn.batch_norm_train(np.ones((2, 3)), eps=float(comm.rank == 5), comm=comm)

    texts = {str(error) for error in together(body, size=12)}
    assert texts == {
        "batch_norm_train: eps must be the same on all ranks, got 0.0 on "
        "ranks 0, 1, 2, 3, 4, 6, 7, 8 and 3 more and 1.0 on rank 5"
    }
