"""What ranks refuse together: scenarios for `mpi_job`, which runs them. No tests."""

import numpy as np
import pytest

import numba_bn as nbn


def raises(text, function, *errors):
    """Raise unless a call raises one of the errors with a text; return the text."""
    with pytest.raises(errors or ValueError, match=text) as caught:
        function()
    return str(caught.value)


def differences(comm):
    """Ranks that do not have the same raise, all of them, and say who has what."""
    rank = comm.Get_rank()
    x = np.ones((2, 3, 4), np.float32)
    for odd, text in (
        ({"x": x[:, :2]}, r"the shape of the channels .* \(3,\) .* \(2,\) on rank 2"),
        ({"x": x.astype(float)}, "the dtype of x .* float32 .* float64 on rank 2"),
        ({"channel_axis": 2}, "channel_axis .* 1 on .* and 2 on rank 2"),
        ({"x": x[..., None]}, "the number of dimensions of x .* 4 on rank 2"),
        ({"eps": 1e-3}, "eps .* got 1e-05 on ranks 0, 1, 3 and 0.001 on rank 2"),
        ({"gamma": np.zeros(3)}, "gamma .* checksum .* on rank 2"),
        ({"beta": np.ones(3)}, "beta .* checksum .* on rank 2"),
        ({"activation": "relu"}, "activation .* relu on rank 2"),
    ):
        given = {"x": x, **(odd if rank == 2 else {})}
        raises(f"_train: {text}", lambda given=given: nbn.batch_norm_train(**given, comm=comm))


def different_calls(comm):
    """So do ranks whose calls, or whose statistics, are not the same."""
    x = np.ones((2, 3, 4), np.float32)

    def train():
        nbn.batch_norm_train(x, comm=comm)

    def backward(**known):
        nbn.batch_norm_backward(x, x, **known, comm=comm)

    def at_test_time():
        backward(mean=np.ones(3), var=np.zeros(3))

    odd = comm.Get_rank() == 2
    raises(
        "the call must be .*_train on ranks .*_backward on rank 2", at_test_time if odd else train
    )
    own_stats = nbn.channel_stats(x + comm.Get_rank())
    raises("_backward: mean must be the same on all", lambda: backward(stats=own_stats))
    stats = nbn.ChannelStats(*np.ones((3, 3)))
    of_a_step = lambda: backward(stats=stats)  # noqa: E731
    raises(
        "what is given .* stats on .* mean and var on rank 2", at_test_time if odd else of_a_step
    )


def errors_of_one(comm):
    """A rank's own error is its own, and the others name it; then all go on."""
    rank = comm.Get_rank()
    x = np.ones((2, 3), np.float32)

    def train(x, eps=1e-5):
        return nbn.batch_norm_train(x, eps=eps, comm=comm)

    own_error = TypeError if rank == 1 else RuntimeError
    text = raises(
        "must have a real", lambda: train(x.astype(complex) if rank == 1 else x), own_error
    )
    named = "batch_norm_train: all ranks stop, as rank 1 raised TypeError: batch_norm_train: x must"
    assert text.startswith(named) == (rank != 1)
    own_error = ValueError if rank in (0, 2) else RuntimeError
    text = raises("eps must be", lambda: train(x, -1.0 if rank in (0, 2) else 1e-5), own_error)
    assert ("as rank 0 raised" in text and "; rank 2 raised" in text) == (rank in (1, 3))
    known = {"mean": np.ones(3), "var": np.ones(3), "comm": comm}
    dy = x[:, :2] if rank == 3 else x
    own_error = ValueError if rank == 3 else RuntimeError
    raises("dy must have", lambda: nbn.batch_norm_backward(dy, x, **known), own_error)
    assert train(x)[1].count.tolist() == [8, 8, 8]


def too_few_values(comm):
    """Nothing to train on, on all ranks together: an error on all, and nothing is changed."""
    text = "at least 1 value per channel in training, on all ranks"
    raises(text, lambda: nbn.batch_norm_train(np.ones((0, 3)), comm=comm))
    norm = nbn.BatchNorm(3, comm=comm)
    out = np.zeros((int(comm.Get_rank() == 1), 3))
    text = "BatchNorm: expected at least 2 values per channel in training, on all ranks"
    raises(text, lambda: norm(np.ones(out.shape), out=out))
    assert norm.num_batches_tracked == 0
    assert not out.any()
    raises("call the layer on x first", lambda: norm.backward(out))


def layer_errors(comm):
    """What the layer refuses, and calls in the wrong order, on one rank alone."""
    rank = comm.Get_rank()
    norm = nbn.BatchNorm2d(3, comm=comm)
    x = np.arange(2.0 * 3 * 4).reshape(2, 3, 2, 2) + rank
    own_error = ValueError if rank == 2 else RuntimeError
    raises("expected 4-D x, got 3-D", lambda: norm(x[0] if rank == 2 else x), own_error)
    assert norm.num_batches_tracked == 0
    if rank != 1:
        norm.eval()(x)
    own_error = ValueError if rank == 1 else RuntimeError
    raises("backward: call the layer on x first", lambda: norm.backward(x), own_error)
    if rank == 2:
        norm.eval()(x)
    call = norm.backward if rank == 2 else norm.train()
    raises("the call must be .* BatchNorm2d on .*_backward on rank 2", lambda: call(x))


def tensor_errors(comm):
    """What is refused of one rank's tensors before they are seen as NumPy's arrays."""
    import torch

    odd = comm.Get_rank() == 2
    x = torch.arange(24.0).reshape(2, 3, 4)
    tracked = x.clone().requires_grad_()
    known = {"mean": torch.zeros(3), "var": torch.ones(3)}
    norm = nbn.BatchNorm1d(3, comm=comm)

    def refused(text, call, theirs, given=x):
        own_error = TypeError if odd else RuntimeError
        raises(text, lambda: call(theirs if odd else given), own_error)

    def train(x, **options):
        return nbn.batch_norm_train(x, **options, comm=comm)

    def backward(dy):
        return nbn.batch_norm_backward(dy, x, **known, comm=comm)

    refused("x requires grad", train, tracked)
    refused("x must be a dense tensor", train, x.to(torch.float8_e5m2))
    refused("out must be of the kind", lambda out: train(x, out=out), np.empty(x.shape), x.clone())
    refused("dy requires grad", backward, tracked)
    refused("BatchNorm1d: x requires grad", norm, tracked)
    assert norm.num_batches_tracked == 0
    norm(x)
    refused("BatchNorm1d.backward: dy requires grad", norm.backward, tracked)
    if odd:  # test time needs no others, whatever comes
        raises("x requires grad", lambda: norm.eval()(tracked), TypeError)
    assert train(x)[1].count.tolist() == [32.0] * 3
