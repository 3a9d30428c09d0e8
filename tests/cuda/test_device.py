"""The table on a real device, against the CPU's reference; `pytest -m gpu` runs these alone."""

import threading

import numpy as np
import oracle
import pytest
from oracle import assert_near
from table import (
    CASES,
    DTYPES,
    HALVES,
    MEDIUM,
    RARE,
    SMALL,
    Case,
    Data,
    backward,
    data,
    forward,
    name,
    result_dtype,
    some_mask,
)

import numba_bn as nbn

LARGE = Case("batch", (32, 64, 56, 56))
REPEATS = 1000


class CuPy:
    """CuPy's arrays, made and looked at."""

    def __init__(self):
        self.space = pytest.importorskip("cupy")
        if not self.space.cuda.is_available():
            pytest.skip("CuPy finds no CUDA device")

    def make(self, a):
        """Copy in the same memory order, without gaps."""
        base = self.space.asarray(np.ascontiguousarray(a))
        order = np.argsort([-abs(s) for s in a.strides], kind="stable")
        dense = self.space.ascontiguousarray(base.transpose(order))
        return dense.transpose(np.argsort(order))

    def look(self, a):
        return self.space.asnumpy(a)

    def streams(self):
        streams = [self.space.cuda.Stream(non_blocking=True) for _ in range(2)]
        return streams, lambda stream: stream, lambda: self.space.cuda.Device().synchronize()


class Torch:
    """PyTorch's tensors, made and looked at."""

    def __init__(self):
        self.space = pytest.importorskip("torch")
        if not self.space.cuda.is_available():
            pytest.skip("PyTorch finds no CUDA device")

    def make(self, a):
        a = a.copy("K")
        half = a.dtype.name == "bfloat16"
        t = self.space.from_numpy(a.view(np.int16) if half else a)
        return (t.view(self.space.bfloat16) if half else t).cuda()

    def look(self, t):
        if t.dtype == self.space.bfloat16:
            return t.view(self.space.int16).cpu().numpy().view(HALVES[-1])
        return t.cpu().numpy()

    def streams(self):
        streams = [self.space.cuda.Stream() for _ in range(2)]
        return streams, self.space.cuda.stream, self.space.cuda.synchronize


pytestmark = pytest.mark.gpu


@pytest.fixture(params=[CuPy, Torch], ids=["cupy", "torch"], scope="module")
def library(request):
    """A library whose arrays are on the device; skipped with its reason where there is none."""
    return request.param()


def on_device(d, library):
    return Data(*(library.make(array) for array in d))


def assert_gradients(library, got, want):
    assert_near(library.look(got.dx), want.dx)
    assert_near(library.look(got.dgamma), want.dgamma)
    if got.dbeta is not None:
        assert_near(library.look(got.dbeta), want.dbeta)


def check(library, case, dtype, layout="C", **options):
    """Assert that forward and backward on the device are the textbook's."""
    d = data(case, dtype, layout)
    theirs = on_device(d, library)
    if layout == "strided":
        gaps = (library.make(np.repeat(a, 2, axis=-1))[..., ::2] for a in (d.x, d.dy))
        theirs = theirs._replace(x=next(gaps), dy=next(gaps))
    given = {n: library.make(v) if isinstance(v, np.ndarray) else v for n, v in options.items()}
    y = library.look(forward(case, theirs, **given))
    assert y.dtype == result_dtype(np.dtype(dtype))
    assert_near(y, oracle.forward(case, d, options.get("where")))
    got = backward(case, theirs, **given)
    assert_gradients(library, got, oracle.backward(case, d, options.get("where")))


@pytest.mark.parametrize("case", CASES, ids=name)
def test_every_case_in_float32(library, case):
    check(library, case, np.float32)


@pytest.mark.parametrize("case", MEDIUM, ids=name)
@pytest.mark.parametrize("dtype", [*DTYPES, *RARE], ids=name)
def test_every_dtype(library, case, dtype):
    if isinstance(library, CuPy) and dtype.name == "bfloat16":
        pytest.skip("few versions of CuPy have bfloat16")
    if isinstance(library, Torch) and dtype.kind == "u" and dtype.itemsize > 1:
        pytest.skip(f"PyTorch computes little in {dtype}")
    check(library, case, dtype)


@pytest.mark.parametrize("case", SMALL, ids=name)
@pytest.mark.parametrize("layout", ["C", "F", "transposed", "interleaved", "strided"])
def test_every_layout(library, case, layout):
    check(library, case, np.float32, layout)


@pytest.mark.parametrize("case", [c for c in SMALL if c.norm == "batch"], ids=name)
def test_masks(library, case):
    check(library, case, np.float32, where=some_mask(case))


@pytest.mark.parametrize("case", [c for c in SMALL if c.norm == "batch"], ids=name)
def test_a_residual_and_a_relu(library, case):
    d, residual = data(case, np.float32), data(case, np.float32, seed=1).x
    theirs, options = on_device(d, library), {"activation": "relu", **case.options}
    y, stats = nbn.batch_norm_train(
        theirs.x, theirs.gamma, theirs.beta, residual=library.make(residual), **options
    )
    want, known = nbn.batch_norm_train(d.x, d.gamma, d.beta, residual=residual, **options)
    np.testing.assert_allclose(library.look(y), want, atol=2e-6)
    got = nbn.batch_norm_backward(theirs.dy, theirs.x, theirs.gamma, stats=stats, y=y, **options)
    by = {"stats": known, "y": library.look(y)}  # about 0 they may differ
    want = nbn.batch_norm_backward(d.dy, d.x, d.gamma, **by, **options)
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(library.look(a), b, atol=2e-5)


@pytest.mark.parametrize("offset", [0, 1, 3])
def test_arrays_that_begin_anywhere(library, offset):
    x = data(Case("batch", (4, 5, 7, 9)), np.float32).x
    room = library.make(np.zeros(x.size + offset, np.float32))
    view = room[offset:].reshape(x.shape)
    view[...] = library.make(x)
    np.testing.assert_allclose(library.look(nbn.batch_norm(view)), nbn.batch_norm(x), atol=2e-6)


@pytest.mark.parametrize("over", ["dy", "x"])
@pytest.mark.parametrize("function", [nbn.layer_norm_backward, nbn.rms_norm_backward])
def test_gradients_in_place(library, function, over):
    x, dy = np.random.default_rng(0).normal(size=(2, 700, 128)).astype(np.float32)
    want = function(dy, x)
    given = {"dy": library.make(dy), "x": library.make(x)}
    got = function(**given, out=given[over])
    assert got.dx is given[over]
    np.testing.assert_allclose(library.look(got.dx), want.dx, atol=2e-5)
    np.testing.assert_allclose(library.look(got.dgamma), want.dgamma, atol=2e-4)


def test_parameters_that_begin_anywhere(library):
    x = np.random.default_rng(0).normal(size=(70, 128)).astype(np.float32)
    gamma = np.linspace(0.5, 2.0, 129, dtype=np.float32)
    y = library.look(nbn.layer_norm(library.make(x), library.make(gamma)[1:]))
    np.testing.assert_allclose(y, nbn.layer_norm(x, gamma[1:].copy()), atol=2e-6)


def test_a_large_mean_costs_no_digits(library):
    x = data(LARGE, np.float32).x
    far = (x + np.float32(1e6)).astype(np.float32)
    got = library.look(nbn.batch_norm(library.make(far)))
    np.testing.assert_allclose(got, nbn.batch_norm(far), atol=2e-6)


def test_a_thousand_repeats_have_the_same_bits(library):
    d = data(LARGE, np.float32)
    x, dy = library.make(d.x), library.make(d.dy)
    first = None
    for _ in range(REPEATS):
        y, stats = nbn.batch_norm_train(x)
        dx, dgamma, dbeta, _ = nbn.batch_norm_backward(dy, x, stats=stats)
        arrays = y, stats.mean, stats.m2, dx, dgamma, dbeta
        if first is None:
            first = arrays
        assert all(bool((a == b).all()) for a, b in zip(arrays, first, strict=True))


def test_two_streams_at_once_have_the_bits_of_one(library):
    d = data(LARGE, np.float32)
    xs = [library.make(d.x), library.make(d.x[::-1].copy())]
    wanted = [library.look(nbn.batch_norm(x)) for x in xs]
    streams, entered, synchronize = library.streams()
    synchronize()
    results = [[], []]

    def work(i):
        with entered(streams[i]):
            results[i] += [nbn.batch_norm(xs[i]) for _ in range(50)]

    threads = [threading.Thread(target=work, args=(i,)) for i in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    synchronize()
    for want, found in zip(wanted, results, strict=True):
        assert len(found) == 50
        assert all(np.array_equal(library.look(y), want) for y in found)


def test_a_layer_trains_as_on_the_cpu(library):
    ours, theirs = nbn.BatchNorm2d(64), nbn.BatchNorm2d(64)
    for seed in range(3):
        d = data(LARGE, np.float32, seed=seed)
        ours(d.x)
        theirs(library.make(d.x))
    state, want = theirs.state_dict(), ours.state_dict()
    for key in want:
        np.testing.assert_allclose(state[key], want[key], rtol=1e-6, err_msg=key)


def test_a_captured_graph_and_calls_train_one_layer():
    cuda, make = Torch().space.cuda, Torch().make
    d, stream, graph = data(LARGE, np.float32), cuda.Stream(), cuda.CUDAGraph()
    ours, theirs, x = nbn.BatchNorm2d(64), nbn.BatchNorm2d(64), make(d.x)
    cuda.synchronize()
    with cuda.stream(stream):
        theirs(x)
    with cuda.graph(graph, stream=stream):
        theirs(x)
    graph.replay()
    theirs(x)
    graph.replay()
    cuda.synchronize()
    for _ in range(4):
        ours(d.x)
    for key in ("running_mean", "running_var"):
        got = getattr(theirs, key).cpu().numpy()
        np.testing.assert_allclose(got, getattr(ours, key), rtol=1e-6)


def test_numbas_own_arrays(library):
    cuda = pytest.importorskip("numba_bn._kernels.cuda.target", exc_type=ImportError).cuda
    x = data(Case("batch", (4, 5, 7, 9)), np.float32).x
    y = nbn.batch_norm(cuda.to_device(x))
    np.testing.assert_allclose(y.copy_to_host(), nbn.batch_norm(x), atol=2e-6)
