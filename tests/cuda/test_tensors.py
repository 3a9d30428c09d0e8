"""How PyTorch's tensors are seen, which does not depend on where they are."""

import pytest

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
