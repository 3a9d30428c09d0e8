"""PyTorch's tensors, as far as it does not matter that these are not on a device."""

import copy
import pickle

import numpy as np
import pytest
from calls import CALLS

import numba_bn as nbn

torch = pytest.importorskip("torch")
adapter = pytest.importorskip("numba_bn._adapters.cuda.torch")


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "uint8"])
def test_a_tensor_is_seen_where_it_lies(dtype):
    base = torch.zeros((3, 4, 5), dtype=getattr(torch, dtype))
    for tensor in (base, base.permute(2, 0, 1), base[1:, :, ::2]):
        array = tensor.numpy()
        seen = adapter.seen("batch_norm", "x", tensor)
        assert (seen.shape, seen.strides, seen.dtype) == (array.shape, array.strides, array.dtype)
        assert type(seen.shape) is type(seen.strides) is tuple
        assert seen.pointer == array.ctypes.data
        assert seen.owner is tensor


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.zeros((2, 3)).to_sparse(),
        lambda: torch.zeros((2, 3), dtype=torch.complex64),
        lambda: torch.zeros((2, 3), dtype=torch.complex64).conj().imag,
    ],
    ids=["sparse", "complex", "negated when read"],
)
def test_what_is_no_dense_tensor_of_real_numbers_is_refused(make):
    with pytest.raises(TypeError, match=r"^batch_norm: x must be a dense tensor of real numbers"):
        adapter.seen("batch_norm", "x", make())


def test_a_tensor_that_requires_grad_is_refused_each_time_and_seen_where_none_is_recorded():
    tensor = torch.zeros(3)
    adapter.seen("batch_norm", "gamma", tensor)
    tensor.requires_grad_()
    for _ in range(2):
        with pytest.raises(TypeError, match=r"gamma requires grad.*pass gamma\.detach\(\)"):
            adapter.seen("batch_norm", "gamma", tensor)
        with torch.no_grad():
            owner = adapter.seen("batch_norm", "gamma", tensor).owner
        assert not owner.requires_grad
        assert owner.data_ptr() == tensor.data_ptr()


@pytest.fixture
def pretended(bench, monkeypatch):
    """Let tensors say that they are on a device; what is launched on them is noted, not run."""
    monkeypatch.setattr(torch.Tensor, "is_cuda", True)
    monkeypatch.setattr(adapter, "_device", lambda ordinal: torch.device("cpu"))
    monkeypatch.setattr(adapter, "current", lambda ordinal, made_on: 7)
    return bench


def launched(bench, name, make):
    """What a call from the table launches with arrays that ``make`` makes, and its result."""
    given = CALLS[name].arguments()
    given = {n: make(v) if isinstance(v, np.ndarray) else v for n, v in given.items()}
    if "stats" in given:
        given["stats"] = nbn.batch_norm_train(given["x"])[1]
    before = len(bench.driver.launched)
    result = getattr(nbn, CALLS[name].function)(**given)
    return [launch[1:4] for launch in bench.driver.launched[before:]], result


def arrays_in(result):
    items = result if isinstance(result, tuple) else (result,)
    return [item for item in items if item is not None and hasattr(item, "shape")]


@pytest.mark.parametrize("name", CALLS)
def test_calls_launch_what_they_do_on_cupys_arrays_and_return_tensors(pretended, name):
    wanted, theirs = launched(pretended, name, pretended.cupy.array)
    before = len(pretended.driver.launched)
    for _ in range(2):  # the second is made again
        steps, result = launched(pretended, name, torch.tensor)
        assert steps == wanted
        pairs = zip(arrays_in(result), arrays_in(theirs), strict=True)
        for ours, other in pairs:
            assert type(ours) is torch.Tensor
            assert (ours.shape, ours.numpy().dtype) == (other.shape, other.dtype)
    assert {launch.stream for launch in pretended.driver.launched[before:]} == {7}


def test_what_a_layout_does_not_tell_is_looked_at_each_time(pretended):
    x, gamma = torch.zeros((4, 6)), torch.ones(6)
    for _ in range(2):
        nbn.batch_norm(x, gamma)
    gamma.requires_grad_()
    with pytest.raises(TypeError, match="batch_norm: gamma requires grad"):
        nbn.batch_norm(x, gamma)
    with torch.no_grad():
        assert not nbn.batch_norm(x, gamma).requires_grad
        out = torch.empty_like(x, requires_grad=True)
        for given in (gamma, [1.0] * 6):
            assert nbn.batch_norm(x, given, out=out) is out
    with pytest.raises(TypeError, match="batch_norm: x must be a dense tensor of real numbers"):
        nbn.batch_norm(torch._neg_view(x), gamma.detach())


def test_memory_orders_gaps_masks_and_dtypes(pretended):
    x, gamma = torch.zeros((4, 6, 5, 8)), torch.ones(6, dtype=torch.float16)
    last = x.to(memory_format=torch.channels_last)
    assert nbn.batch_norm(last, gamma).stride() == last.stride()
    out = torch.ones_like(x)[..., ::2]
    for where in (x > 0, x[:1, :, :1] > 0):
        assert nbn.batch_norm(x[..., 1::2], where=where[..., ::2], out=out) is out
    stats = nbn.channel_stats(x, where=x > 0, nan_policy="omit")
    assert stats.get().count.shape == (6,)
    assert nbn.layer_norm(x, axis=(2, 3)).dtype == torch.float32
    assert nbn.batch_norm(x.to(torch.bfloat16)).dtype == torch.bfloat16
    assert nbn.batch_norm(x.to(torch.uint8), [1.0] * 6).dtype == torch.float32


def test_a_layer_of_tensors_and_its_copies(pretended):
    x, layer = torch.zeros((4, 6, 5)), nbn.BatchNorm(6)
    assert layer.backward(layer(x)).shape == x.shape
    for other in (layer, copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert {type(v) for v in (*other.parameters(), other.running_mean)} == {torch.Tensor}
        assert other.eval()(x).shape == other.backward(x).shape == x.shape
        assert {type(v) for v in other.state_dict().values()} == {np.ndarray}
        assert type(other.to(np.ones(1)).running_var) is np.ndarray
