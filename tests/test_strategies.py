"""How the work is cut, for caches of any size, changes no bit of a result."""

import numpy as np
import oracle
import pytest
from oracle import assert_near
from table import CASES, Case, backward, data, forward, name

import numba_bn as nbn
from numba_bn._kernels.cpu import plan
from numba_bn.functional import _plain

pytestmark = pytest.mark.parametrize("backend", ["cpu"], indirect=True)
over_cases = pytest.mark.parametrize("case", [c for c in CASES if c.norm != "frozen"], ids=name)
TINY, ENDLESS = 1 << 12, 1 << 40
over_caches = pytest.mark.parametrize("cache", [TINY, ENDLESS], ids=["tiny", "endless"])


def pretend(monkeypatch, cache, last=None):
    """Let a core's cache, and the last, have another size: large arrays become small, small large.

    The last one has the same size as the others unless it is given.
    """
    sizes = {2: cache, 3: cache if last is None else last}
    monkeypatch.setattr(plan, "_cache_bytes", sizes.get)
    _plain._kind.cache_clear()  # the backend's fixture does so again at the end


def results(case, d):
    """Return every array a case computes, and its statistics."""
    arrays = [forward(case, d), *backward(case, d)]
    if case.norm == "batch":
        stats = nbn.channel_stats(d.x, **case.options)
        arrays += [stats.count, stats.mean, stats.m2]
    return [a for a in arrays if a is not None]


@over_cases
@over_caches
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.usefixtures("backend")
def test_the_size_of_the_cache(case, dtype, cache, monkeypatch):
    d = data(case, dtype)
    want = results(case, d)
    pretend(monkeypatch, cache)
    for i, (a, b) in enumerate(zip(results(case, d), want, strict=True)):
        assert np.array_equal(a, b), f"result {i}, by {np.abs(a - b).max()}"


@over_cases
@pytest.mark.parametrize("cores", [1, 64])
@pytest.mark.usefixtures("backend")
def test_the_number_of_cores(case, cores, monkeypatch):
    d = data(case, np.float32)
    want = results(case, d)
    monkeypatch.setattr(plan, "_CORES", cores)
    monkeypatch.setattr(plan, "_MIN_UNITS", min(4 * cores, 16))
    _plain._kind.cache_clear()
    for a, b in zip(results(case, d), want, strict=True):
        assert np.array_equal(a, b)


@pytest.mark.usefixtures("backend")
def test_channels_that_only_the_last_cache_holds(monkeypatch):
    case = Case("batch", (40, 70, 8, 9))
    d = data(case, np.float32)
    want = results(case, d)
    pretend(monkeypatch, TINY, ENDLESS)
    assert plan.l2_bytes() < d.x[:, 0].nbytes < plan.held_bytes()
    for a, b in zip(results(case, d), want, strict=True):
        assert np.array_equal(a, b)


@over_caches
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.usefixtures("backend")
def test_a_channel_far_from_its_first_pivot(masked, cache, monkeypatch):
    """It moves no other's, whichever channels are summed beside it."""
    rng = np.random.default_rng(7)
    x = rng.standard_normal((2048, 1024), np.float32)
    if masked:
        x[:, 0] += 100
    else:
        x[256::512, 0] = 300  # what the first pivots are taken from
    where = rng.random(x.shape) < 0.9 if masked else None
    options = {"where": where}

    def everything():
        y, stats = nbn.batch_norm_train(x, **options)
        other = nbn.channel_stats(x, **options)
        return [y, stats.mean, stats.m2, other.mean, other.m2]

    want = everything()
    assert np.array_equal(want[1], want[3])
    pretend(monkeypatch, cache)
    for a, b in zip(everything(), want, strict=True):
        assert np.array_equal(a, b)


@over_cases
@over_caches
@pytest.mark.usefixtures("backend")
def test_every_way_is_right(case, cache, monkeypatch):
    pretend(monkeypatch, cache)
    d = data(case, np.float32)
    assert_near(forward(case, d), oracle.forward(case, d))
    got, want = backward(case, d), oracle.backward(case, d)
    assert_near(got.dx, want.dx)
    assert_near(got.dgamma, want.dgamma)
