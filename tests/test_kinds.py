"""CPU arrays of other libraries are read where they lie, and their kind is returned."""

import kinds
import numpy as np
import pytest
from calls import CALLS, NORMS
from table import FLOATS, LAYOUTS, Case, data, forward, name

import numba_bn as nbn

CASE = Case("batch", (3, 4, 5, 6))
DTYPES = {"torch": FLOATS, "array_api_strict": FLOATS[2:], "jax": FLOATS[:3]}
"""array_api_strict has no half types; JAX has float64 only if it was asked for."""


@pytest.fixture(params=kinds.KINDS)
def kind(request):
    return kinds.KINDS[request.param]()


def converted(arguments, kind):
    """The arguments of a call, its arrays of another kind."""
    return {
        n: kind.make(value) if isinstance(value, np.ndarray) else value
        for n, value in arguments.items()
    }


def arrays_in(result):
    """The arrays that a call returned."""
    items = result if isinstance(result, tuple) else (result,)
    return [item for item in items if item is not None and not isinstance(item, nbn.ChannelStats)]


@pytest.mark.parametrize("call", CALLS)
def test_every_call_returns_the_kind_it_got_with_the_bits_of_numpys(kind, call):
    arguments = CALLS[call].arguments()
    got = getattr(nbn, CALLS[call].function)(**converted(arguments, kind))
    want = CALLS[call]()
    assert type(got) is type(want) or isinstance(got, kind.type)
    assert len(arrays_in(got)) == len(arrays_in(want))
    for a, b in zip(arrays_in(got), arrays_in(want), strict=True):
        assert isinstance(a, kind.type)
        assert kind.look(a).dtype == b.dtype
        np.testing.assert_array_equal(kind.look(a), b)


@pytest.mark.parametrize("dtype", FLOATS, ids=name)
def test_every_dtype_the_library_has(kind, dtype):
    if dtype not in DTYPES[kind.name]:
        pytest.skip(f"{kind.name} has no {dtype}")
    d = data(CASE, dtype)
    theirs = d._replace(x=kind.make(d.x), gamma=kind.make(d.gamma))
    np.testing.assert_array_equal(kind.look(forward(CASE, theirs)), forward(CASE, d))


@pytest.mark.parametrize("call", NORMS)
def test_out_is_written_in_place_and_returned(kind, call):
    arguments = converted(CALLS[call].arguments(), kind)
    if not kind.shares:
        with pytest.raises(ValueError, match="out must be writable, got a read-only array"):
            CALLS[call](**arguments, out=arguments["x"])
        return
    room = np.zeros_like(CALLS[call].arguments()["x"])
    out = kind.make(room)
    result = CALLS[call](**arguments, out=out)
    assert arrays_in(result)[0] is out
    np.testing.assert_array_equal(room, arrays_in(CALLS[call]())[0])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_tensors_in_any_memory_order(layout):
    kind = kinds.tensors()
    if layout in ("readonly", "misaligned"):
        pytest.skip("no tensors are")
    d = data(CASE, np.float32)
    x = kind.make(LAYOUTS[layout](d.x).copy("K"))
    y = forward(CASE, d._replace(x=x))
    np.testing.assert_array_equal(kind.look(y), forward(CASE, d._replace(x=kind.look(x))))
    if layout != "strided":
        assert y.stride() == x.stride()


def test_nothing_is_copied_on_the_way(kind, monkeypatch):
    x = data(CASE, np.float32).x
    theirs, seen = kind.make(x), []

    def note(a, *_):
        seen.append(a.ctypes.data)
        return np.ones((4, 1, 4))

    noting = type("Noting", (), {"moments": note})
    monkeypatch.setattr("numba_bn.stats.of_array.backend", lambda kind: noting)
    monkeypatch.setattr("numba_bn.functional._plain._kind_of", lambda *_: None)  # the short way
    nbn.channel_stats(theirs)
    assert seen == [kind.look(theirs).ctypes.data]
    if kind.shares:
        assert seen == [x.ctypes.data]


def test_statistics_are_numpys(kind):
    x = data(CASE, np.float32).x
    stats = nbn.channel_stats(kind.make(x))
    assert stats == nbn.channel_stats(x)
    assert stats.update(kind.make(x)) == nbn.channel_stats(x).update(x)


def test_a_layer_takes_them(kind):
    x, dy = data(CASE, np.float32)[:2]
    theirs, ours = nbn.BatchNorm2d(4), nbn.BatchNorm2d(4)
    for layer in (theirs, ours):
        layer.gamma[...] = [1.0, 2.0, 3.0, 4.0]
    y, dx = theirs(kind.make(x)), theirs.backward(kind.make(dy))
    assert isinstance(y, kind.type)
    assert isinstance(dx, kind.type)
    np.testing.assert_array_equal(kind.look(y), ours(x))
    np.testing.assert_array_equal(kind.look(dx), ours.backward(dy))
    np.testing.assert_array_equal(theirs.dgamma, ours.dgamma)
    np.testing.assert_array_equal(theirs.running_var, ours.running_var)
    np.testing.assert_array_equal(kind.look(theirs.eval()(kind.make(x))), ours.eval()(x))


def test_parameters_may_be_numpys_or_lists(kind):
    d = data(CASE, np.float32)
    y = nbn.batch_norm(kind.make(d.x), d.gamma, d.beta.tolist())
    assert isinstance(y, kind.type)
    np.testing.assert_array_equal(kind.look(y), nbn.batch_norm(d.x, d.gamma, d.beta))


def test_a_numpy_array_leads_to_numpys_errors(kind):
    gamma = kind.make(np.ones(4, np.float32))
    for arguments in ((np.ones((2, 4)), gamma), ([[1.0] * 4], gamma)):
        with pytest.raises(TypeError, match="gamma must be a NumPy array, got"):
            nbn.batch_norm(*arguments)


def test_mixed_kinds_are_refused_by_name():
    torch, strict = kinds.tensors(), kinds.strict()
    x, gamma = np.ones((2, 4), np.float32), np.ones(4, np.float32)
    for x_kind, other, x_name, got in (
        (torch, strict, "torch.Tensor", "array_api_strict.Array"),
        (strict, torch, "array_api_strict.Array", "torch.Tensor"),
    ):
        with pytest.raises(TypeError) as caught:
            nbn.batch_norm(x_kind.make(x), other.make(gamma))
        assert str(caught.value) == (
            f"batch_norm: gamma must be of the kind of x, {x_name}, or a NumPy array, got {got}"
        )


def test_out_must_be_of_the_kind_of_x(kind):
    x = np.ones((2, 4), np.float32)
    with pytest.raises(TypeError, match=r"layer_norm: out must be of the kind of x, \S+, got num"):
        nbn.layer_norm(kind.make(x), out=x)


def test_shapes_and_dtypes_are_checked_as_for_numpy(kind):
    x = kind.make(np.ones((2, 4), np.float32))
    with pytest.raises(ValueError, match=r"^batch_norm: gamma must have shape \(4,\), got \(2,\)"):
        nbn.batch_norm(x, kind.make(np.ones(2, np.float32)))
    with pytest.raises(TypeError, match="must have a real floating-point or integer dtype"):
        nbn.layer_norm(kind.make(np.ones((2, 4), np.complex64)))
    with pytest.raises(ValueError, match=r"BatchNorm2d: expected 4-D x, got 2-D of shape \(2, 4\)"):
        nbn.BatchNorm2d(4)(x)


def test_wrong_arguments_are_refused_as_python_does(kind):
    x = kind.make(np.ones((2, 4), np.float32))
    with pytest.raises(TypeError, match="multiple values for argument 'x'"):
        nbn.layer_norm(x, x=x)
    with pytest.raises(TypeError, match="positional argument"):
        nbn.layer_norm(x, None, None, None)
    with pytest.raises(TypeError, match="unexpected keyword argument 'gain'"):
        nbn.layer_norm(x, gain=None)


def test_a_tensor_that_requires_grad_is_refused_unless_nothing_is_recorded():
    torch = pytest.importorskip("torch")
    x, gamma = torch.ones(2, 4), torch.ones(4, requires_grad=True)
    with pytest.raises(TypeError) as caught:
        nbn.batch_norm(x, gamma)
    assert str(caught.value) == (
        "batch_norm: gamma requires grad, which is not recorded here; "
        "pass gamma.detach(), or call under torch.no_grad()"
    )
    with torch.no_grad():
        assert not nbn.batch_norm(x, gamma).requires_grad


@pytest.mark.parametrize("spoil", ["to_sparse", "meta", "quantized"])
def test_tensors_without_memory_of_numbers(spoil):
    torch = pytest.importorskip("torch")
    x = {
        "to_sparse": lambda: torch.ones(2, 4).to_sparse(),
        "meta": lambda: torch.ones(2, 4, device="meta"),
        "quantized": lambda: torch.ones(2, 4).to(torch.float8_e4m3fn),
    }[spoil]()
    with pytest.raises(TypeError, match="layer_norm: x must be a dense tensor of real numbers on"):
        nbn.layer_norm(x)


def test_what_jax_traces_is_no_array():
    jax = pytest.importorskip("jax")
    with pytest.raises(TypeError, match="layer_norm: x must be an array of real numbers in the"):
        jax.jit(nbn.layer_norm)(np.ones((2, 4), np.float32))


class Elsewhere:
    """An array on a device that is not the CPU."""

    dtype = np.dtype(np.float32)

    def __array_namespace__(self):
        return np

    def __dlpack_device__(self):
        return (7, 0)

    def __dlpack__(self):
        raise AssertionError


def test_an_array_elsewhere_is_refused():
    with pytest.raises(TypeError) as caught:
        nbn.layer_norm(Elsewhere())
    assert str(caught.value) == (
        "layer_norm: x must be an array of real numbers in the CPU's memory, "
        "got test_kinds.Elsewhere: it is on device type 7 of DLPack"
    )
