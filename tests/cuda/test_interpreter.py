"""What the interpreter is for: bytes read, the same bits in any order, faults that are planted."""

import re

import numpy as np
import pytest
from problems import DEVICE, EPS, Problem, dtype_of, execute, ptx_of
from ptx_program import PtxError, parse

from numba_bn._kernels.cuda import plan as plans
from numba_bn._kernels.cuda.plan import Call

pytestmark = pytest.mark.slow

SHAPES = {
    "planes": (1, 4, 3, 1, 12_000),
    "small planes": (1, 600, 8, 1, 49),
    "rows": (1, 20_000, 64, 1, 1),
}
over_shapes = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
EVERYTHING = ("y", "count", "mean", "low", "m2")


@over_shapes
def test_bytes_read(shape):
    p = Problem(Call(shape, "float32"))
    size = p.arrays["x"].nbytes
    statistics = p.run(plans.moments(p.call, DEVICE), *EVERYTHING[1:]).memory
    assert size <= statistics.read_bytes <= 1.15 * size
    assert statistics.wide_read_bytes == size
    inference = p.run(plans.normalize(p.call, EPS, DEVICE), "y").memory
    assert size == inference.wide_read_bytes <= inference.read_bytes <= 1.15 * size
    assert inference.stored_bytes == size
    gradients = p.run(plans.backward(p.call, EPS, DEVICE), "dx", "dgamma", "dbeta").memory
    assert 4 * size == gradients.wide_read_bytes <= gradients.read_bytes <= 4.6 * size


@over_shapes
def test_same_bits_in_any_order(shape):
    p = Problem(Call(shape, "float32"))
    plan = plans.forward(p.call, EPS, DEVICE)
    assert max(step.grid[1] for step in plan.steps) > 1, "nothing is split"
    first = p.run(plan, *EVERYTHING, seed=0).results
    for seed in range(1, 4):
        again = p.run(plan, *EVERYTHING, seed=seed).results
        assert all(np.array_equal(first[name], again[name]) for name in EVERYTHING)


@over_shapes
def test_a_large_mean_costs_no_digits(shape):
    p = Problem(Call(shape, "float32"), mean=1e6, std=1.0)
    p.arrays["x"].reshape(shape[1], -1)[0, 0] = 0.0  # a border of zeros
    run = p.run(plans.moments(p.call, DEVICE), *EVERYTHING[1:])
    count, mean, low, m2 = p.moments()
    off = (run.results["mean"] - mean) + (run.results["low"] - low)
    assert (np.abs(off) < 1e-6 * np.sqrt(m2 / count)).all()
    assert np.allclose(run.results["m2"], m2, rtol=1e-6, atol=0)


@pytest.mark.parametrize("size", [1e-25, 1e25])
def test_far_from_one(size):
    p = Problem(Call(SHAPES["planes"], "float32"), mean=0.0, std=size)
    run = p.run(plans.moments(p.call, DEVICE), *EVERYTHING[1:])
    assert np.allclose(run.results["m2"], p.moments()[3], rtol=1e-6, atol=0)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_spoils_its_channel_alone(value):
    p = Problem(Call(SHAPES["planes"], "float32"))
    p.arrays["x"][0, 2, 1, 0, 77] = value
    run = p.run(plans.forward(p.call, EPS, DEVICE), *EVERYTHING)
    for name in ("mean", "m2"):
        assert np.isnan(run.results[name]).tolist() == [[False, True, False]]
    assert np.isnan(run.results["y"]).all((0, 1, 3, 4)).tolist() == [False, True, False]
    assert np.isfinite(run.results["y"][:, :, [0, 2]]).all()


def test_in_place():
    p = Problem(Call(SHAPES["rows"], "float32"))
    plan = plans.forward(p.call, EPS, DEVICE)
    want = p.run(plan, *EVERYTHING).results["y"]
    steps = tuple(
        s._replace(arguments=tuple("x" if a == "y" else a for a in s.arguments)) for s in plan.steps
    )
    vector = ((1, 64), np.float64)
    results = {"x": (p.call.shape, np.float32)} | dict.fromkeys(EVERYTHING[1:], vector)
    arrays = {name: p.arrays[name] for name in ("x", "gamma", "beta")}
    assert np.array_equal(execute(plan._replace(steps=steps), arrays, results).results["x"], want)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "uint8"])
def test_unaligned(dtype):
    y = "float32" if dtype == "uint8" else dtype
    p = Problem(Call((1, 40, 4, 1, 49), dtype, y, aligned=False))
    q = Problem(Call((1, 40, 4, 1, 49), dtype, y))
    offset = dtype_of(y).itemsize
    got = p.run(plans.forward(p.call, EPS, DEVICE), *EVERYTHING, offset=offset)
    want = q.run(plans.forward(q.call, EPS, DEVICE), *EVERYTHING)
    close = {"rtol": 1e-2 if y == "bfloat16" else 1e-5, "atol": 1e-5}
    assert np.allclose(got.results["m2"], want.results["m2"], rtol=1e-6)
    assert np.allclose(got.results["y"].astype(float), want.results["y"].astype(float), **close)


# faults that are planted, to see that they are noticed


def _planted(change, dtype="float32"):
    """Run moments of rows, their PTX changed."""
    p = Problem(Call(SHAPES["rows"], dtype, dtype))
    plan = plans.moments(p.call, DEVICE)
    programs = lambda kernel, variant: parse(change(ptx_of(kernel, variant)))  # noqa: E731
    return p, p.run(plan, *EVERYTHING[1:], programs=programs)


def test_nothing_planted():
    p, run = _planted(lambda ptx: ptx)
    assert np.allclose(run.results["mean"], p.moments()[1], rtol=1e-6)


def _races(number):
    """Tell whether the interpreter sees a race without the barrier of that number."""

    def without(ptx):
        place = [found.start() for found in re.finditer(r"bar\.sync", ptx)][number]
        return ptx[:place] + "membar.cta;\n//" + ptx[place:]

    try:
        _planted(without, "bfloat16")
    except PtxError as error:
        return "race" in str(error)
    return False


def test_a_barrier_is_missing():
    p = Problem(Call(SHAPES["rows"], "bfloat16", "bfloat16"))
    step = plans.moments(p.call, DEVICE).steps[0]
    barriers = len(re.findall(r"bar\.sync", ptx_of(step.kernel, step.variant)))
    # the others order global memory, which is not looked at, or stand before another
    assert sum(map(_races, range(barriers))) >= 3


def test_a_pointer_is_misaligned():
    p = Problem(Call(SHAPES["rows"], "float32"))
    with pytest.raises(PtxError, match="misaligned 16-byte load"):
        p.run(plans.moments(p.call, DEVICE), *EVERYTHING[1:], offset=8)


def test_a_size_is_too_large():
    p = Problem(Call(SHAPES["rows"], "float32"))
    batch, outer, *rest = p.call.shape
    larger = plans.moments(p.call._replace(shape=(batch, outer + 1, *rest)), DEVICE)
    with pytest.raises(PtxError, match="out-of-bounds 16-byte load"):
        p.run(larger, *EVERYTHING[1:])


def test_a_store_goes_astray():
    p = Problem(Call(SHAPES["planes"], "float32"))
    plan = plans.normalize(p.call, EPS, DEVICE)
    wrong = lambda kernel, variant: parse(  # noqa: E731
        re.sub(
            r"(st\.global\.(?:cs\.)?v4\.\w+\s+\[%rd\d+)(\])", r"\1+16\2", ptx_of(kernel, variant)
        )
    )
    with pytest.raises(PtxError, match="out-of-bounds 16-byte store"):
        p.run(plan, "y", programs=wrong)
