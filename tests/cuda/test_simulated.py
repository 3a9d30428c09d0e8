"""The public calls with every launch run by the interpreter: CuPy's in, the CPU's results out."""

from fractions import Fraction

import numpy as np
import oracle
import pytest
from oracle import assert_near
from table import EPS, SMALL, Case, backward, data, forward, name, quickly, some_mask

import numba_bn as nbn

target = pytest.importorskip("numba_bn._kernels.cuda.target", exc_type=ImportError)
pytestmark = pytest.mark.parametrize("bench", [True], indirect=True, ids=["run"])
CASES = quickly([SMALL[0], SMALL[1], SMALL[4], SMALL[6], SMALL[8], SMALL[12]], *SMALL)


def on_device(d, cupy):
    """The arrays of a case on the device."""
    return type(d)(*(cupy.array(array) for array in d))


def looked_at(gradients):
    """Gradients as NumPy arrays."""
    return [None if g is None else g.view for g in gradients]


@pytest.mark.parametrize("case", CASES, ids=name)
def test_forward_and_backward_are_the_textbooks(bench, case):
    d = data(case, np.float32)
    theirs = on_device(d, bench.cupy)
    assert_near(forward(case, theirs).view, oracle.forward(case, d))
    dx, dgamma, dbeta, _ = looked_at(backward(case, theirs))
    want = oracle.backward(case, d)
    assert_near(dx, want.dx)
    assert_near(dgamma, want.dgamma)
    if dbeta is not None:
        assert_near(dbeta, want.dbeta)


@pytest.mark.parametrize("case", quickly([SMALL[0], SMALL[8]], *SMALL), ids=name)
def test_a_call_made_again_is_right_of_other_arrays(bench, case):
    for seed in range(2):
        d = data(case, np.float32, seed=seed)
        theirs = on_device(d, bench.cupy)
        assert_near(forward(case, theirs).view, oracle.forward(case, d))
        got, want = backward(case, theirs), oracle.backward(case, d)
        assert_near(got.dx.view, want.dx)
        assert_near(got.dgamma.view, want.dgamma)


@pytest.mark.parametrize("chunks", [1, 2])
def test_chunks_on_a_device_have_statistics_on_the_cpu(bench, chunks):
    parts = [data(SMALL[0], np.float32, seed=seed).x for seed in range(chunks)]
    found = nbn.ChannelStats.from_chunks(map(bench.cupy.array, parts))
    want = nbn.channel_stats(np.concatenate(parts))
    assert type(found) is nbn.ChannelStats
    assert np.array_equal(found.count, want.count)
    np.testing.assert_allclose(found.mean, want.mean, rtol=1e-6)
    np.testing.assert_allclose(found.m2, want.m2, rtol=1e-6)


def test_a_mask_a_residual_and_a_relu(bench):
    case = SMALL[0]
    d, mask = data(case, np.float32), some_mask(case)
    residual = data(case, np.float32, seed=1).x
    theirs, make = on_device(d, bench.cupy), bench.cupy.array
    options = {"where": make(mask), "residual": make(residual), "activation": "relu"}
    want = oracle.forward(case, d, mask, residual, "relu")
    assert_near(forward(case, theirs, **options).view, want)


def test_relu_backward_by_the_statistics_of_the_forward(bench):
    x, dy = (data(SMALL[0], np.float32)[i] for i in (0, 1))
    mask, results = some_mask(SMALL[0]), []
    for make, look in ((np.asarray, np.asarray), (bench.cupy.array, lambda a: a.view)):
        on = {"where": make(mask), "activation": "relu"}
        y, stats = nbn.batch_norm_train(make(x), **on)
        got = nbn.batch_norm_backward(make(dy), make(x), stats=stats, y=y, **on)
        results.append([look(item) for item in got])
    for ours, theirs in zip(*results, strict=True):
        np.testing.assert_allclose(theirs, ours, rtol=1e-5, atol=1e-5)


def test_statistics_of_the_host_serve_a_backward_on_the_device(bench):
    d = data(SMALL[0], np.float32)
    stats = nbn.channel_stats(d.x)
    make = bench.cupy.array
    got = nbn.batch_norm_backward(make(d.dy), make(d.x), stats=stats)
    want = nbn.batch_norm_backward(d.dy, d.x, stats=stats)
    np.testing.assert_allclose(got.dx.view, want.dx, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("axes", [(1,), (1, 2), (1, 3)])
def test_statistics_come_to_the_host_when_asked(bench, axes):
    x, mask = data(SMALL[0], np.float32).x, some_mask(SMALL[0])
    make = bench.cupy.array
    got = nbn.channel_stats(make(x), channel_axis=axes, where=make(mask))
    want = nbn.channel_stats(x, channel_axis=axes, where=mask)
    assert got.mean.shape == want.mean.shape
    host = got.get()
    np.testing.assert_array_equal(host.count, want.count)
    np.testing.assert_allclose(host.mean, want.mean, rtol=1e-6)
    np.testing.assert_allclose(host.m2, want.m2, rtol=1e-6)
    np.testing.assert_allclose(got.m2.view, want.m2, rtol=1e-6)
    assert host.merge(want).count.sum() == 2 * want.count.sum()
    whole = nbn.channel_stats(x, channel_axis=axes).update(make(x), channel_axis=axes)
    assert whole.count.sum() == 2 * x.size


def test_what_the_mean_loses_to_rounding_comes_along(bench):
    x = (1e8 + np.arange(70) / 7).reshape(-1, 1)
    host = nbn.channel_stats(bench.cupy.array(x)).get()
    exact = sum(map(Fraction, x.ravel().tolist())) / 70
    assert host._moments.low[0] != 0
    found = Fraction(float(host.mean[0])) + Fraction(float(host._moments.low[0]))
    assert abs(found - exact) < abs(Fraction(float(host.mean[0])) - exact) / 100


@pytest.mark.parametrize("policy", ["omit", "raise"])
def test_nan_policies(bench, policy):
    x = data(SMALL[0], np.float32).x
    x[0, 1] = np.nan
    theirs = bench.cupy.array(x)
    if policy == "raise":
        with pytest.raises(ValueError, match="has NaN, with nan_policy='raise'"):
            nbn.channel_stats(theirs, nan_policy=policy)
        return
    got, want = (nbn.channel_stats(a, nan_policy=policy) for a in (theirs, x))
    np.testing.assert_array_equal(got.get().count, want.count)


def test_a_layer_trains_as_on_the_cpu(bench):
    case = Case("batch", (3, 4, 5, 6))
    ours, theirs = nbn.BatchNorm2d(4, eps=EPS), nbn.BatchNorm2d(4, eps=EPS)
    for seed in range(2):
        d = data(case, np.float32, seed=seed)
        y = theirs(bench.cupy.array(d.x))
        np.testing.assert_allclose(y.view, ours(d.x), rtol=1e-5, atol=1e-5)
        dx = theirs.backward(bench.cupy.array(d.dy))
        np.testing.assert_allclose(dx.view, ours.backward(d.dy), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(theirs.dgamma.view, ours.dgamma, rtol=1e-4, atol=1e-5)
    state, want = theirs.state_dict(), ours.state_dict()
    np.testing.assert_allclose(state["running_mean"], want["running_mean"], rtol=1e-6)
    np.testing.assert_allclose(state["running_var"], want["running_var"], rtol=1e-6)
    y = theirs.eval()(bench.cupy.array(d.x))
    np.testing.assert_allclose(y.view, ours.eval()(d.x), rtol=1e-5, atol=1e-5)


def test_exact_running_statistics_are_kept_on_the_host(bench):
    x = data(SMALL[0], np.float32).x
    running = nbn.RunningStats(4, momentum=None)
    running.update(nbn.channel_stats(bench.cupy.array(x)))
    np.testing.assert_allclose(running.running_mean, nbn.channel_stats(x).mean, rtol=1e-6)
