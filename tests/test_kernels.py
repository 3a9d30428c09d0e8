"""The backend functions one by one, over five axes: every backend against the reference."""

import importlib
import inspect
from itertools import product
from types import FunctionType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ml_dtypes import bfloat16
from table import quickly, quickly_pairs

from numba_bn._kernels import reference

EPS = 1e-3
FORWARD = ["moments", "normalize", "forward"]
BACKWARD = ["gradient_sums", "input_gradient", "backward", "relu_gradient"]
FUNCTIONS = [*FORWARD, *BACKWARD, "exact_sums", "launches", "own_launches"]
SHAPES = [
    (1, 5, 3, 1, 1),
    (1, 2, 37, 1, 49),
    (1, 2, 3, 1, 1023),
    (1, 3, 2, 1, 20_011),
    (1, 30_011, 5, 1, 1),
    (1, 33, 130, 1, 9),
    (1, 1, 1, 1, 70_001),
    (4, 1, 3, 1, 49),
    (3, 1, 2, 1, 9001),
    (7, 1, 3, 1, 1),
    (2, 9001, 3, 1, 1),
    (3, 1, 2, 4, 9),
    (2, 1, 3, 2, 5003),
    (3, 49, 2, 4, 1),
    (300, 10, 3, 1, 1),
    (4, 601, 2, 300, 1),
    (2, 5003, 2, 3, 1),
    (2, 7, 3, 2, 5),
    (900, 1, 1, 7, 1),
    (5, 1, 1, 128, 1),
    (3, 1, 1, 20_011, 1),
]
BATCHES = [s for s in SHAPES if s[0] == s[3] == 1]
DTYPES = quickly([np.float32], np.float64, np.float16)
over_shapes = pytest.mark.parametrize("shape", SHAPES, ids=str)
over_batches = pytest.mark.parametrize("shape", BATCHES, ids=str)
over_dtypes = pytest.mark.parametrize("dtype", DTYPES)
over_centring = pytest.mark.parametrize(  # without a mean, as RMS norm is: rows alone
    ("shape", "centred"), [(s, c) for s in SHAPES for c in (True, False) if c or s[1] == 1], ids=str
)
# of dtypes and what else a call may have, not all together: each pair is compiled anew
PAIRS = quickly_pairs(
    [(np.float32, False)],
    [(np.float32, True), (np.float64, True), (np.float16, False)],
)
over_masks = pytest.mark.parametrize(("dtype", "masked"), PAIRS)
shapes = st.tuples(*(st.integers(1, n) for n in (4, 9, 5, 6, 40)))


class Problem:
    """Arrays over five axes, of one shape and dtype."""

    def __init__(self, shape, dtype, masked=False, seed=0):
        rng = np.random.default_rng([seed, *shape])
        self.dtype = np.dtype(dtype)
        self.x = rng.normal(3, 2, shape).astype(dtype)
        self.dy = rng.normal(size=shape).astype(dtype)
        self.residual = rng.normal(size=shape).astype(dtype)
        self.where = rng.random(shape) < 0.7 if masked else None
        if masked:
            self.where[:, :1] = True
        channels = shape[2] * shape[3]
        self.gamma, self.beta = rng.normal(size=(2, channels))
        self.mean = rng.normal(self.x.astype(float).mean(), 1, (shape[0], shape[2]))
        self.var = rng.uniform(2, 6, (shape[0], shape[2]))
        self.low = rng.normal(0, 1e-3, (shape[0], shape[2]))  # more than means lose, to be seen

    def empty(self, module):
        """An output: of its dtype, but unrounded from the reference."""
        dtype = np.float64 if module is reference else self.dtype
        return np.full(self.x.shape, np.nan, dtype)

    def near(self, got, want, rounded=True):
        """Compare with the reference, within the precision the arithmetic is done in."""
        working = 2.0**-52 if self.dtype == np.float64 else 2.0**-23
        half = {"float16": 2.0**-11, "bfloat16": 2.0**-8}.get(self.dtype.name, 0.0)
        rtol = 4 * working + half * 1.01 * rounded
        scale = max(1.0, np.nanmax(np.abs(want), initial=0))
        room = (200 if self.dtype == np.float64 else 8) * working
        got = np.asarray(got).astype(np.float64)
        np.testing.assert_allclose(got, want, rtol=rtol, atol=room * scale)


@pytest.fixture(params=["cpu"])
def module(request):
    return importlib.import_module(f"numba_bn._kernels.{request.param}")


@pytest.fixture
def compare(module):
    """Run a call on a backend and on the reference; returns both results."""
    return lambda call: (call(module), call(reference))


def arguments(function):
    parameters = inspect.signature(function).parameters.values()
    return [(p.name, p.kind, p.default) for p in parameters]


def test_backends_are_twins(module):
    own = [n for n, f in vars(reference).items() if isinstance(f, FunctionType) and n[0] != "_"]
    assert own == FUNCTIONS
    for name in FUNCTIONS:
        assert arguments(getattr(module, name)) == arguments(getattr(reference, name)), name


def assert_moments(got, want):
    assert [v.dtype for v in got] == [np.float64] * 4
    assert np.array_equal(got[0], want[0])
    np.testing.assert_allclose(got[1], want[1], rtol=1e-13)
    np.testing.assert_allclose(got[3], want[3], rtol=1e-12, atol=1e-25)
    apart = np.nan_to_num((got[1] - want[1]) + (got[2] - want[2]))
    assert (np.abs(apart) <= 1e-13 * np.sqrt(want[3] / np.maximum(want[0], 1))).all()


@over_shapes
@over_masks
def test_moments(compare, shape, dtype, masked):
    p = Problem(shape, dtype, masked)
    assert_moments(*compare(lambda module: module.moments(p.x, p.where)))


@pytest.mark.parametrize(
    ("shape", "middle"),
    [
        ((5, 400, 3, 2, 1), (200, 0, 0)),
        ((5, 1, 3, 2, 200), (0, 1, 0)),
        ((5, 1, 6, 1, 400), (0, 0, 200)),
    ],
    ids=str,
)
def test_groups_whose_middle_is_far_from_their_mean(compare, shape, middle):
    """Their sums are taken once more, those of their neighbours are not."""
    p = Problem(shape, np.float64)
    o, k, i = middle
    p.x[::2, o, ::2, k, i] = 1e7

    def call(module):
        y, dx = p.empty(module), p.empty(module)
        moments = module.forward(p.x, p.gamma, p.beta, EPS, y)
        return y, moments, (dx, *module.backward(p.dy, p.x, p.gamma, EPS, dx))

    (y, moments, gradients), (expected, known, right) = compare(call)
    p.near(y, expected)
    assert_moments(moments, known)
    assert_gradients(p, (gradients, right), p.x.size / p.gamma.size)


def test_one_channel_is_the_same_first_or_last(module):
    first, last = (9, 1, 1, 1, 1023), (9, 1023, 1, 1, 1)
    p = Problem(first, np.float32)

    def call(shape):
        x, dy, y, dx = (a.reshape(shape) for a in (p.x, p.dy, p.empty(module), p.empty(module)))
        moments = module.forward(x, p.gamma, p.beta, EPS, y)
        return y, *moments, dx, *module.backward(dy, x, p.gamma, EPS, dx)

    for one, other in zip(call(first), call(last), strict=True):
        assert np.array_equal(one.ravel(), other.ravel())


@over_shapes
def test_moments_of_nothing(compare, shape):
    p = Problem(shape, np.float32, masked=True)
    p.where[:, :, 0] = False
    got, want = compare(lambda module: module.moments(p.x, p.where))
    assert_moments(got, want)
    assert (got[0][:, 0] == 0).all()
    assert np.isnan(got[1][:, 0]).all()
    assert (got[3][:, 0] == 0).all()


@over_shapes
@pytest.mark.parametrize(("dtype", "added"), PAIRS)
@pytest.mark.parametrize("relu", [False, True])
def test_normalize(compare, shape, dtype, added, relu):
    p = Problem(shape, dtype)

    def call(module):
        y, residual = p.empty(module), p.residual if added else None
        module.normalize(p.x, p.mean, p.var, p.gamma, p.beta, EPS, y, residual, relu)
        return y

    p.near(*compare(call))


@over_shapes
def test_normalize_by_more_digits_of_the_mean(compare, shape):
    """About a mean that float64 cannot hold, as the forward does."""
    p = Problem(shape, np.float64)
    low = np.full_like(p.mean, 2.0**-20)

    def call(module):
        y, same = p.empty(module), p.empty(module)
        module.normalize(p.x, p.mean, p.var, p.gamma, p.beta, EPS, y, low=low)
        module.normalize(p.x, p.mean + low, p.var, p.gamma, p.beta, EPS, same)
        return y, same

    for y, same in compare(call):
        p.near(y, same)


@over_centring
@over_dtypes
def test_forward(compare, shape, dtype, centred):
    p = Problem(shape, dtype)

    def call(module):
        y = p.empty(module)
        return y, module.forward(p.x, p.gamma, p.beta, EPS, y, centred=centred)

    (y, moments), (expected, known) = compare(call)
    p.near(y, expected)
    assert_moments(moments, known)


@over_centring
@over_dtypes
def test_forward_that_keeps_nothing(compare, shape, dtype, centred):
    p = Problem(shape, dtype)

    def call(module):
        y = p.empty(module)
        module.forward(p.x, p.gamma, p.beta, EPS, y, centred=centred, keep=False)
        return y

    p.near(*compare(call))


@pytest.mark.slow
@over_batches
@pytest.mark.parametrize(
    ("dtype", "masked", "added"),
    [
        *((np.float32, *pair) for pair in product([False, True], repeat=2)),
        (np.float64, True, True),
        (np.float16, False, True),
    ],
)
@pytest.mark.parametrize("relu", [False, True])
def test_forward_with_options(compare, shape, dtype, masked, added, relu):
    p = Problem(shape, dtype, masked)
    options = {"where5": p.where, "residual5": p.residual if added else None, "relu": relu}

    def call(module):
        y = p.empty(module)
        return y, module.forward(p.x, p.gamma, p.beta, EPS, y, **options)

    (y, moments), (expected, known) = compare(call)
    p.near(y, expected)
    assert_moments(moments, known)


@over_batches
@over_masks
def test_gradient_sums(compare, shape, dtype, masked):
    p = Problem(shape, dtype, masked)
    got, want = compare(lambda m: m.gradient_sums(p.dy, p.x, p.mean, p.var, EPS, p.where, p.low))
    assert [v.dtype for v in got] == [np.float64] * 2
    for one, other in zip(got, want, strict=True):
        count = p.x.size / shape[2]
        p.near(one / np.sqrt(count), other / np.sqrt(count), rounded=False)


@over_batches
@over_masks
@pytest.mark.parametrize("training", [False, True])
def test_input_gradient(compare, shape, dtype, masked, training):
    p = Problem(shape, dtype, masked)
    count = np.full(p.mean.shape, p.x.size / shape[2])
    sums = (
        reference.gradient_sums(p.dy, p.x, p.mean, p.var, EPS, p.where, p.low) if training else None
    )

    def call(module):
        dx = p.empty(module)
        given = p.mean, p.var, p.gamma, sums, count
        module.input_gradient(p.dy, p.x, *given, EPS, dx, p.where, p.low)
        return dx

    p.near(*compare(call))


def assert_gradients(p, results, count):
    (dx, *sums), (expected, *known) = results
    p.near(dx, expected)
    assert [v.dtype for v in sums] == [np.float64] * 2
    for got, want in zip(sums, known, strict=True):
        p.near(got / np.sqrt(count), want / np.sqrt(count), rounded=False)


@over_batches
@over_masks
@pytest.mark.parametrize("training", [False, True])
def test_backward_of_given_statistics(compare, shape, dtype, masked, training):
    p = Problem(shape, dtype, masked)
    count = np.full(p.mean.shape, p.x.size / shape[2]) if training else None

    def call(module):
        dx = p.empty(module)
        given = p.mean, p.var if count is None else p.var * count, count, p.low
        return dx, *module.backward(p.dy, p.x, p.gamma, EPS, dx, given, p.where)

    assert_gradients(p, compare(call), p.x.size / shape[2])


@over_centring
@over_dtypes
def test_backward_of_own_statistics(compare, shape, dtype, centred):
    p = Problem(shape, dtype)

    def call(module):
        dx = p.empty(module)
        return dx, *module.backward(p.dy, p.x, p.gamma, EPS, dx, centred=centred)

    assert_gradients(p, compare(call), p.x.size / p.gamma.size)


@over_shapes
@pytest.mark.parametrize("dtype", quickly([np.float32], np.float64, np.float16, bfloat16))
def test_relu_gradient(compare, shape, dtype):
    p = Problem(shape, dtype)
    y = p.residual.copy()
    y.reshape(-1)[::5] = 0

    def call(module):
        out = np.full(shape, np.nan, dtype)
        module.relu_gradient(p.dy, y, out)
        return out

    got, want = compare(call)
    assert np.array_equal(got, want)


@given(shapes, st.sampled_from([np.float32, np.float64]), st.booleans(), st.integers(0, 99))
def test_any_shape(compare, shape, dtype, centred, seed):
    centred = centred or shape[1] > 1
    p = Problem(shape, dtype, seed=seed)

    def call(module):
        y, dx = p.empty(module), p.empty(module)
        moments = module.forward(p.x, p.gamma, p.beta, EPS, y, centred=centred)
        return y, moments, (dx, *module.backward(p.dy, p.x, p.gamma, EPS, dx, centred=centred))

    (y, moments, gradients), (expected, known, right) = compare(call)
    p.near(y, expected)
    assert_moments(moments, known)
    assert_gradients(p, (gradients, right), p.x.size / p.gamma.size)


@given(shapes, st.booleans(), st.booleans(), st.integers(0, 99))
def test_any_mask(compare, shape, added, relu, seed):
    shape = (1, *shape[1:3], 1, shape[4])
    p = Problem(shape, np.float64, masked=True, seed=seed)
    options = {"where5": p.where, "residual5": p.residual if added else None, "relu": relu}

    def call(module):
        y, dx = p.empty(module), p.empty(module)
        count, mean, low, m2 = module.forward(p.x, p.gamma, p.beta, EPS, y, **options)
        given = mean, m2, count, low
        return y, (dx, *module.backward(p.dy, p.x, p.gamma, EPS, dx, given, p.where))

    (y, gradients), (expected, right) = compare(call)
    p.near(y, expected)
    assert_gradients(p, (gradients, right), p.x.size / p.gamma.size)
