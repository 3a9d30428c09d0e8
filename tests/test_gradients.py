"""Every backward against the numerical derivative of its forward."""

import contextlib

import numpy as np
import pytest
from table import LAYOUTS, SMALL, backward, data, forward, name, some_mask

import numba_bn as nbn

STEP = 1e-3
KINK = 0.02
"""No output may come so near to the ReLU's kink that a step could cross it."""

pytestmark = pytest.mark.usefixtures("backend")
TINY = {(3, 4, 5, 6): (2, 4, 3, 2), (3, 5, 6, 4): (2, 3, 2, 4), (9, 5): (7, 3)}
CASES = [case._replace(shape=TINY[case.shape]) for case in SMALL]
BATCH = [case for case in CASES if case.norm in ("batch", "frozen")]


@pytest.fixture
def quiet(backend):
    """Let the reference warn, which NumPy does for it, and no other backend."""
    reference = backend.__name__.endswith("reference")
    with np.errstate(all="ignore") if reference else contextlib.nullcontext():
        yield


def numerical(f, a):
    """Differentiate f() by every element of a: five-point central differences."""
    gradient = np.empty(a.shape)
    for i in np.ndindex(a.shape):
        here, values = a[i], []
        for step in (-2, -1, 1, 2):
            a[i] = here + step * STEP
            values.append(f())
        a[i] = here
        gradient[i] = (values[0] - 8 * values[1] + 8 * values[2] - values[3]) / (12 * STEP)
    return gradient


def check(case, d, residual=None, gamma=True, **options):
    """Compare all gradients of sum(dy * y) with numerical ones."""
    given = {} if residual is None else {"residual": residual}
    used = d if gamma else d._replace(gamma=None)

    def loss():
        return np.vdot(d.dy, forward(case, used, **options, **given))

    needs = {"y": forward(case, used, **options, **given)} if "activation" in options else {}
    got = backward(case, used, **options, **needs)
    np.testing.assert_allclose(got.dx, numerical(loss, d.x), rtol=1e-7, atol=1e-7)
    if gamma:
        np.testing.assert_allclose(got.dgamma, numerical(loss, d.gamma), rtol=1e-8, atol=1e-8)
    if case.norm != "rms":
        np.testing.assert_allclose(got.dbeta, numerical(loss, d.beta), rtol=1e-8, atol=1e-8)
    if residual is not None:
        into = got.dresidual if "activation" in options else d.dy
        np.testing.assert_allclose(into, numerical(loss, residual), rtol=1e-8, atol=1e-8)


def drawn(case, layout="C", seed=0):
    d = data(case, np.float64, layout, seed)
    return d._replace(gamma=d.gamma.copy(), beta=d.beta.copy())


def away_from_the_kink(case, layout, **options):
    """Return data and a residual whose outputs all keep their distance from zero."""
    for seed in range(100):
        d = drawn(case, layout, seed)
        residual = LAYOUTS[layout](data(case, seed=seed + 1000).dy * 2)
        residual += np.sign(forward(case, d, residual=residual, **options)) * KINK
        if np.abs(forward(case, d, residual=residual, **options)).min() >= KINK:
            return d, residual
    raise AssertionError("no such data")


@pytest.mark.parametrize("case", CASES, ids=name)
@pytest.mark.parametrize("layout", ["C", "F", "transposed", "interleaved", "strided"])
def test_gradients(case, layout):
    check(case, drawn(case, layout))


@pytest.mark.parametrize("case", CASES, ids=name)
def test_gradients_without_gamma(case):
    check(case, drawn(case), gamma=False)


@pytest.mark.parametrize("case", BATCH, ids=name)
@pytest.mark.parametrize("layout", ["C", "F", "transposed", "strided"])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("added", [False, True])
def test_gradients_with_options(case, layout, masked, added):
    options = {"where": some_mask(case)} if masked else {}
    d = drawn(case, layout)
    residual = LAYOUTS[layout](data(case, seed=2).dy.copy()) if added else None
    check(case, d, residual, **options)
    d, residual = away_from_the_kink(case, layout, **options)
    check(case, d, residual, activation="relu", **options)


@pytest.mark.parametrize("case", BATCH, ids=name)
def test_gradients_of_relu_alone(case):
    seeds = (drawn(case, seed=seed) for seed in range(2000))
    d = next(d for d in seeds if np.abs(forward(case, d)).min() > KINK)
    assert (forward(case, d) < 0).any()
    check(case, d, activation="relu")


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("case", [c for c in BATCH if c.norm == "frozen"], ids=name)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("layout", ["C", "strided"])
@pytest.mark.parametrize("masked", [False, True])
def test_at_test_time_dx_is_made_of_dy_alone(case, dtype, layout, masked):
    options = {"where": some_mask(case)} if masked else {}
    d = data(case, dtype, layout)
    want = backward(case, d, **options).dx
    x, mean = d.x.copy(), d.mean.copy()
    x.flat[::3], x.flat[1::3], mean[1] = np.nan, np.inf, np.nan
    got = backward(case, d._replace(x=x, mean=mean), out=d.dy, **options)
    assert got.dx is d.dy
    assert np.array_equal(got.dx, want)


@pytest.mark.usefixtures("quiet")
def test_factors_of_dy_that_are_no_numbers():
    """No warning either, where warnings are errors."""
    dy, x = np.ones((3, 4), np.float32), np.ones((3, 4), np.float32)
    gamma, var = np.array([np.inf, 1e300, 1.0, 1.0]), np.array([1.0, 1e-300, -1.0, 0.0])
    got = nbn.batch_norm_backward(dy, x, gamma, mean=np.zeros(4), var=var, eps=0.0)
    want = np.array([np.inf, np.inf, np.nan, 0.0])
    assert np.array_equal(got.dx, [want] * 3, equal_nan=True)
    np.testing.assert_allclose(got.dgamma, [3.0, 3e150, np.nan, 0.0])


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("own", [True, False])
def test_dy_goes_through_a_relu_in_full(own):
    """It is summed as it is, however short x and what goes into the residual are."""
    rng = np.random.default_rng(5)
    x, dy = rng.normal(size=(40, 3)).astype(np.float16), rng.normal(0, 1e5, (40, 3))
    dy, gamma = dy.astype(np.float32), np.full(3, 1e-3, np.float32)
    if own:
        given = {"stats": nbn.channel_stats(x)}
    else:
        given = {"mean": np.zeros(3), "var": np.ones(3)}
    through = rng.random(x.shape) < 0.7
    want = nbn.batch_norm_backward(np.where(through, dy, 0), x, gamma, **given)
    y = through.astype(np.float16)
    got = nbn.batch_norm_backward(dy, x, gamma, activation="relu", y=y, **given)
    for a, b in zip(got[:3], want[:3], strict=True):
        assert np.isfinite(a).all()
        assert np.array_equal(a, b)
    assert got.dresidual.dtype == np.float16
    inside = np.abs(dy) < 6e4
    assert np.array_equal(got.dresidual[inside], np.where(through, dy, 0)[inside].astype("f2"))
    assert np.isinf(got.dresidual[through & (np.abs(dy) > 7e4)]).all()


def test_relu_at_the_kink_lets_nothing_through():
    x, one = np.array([[0.0], [1.0], [-1.0]]), np.ones(1)
    dy = np.array([[5.0], [7.0], [9.0]])
    given = {"mean": 0 * one, "var": one, "eps": 0.0, "activation": "relu"}
    y = nbn.batch_norm(x, **given)
    got = nbn.batch_norm_backward(dy, x, y=y, **given)
    assert got.dresidual.tolist() == got.dx.tolist() == [[0.0], [7.0], [0.0]]
    assert got.dbeta.tolist() == [7.0]


SUMMED = [
    ("layer", (6, 40), -1),
    ("layer", (64, 4096), -1),  # by parts
    ("rms", (64, 4096), -1),
    ("instance", (64, 40, 16), 1),
    ("instance", (64, 40, 3, 3), 1),  # several values of a channel in a row
    ("instance", (2, 20_000, 3), -1),  # as columns, in three sweeps
    ("batch", (6, 40), -1),
    ("batch", (900, 40), -1),
]


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize(("norm", "shape", "axis"), SUMMED)
@pytest.mark.parametrize("plain", [True, False])
def test_sums_of_what_is_not_finite_or_too_large_for_gamma(norm, shape, axis, plain):
    """No warning either, where warnings are errors."""
    x = np.random.default_rng(2).standard_normal(shape, np.float32)
    dy = np.full(shape, 3e38, np.float32)
    first, second = (np.moveaxis(a, axis, 0)[1:3] for a in (dy, x))
    first[0] = 0.0
    first[0].flat[0], first[0].flat[-1] = np.inf, -np.inf
    second[0].flat[[0, -1]] = 1.0
    if not plain:
        x, dy = (np.asfortranarray(a) for a in (x, dy))
    options = {"stats": nbn.channel_stats(x, channel_axis=axis)} if norm == "batch" else {}
    options["axis" if norm in ("layer", "rms") else "channel_axis"] = axis
    got = getattr(nbn, f"{norm}_norm_backward")(dy, x, **options)
    assert got.dx.dtype == got.dgamma.dtype == np.float32
    if norm != "rms":
        assert np.isnan(got.dbeta[1])
        assert np.isposinf(np.delete(got.dbeta, 1)).all()
