"""The PTX of every plan, run over the edges of every layout, against the reference backend."""

import numpy as np
import pytest
from problems import DEVICE, EPS, Problem, assert_near, dtype_of, execute

from numba_bn._kernels import reference
from numba_bn._kernels.cuda import plan as plans
from numba_bn._kernels.cuda.plan import Call

F64 = np.dtype(np.float64)
_PAIRS = {
    "float32": "float32", "float64": "float64", "float16": "float16", "bfloat16": "bfloat16",
    "uint8": "float32", "int8": "float32", "uint16": "float32", "int16": "float32",
    "uint32": "float64", "int32": "float64", "uint64": "float64", "int64": "float64",
}  # fmt: skip
BATCH = {
    "planes": (1, 3, 4, 1, 640),
    "planes of one sample": (1, 1, 37, 1, 256),
    "odd planes": (1, 2, 3, 1, 601),
    "one channel": (1, 5, 1, 1, 700),
    "one value": (1, 1, 1, 1, 1),
    "one odd row": (1, 1, 1, 1, 9001),
    "small planes": (1, 40, 4, 1, 49),
    "small planes, some odd": (1, 33, 5, 1, 7),
    "rows": (1, 500, 64, 1, 1),
    "few rows": (1, 3, 64, 1, 1),
    "one row": (1, 1, 64, 1, 1),
    "three columns": (1, 1000, 3, 1, 1),
    "37 columns": (1, 240, 37, 1, 1),
    "63 columns, an odd number": (1, 33, 63, 1, 1),
    "more columns than a tile": (1, 20, 200, 1, 1),
}
OWN = {
    "instance, planes": (3, 1, 2, 1, 704),
    "instance, columns": (2, 90, 5, 1, 1),
    "instance, small planes": (3, 1, 5, 1, 49),
    "instance, values": (3, 1, 5, 1, 1),
    "group, planes": (3, 1, 2, 2, 704),
    "group, small planes": (3, 1, 2, 3, 49),
    "group, columns": (4, 50, 4, 3, 1),
    "layer": (7, 1, 1, 128, 1),
    "layer, odd": (7, 1, 1, 37, 1),
    "layer, one row": (1, 1, 1, 1000, 1),
    "layer, one value": (5, 1, 1, 1, 1),
    "group, long planes": (1, 1, 2, 2, 40_000),
}
ODD = {
    "odd planes", "one value", "one odd row", "small planes, some odd", "one row",
    "63 columns, an odd number", "instance, small planes", "instance, values",
    "group, small planes", "layer, odd", "layer, one value",
}  # fmt: skip
"""Shapes that have no whole vectors somewhere: float64's code is float32's there, but its loads."""
OF_EACH_LAYOUT = {
    "planes", "odd planes", "small planes", "rows", "63 columns, an odd number",
    "more columns than a tile", "instance, planes", "instance, columns", "group, planes",
    "group, small planes", "layer", "layer, odd",
}  # fmt: skip


def over_floats(shapes):
    """Run a test over shapes in float32, and of each layout in bfloat16 and float64."""
    cases = [
        pytest.param(shape, dtype, id=f"{dtype}-{name}")
        for dtype in ("float32", "float64", "bfloat16")
        for name, shape in shapes.items()
        if dtype == "float32"
        or (name in OF_EACH_LAYOUT and not (dtype == "float64" and name in ODD))
    ]
    return pytest.mark.parametrize(("shape", "dtype"), cases)


over_batches = pytest.mark.parametrize("shape", BATCH.values(), ids=BATCH)
PLANES, ROWS = BATCH["planes"], BATCH["rows"]
HALF_VECTORS = (1, 3, 4, 1, 648)
"""Planes whose bytes are no whole vectors of 16."""
pytestmark = pytest.mark.slow


def call_of(shape, dtype, **options):
    wide = "float64" if _PAIRS[dtype] == "float64" else "float32"
    return Call(shape, dtype, _PAIRS[dtype], wide, **options)


def assert_moments(problem, run, known=None):
    count, mean, low, m2 = known or problem.moments()
    got = run.results
    assert np.array_equal(got["count"], count)
    std = np.sqrt(m2 / count) + 1e-30
    wide = problem.call.y == "float64"
    assert (
        np.abs((got["mean"] - mean) + (got["low"] - low))
        <= (1e-14 if wide else 3e-7) * std + 4e-16 * np.abs(mean)
    ).all()
    assert (np.abs(got["m2"] - m2) <= (1e-13 if wide else 1e-6) * m2 + 1e-300).all()


@over_floats({**BATCH, **OWN})
def test_moments(shape, dtype):
    p = Problem(call_of(shape, dtype))
    assert_moments(p, p.run(plans.moments(p.call, DEVICE), "count", "mean", "low", "m2"))


@pytest.mark.parametrize(
    ("dtype", "shape"),
    [
        *((dtype, (PLANES, ROWS)[k % 2]) for k, dtype in enumerate(_PAIRS)),
        ("float16", ROWS), ("uint8", ROWS), ("uint8", HALF_VECTORS),
    ],
)  # fmt: skip
def test_every_dtype(shape, dtype):
    p = Problem(call_of(shape, dtype))
    run = p.run(plans.forward(p.call, EPS, DEVICE), "y", "count", "mean", "low", "m2")
    assert_moments(p, run)
    want = np.empty(shape)
    reference.forward(p.arrays["x"], p.parameter("gamma"), p.parameter("beta"), EPS, want)
    assert_near(run.results["y"], want, dtype_of(p.call.y))


@over_floats({**BATCH, **OWN})
def test_forward(shape, dtype):
    p = Problem(call_of(shape, dtype))
    run = p.run(plans.forward(p.call, EPS, DEVICE, keep=False), "y")
    want = np.empty(shape)
    reference.forward(p.arrays["x"], p.parameter("gamma"), p.parameter("beta"), EPS, want)
    assert_near(run.results["y"], want, dtype_of(p.call.y), 2.0)


@pytest.mark.parametrize("shape", [s for s in OWN.values() if s[3] > 1])
def test_rms(shape):
    p = Problem(call_of(shape, "float32", beta=False))
    run = p.run(plans.forward(p.call, EPS, DEVICE, centred=False, keep=False), "y")
    want = np.empty(shape)
    x, gamma, beta = p.arrays["x"], p.parameter("gamma"), p.parameter("beta")
    reference.forward(x, gamma, beta, EPS, want, centred=False)
    assert_near(run.results["y"], want, dtype_of(p.call.y))


@over_batches
@pytest.mark.parametrize("masked", [False, True])
def test_forward_with_mask_residual_relu(shape, masked):
    p = Problem(call_of(shape, "float32", masked=masked, residual=True, relu=True))
    if not p.arrays["count"].all():
        p.arrays["where"][...] = 1
        p.where = None
    run = p.run(plans.forward(p.call, EPS, DEVICE), "y", "count", "mean", "low", "m2")
    want = np.empty(shape)
    given = p.arrays["x"], p.parameter("gamma"), p.parameter("beta"), EPS, want
    known = reference.forward(*given, p.where, p.residual, True)
    assert_moments(p, run, known)
    assert_near(run.results["y"], want, dtype_of(p.call.y), 4.0)


@over_batches
@pytest.mark.parametrize("given", ["float64", "float32"])
def test_normalize(shape, given):
    p = Problem(call_of(shape, "float32", given=given, gamma=False))
    for name in ("mean", "var"):
        p.arrays[name] = p.arrays[name].astype(given)
    run = p.run(plans.normalize(p.call, EPS, DEVICE), "y")
    want = np.empty(shape)
    mean, var = (p.arrays[name].astype(F64) for name in ("mean", "var"))
    x, gamma, beta = p.arrays["x"], p.parameter("gamma"), p.parameter("beta")
    reference.normalize(x, mean, var, gamma, beta, EPS, want)
    assert_near(run.results["y"], want, dtype_of(p.call.y), 2.0)


def assert_gradients(p, run, dx, dgamma, dbeta, centred=True):
    got, count = run.results, p.arrays["x"].size / p.arrays["gamma"].size
    assert_near(got["dx"], dx, dtype_of(p.call.y), p.gradient_size(centred))
    unit = np.dtype(np.float64 if p.call.y == "float64" else np.float32)
    for name, want in (("dgamma", dgamma), ("dbeta", dbeta)):
        assert_near(got[name] / np.sqrt(count), want / np.sqrt(count), unit, 2.0)


def assert_backward(p, training):
    run = p.run(plans.backward(p.call, EPS, DEVICE, training), "dx", "dgamma", "dbeta")
    dx = np.empty(p.call.shape)
    a = p.arrays
    low = a["low"] if p.call.stats else np.zeros_like(a["low"])
    given = a["mean"], a["var"], None, low
    if training:
        given = a["mean"], a["var"] * a["count"], a["count"], low
    dgamma, dbeta = reference.backward(
        a["dy"], a["x"], p.parameter("gamma"), EPS, dx, given, p.where
    )
    assert_gradients(p, run, dx, dgamma, dbeta)


@over_floats(BATCH)
@pytest.mark.parametrize("training", [False, True])
def test_backward(shape, dtype, training):
    assert_backward(Problem(call_of(shape, dtype)), training)


@over_batches
def test_of_constant_statistics_dx_is_made_of_dy_alone(shape):
    p = Problem(call_of(shape, "float32"))
    p.arrays["x"][...] = p.arrays["mean"][...] = np.nan
    run = p.run(plans.input_gradient(p.call, EPS, DEVICE, False), "dx")
    a, dx = p.arrays, np.empty(shape)
    given = a["mean"], a["var"], p.parameter("gamma"), None, None
    reference.input_gradient(a["dy"], a["x"], *given, EPS, dx)
    assert np.isfinite(run.results["dx"]).all()
    assert_near(run.results["dx"], dx, dtype_of(p.call.y), 2.0)


@pytest.mark.parametrize("shape", [PLANES, ROWS])
def test_backward_at_a_large_mean(shape):
    assert_backward(Problem(call_of(shape, "float64", stats=True), mean=1e8, std=1.0), True)


@pytest.mark.parametrize("shape", [PLANES, HALF_VECTORS, ROWS])
def test_backward_of_bytes(shape):
    assert_backward(Problem(call_of(shape, "uint8")), True)


@pytest.mark.parametrize("shape", [s for s in BATCH.values() if s[1] > 1 or s[4] > 1])
@pytest.mark.parametrize("training", [False, True])
def test_backward_of_what_a_mask_leaves(shape, training):
    p = Problem(call_of(shape, "float32", masked=True, stats=True))
    assert p.arrays["count"].all()
    assert_backward(p, training)


def test_layer_norm_of_bytes():
    p = Problem(call_of(OWN["layer"], "uint8"))
    y = p.run(plans.forward(p.call, EPS, DEVICE, keep=False), "y").results["y"]
    run = p.run(plans.backward_own(p.call, EPS, DEVICE), "dx", "dgamma", "dbeta")
    want, dx, a = np.empty(p.call.shape), np.empty(p.call.shape), p.arrays
    reference.forward(a["x"], p.parameter("gamma"), p.parameter("beta"), EPS, want)
    sums = reference.backward(a["dy"], a["x"], p.parameter("gamma"), EPS, dx)
    assert_near(y, want, dtype_of("float32"), 2.0)
    assert_gradients(p, run, dx, *sums)


@over_floats(OWN)
@pytest.mark.parametrize("centred", [True, False])
def test_backward_own(shape, dtype, centred):
    p = Problem(call_of(shape, dtype))
    run = p.run(plans.backward_own(p.call, EPS, DEVICE, centred), "dx", "dgamma", "dbeta")
    dx = np.empty(shape)
    a = p.arrays
    dgamma, dbeta = reference.backward(
        a["dy"], a["x"], p.parameter("gamma"), EPS, dx, centred=centred
    )
    assert_gradients(p, run, dx, dgamma, dbeta, centred)


@over_floats({name: BATCH[name] for name in ("planes", "odd planes", "one value", "one odd row")})
def test_relu_gradient(shape, dtype):
    p = Problem(call_of(shape, dtype))
    y = np.maximum(p.arrays["residual"].astype(F64), 0.0)
    y.flat[::7] = np.nan  # lets its gradient through, as on the CPU
    p.arrays["y"] = y.astype(dtype_of(dtype))
    dx = p.run(plans.relu_gradient(p.call, DEVICE), "dx").results["dx"]
    want = np.empty(shape)
    reference.relu_gradient(p.arrays["dy"], p.arrays["y"], want)
    assert np.array_equal(dx.astype(F64), want)


@pytest.mark.parametrize("channels", [1, 63, 1000])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_update_running(channels, dtype):
    rng, momentum, correction = np.random.default_rng(channels), 0.3, 1.0
    mean, var, batch, m2 = rng.normal(1.0, 0.2, (4, channels)) ** 2
    count = rng.integers(2, 50, channels).astype(F64)
    count[::3], count[1::5] = 0.0, 1.0  # nothing seen; too few for a variance
    running = {"running_mean": mean.astype(dtype), "running_var": var.astype(dtype)}
    given = {"count": count, "mean": batch, "m2": m2}
    results = dict.fromkeys(("new_mean", "new_var"), ((channels,), dtype))
    plan = plans.update_running(channels, dtype, momentum, correction)
    got = execute(plan, running | given, results).results.values()
    variance = m2 / np.maximum(count - correction, 1.0)
    both = zip(got, running.values(), (batch, variance), (0, 1), strict=True)
    for new, before, now, least in both:
        moved = before.astype(F64) * (1.0 - momentum) + momentum * now
        want = np.where(count > least, moved, before)
        assert np.array_equal(new[count <= least], before[count <= least])
        assert_near(new, want, np.dtype(dtype))
