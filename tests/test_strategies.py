"""How the work is cut, for caches of any size, changes no bit of a result."""

import itertools

import numpy as np
import oracle
import pytest
from oracle import assert_near
from table import CASES, HALVES, INTEGERS, Case, backward, data, forward, name

import numba_bn as nbn
from numba_bn._kernels.cpu import (
    arrays,
    caches,
    columns_input_gradient,
    gradients,
    norms,
    plain,
    plan,
    runs_backward,
    tiles,
)
from numba_bn.functional import _plain

pytestmark = pytest.mark.parametrize("backend", ["cpu"], indirect=True)
# few rows that are too long for one thread: moments first, or all of a row in one go
LONG = [Case("layer", (6, 30_000)), Case("rms", (6, 30_000)), Case("layer", (3, 32_769))]
OWN = [c for c in CASES if c.norm != "frozen"]
over_cases = pytest.mark.parametrize("case", OWN + LONG, ids=name)
TINY, MIDDLE, ENDLESS = 1 << 12, 1 << 18, 1 << 40
# summed as columns and not in one go, and written as runs by a core of that cache
WRITTEN = [
    Case("frozen", (40, 30, 7, 7)),
    Case("batch", (700, 22, 7, 7)),
    Case("instance", (2, 64, 22, 48), (2,)),
]
over_written = pytest.mark.parametrize("case", WRITTEN, ids=name)
over_caches = pytest.mark.parametrize("cache", [TINY, ENDLESS], ids=["tiny", "endless"])


def pretend(monkeypatch, cache, last=None):
    """Let a core's cache, and the last, have another size: large arrays become small, small large.

    The last one has the same size as the others unless it is given.
    """
    sizes = {2: cache, 3: cache if last is None else last}
    monkeypatch.setattr(caches, "_cache_bytes", sizes.get)
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
    for module in (caches, plan):
        monkeypatch.setattr(module, "CORES", cores)
    monkeypatch.setattr(plan, "_MIN_UNITS", min(4 * cores, 16))
    _plain._kind.cache_clear()
    for a, b in zip(results(case, d), want, strict=True):
        assert np.array_equal(a, b)


@pytest.mark.parametrize("dtype", HALVES + INTEGERS[:1], ids=name)
@pytest.mark.parametrize("norm", ["layer", "rms"])
@pytest.mark.usefixtures("backend")
def test_long_rows_of_short_values(norm, dtype, monkeypatch):
    """Their sums begin in float32, whatever cores and caches there are."""
    case = Case(norm, (12, 30_000))
    d = data(case, dtype)
    want = results(case, d)
    for cores, cache in itertools.product((1, 64), (TINY, MIDDLE, ENDLESS)):
        for module in (caches, plan):
            monkeypatch.setattr(module, "CORES", cores)
        monkeypatch.setattr(plan, "_MIN_UNITS", min(4 * cores, 16))
        pretend(monkeypatch, cache)
        for a, b in zip(results(case, d), want, strict=True):
            assert np.array_equal(a, b), f"{cores} cores, of {cache} bytes"


@pytest.mark.usefixtures("backend")
def test_channels_that_only_the_last_cache_holds(monkeypatch):
    case = Case("batch", (40, 70, 8, 9))
    d = data(case, np.float32)
    want = results(case, d)
    pretend(monkeypatch, TINY, ENDLESS)
    assert caches.l2_bytes() < d.x[:, 0].nbytes < caches.held_bytes()
    for a, b in zip(results(case, d), want, strict=True):
        assert np.array_equal(a, b)


def extreme(case, d):
    """Return data of which float32 holds the results, but not one channel's factor."""
    gamma, mean, var, x, dy = (a.copy() for a in (d.gamma, d.mean, d.var, d.x, d.dy))
    gamma[5], mean[5], var[5] = 1e38, 0, 0
    for a in (x, dy):
        np.moveaxis(a, case.axes[0], 0)[5] *= 1e-5
    return d._replace(gamma=gamma, mean=mean, var=var, x=x, dy=dy)


@over_written
@pytest.mark.parametrize("held", [True, False])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.usefixtures("backend")
def test_columns_that_are_written_as_runs(case, dtype, held, monkeypatch):
    d = data(case, dtype)
    d = d if held else extreme(case, d)
    pretend(monkeypatch, MIDDLE, ENDLESS)
    with monkeypatch.context() as patch:
        patch.setattr(plan, "_RUN_TO_WRITE", ENDLESS)
        want = results(case, d)
    _plain._kind.cache_clear()
    for module in (norms, gradients):  # it says how columns are cut to be written
        monkeypatch.setattr(module, "apply_cut", None)
    for i, (a, b) in enumerate(zip(results(case, d), want, strict=True)):
        assert np.array_equal(a, b), f"result {i}"


@pytest.mark.parametrize(
    "case",
    [*WRITTEN, Case("batch", (300, 40)), Case("instance", (9, 7, 7, 33), (-1,))],
    ids=name,
)
@pytest.mark.usefixtures("backend")
def test_a_factor_that_float32_does_not_hold(case, monkeypatch):
    """It shows in no other channel, and in no way to do it."""
    d = extreme(case, data(case, np.float32))
    y, dx = forward(case, d), backward(case, d).dx
    assert np.isfinite(y).all()
    assert np.isfinite(dx).all()
    assert_near(y, oracle.forward(case, d))
    assert_near(dx, oracle.backward(case, d).dx)
    other = d._replace(gamma=np.where(np.arange(d.gamma.size) == 5, 1, d.gamma).astype(np.float32))
    for a, b in ((y, forward(case, other)), (dx, backward(case, other).dx)):
        a, b = (np.delete(np.moveaxis(v, case.axes[0], 0), 5, 0) for v in (a, b))
        assert np.array_equal(a, b)
    for cache in (TINY, MIDDLE, ENDLESS):
        pretend(monkeypatch, cache, ENDLESS)
        assert np.array_equal(forward(case, d), y)
        assert np.array_equal(backward(case, d).dx, dx)


@pytest.mark.usefixtures("backend")
def test_samples_whose_columns_are_runs_keep_their_own_factors():
    """Runs know of one sample's."""
    for batch, kernel in (
        (1, runs_backward.input_gradient),
        (2, columns_input_gradient.input_gradient),
    ):
        made = plan.plan_of((batch, 5000, 22, 1, 48))
        assert plan.writes_runs(made, 4, False)
        assert gradients.differentiating(made, 4, False).kernel is kernel


@pytest.mark.parametrize(
    ("shape", "fused"), [((1, 64, 40, 1, 64), True), ((1, 9000, 80, 1, 1), False)]
)
@pytest.mark.usefixtures("backend")
def test_what_is_read_once_stays_longer_in_the_caches(shape, fused, monkeypatch):
    pretend(monkeypatch, MIDDLE if fused else TINY, ENDLESS)
    assert plan.one_go(plan.plan_of(shape), 4) == fused
    x = np.ones(shape, np.float32)
    between = 2 * x.nbytes + 1
    monkeypatch.setattr(arrays, "far_bytes", lambda once: between if once else 1)
    past = plain.launches(shape, x.dtype).past
    assert past == ({"trains", "differentiates"} if fused else {"differentiates"})
    far = arrays.plan_streams(plan.plan_of(shape), np.empty_like(x), x, once=True)
    assert far == ("normalizes" in past)


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


@over_caches
@pytest.mark.usefixtures("backend")
def test_channels_without_a_value_in_some_parts(cache, monkeypatch):
    x = np.random.default_rng(3).standard_normal((2048, 600), np.float32)
    x[1500, 4] = np.inf
    where = np.ones(x.shape, bool)
    where[:512, 0] = where[512:1024, 1] = where[:-1, 2] = where[:, 3] = False

    def moments(channels):
        stats = nbn.channel_stats(x[:, channels], where=where[:, channels])
        return [stats.count, stats.mean, stats.m2]

    want = [
        np.concatenate(a) for a in zip(*(moments(slice(c, c + 1)) for c in range(8)), strict=True)
    ]
    together = moments(slice(None))
    assert together[0][:5].tolist() == [1536, 1536, 1, 0, 2048]
    for a, b in zip(together, want, strict=True):
        np.testing.assert_allclose(a[:8], b, rtol=1e-12)
    pretend(monkeypatch, cache)
    for a, b in zip(moments(slice(None)), together, strict=True):
        assert np.array_equal(a, b, equal_nan=True)


@pytest.mark.usefixtures("backend")
def test_tiles_keep_their_vectors_near():
    for rows, width in itertools.product(
        (4, 16, 64), (600, 2048, 2064, 3000, 4096, 4100, 50_000, 60_000)
    ):
        for streams, most in ((False, 2048), (True, 4096)):
            tile, _ = plan.apply_cut(plan.plan_of((1, rows, width, 1, 1)), streams, 4)
            assert tile <= most or rows * width * 4 <= plan.SMALL
            assert tile <= width + 15
            assert tile % 16 == 0


@pytest.mark.usefixtures("backend")
def test_one_threads_columns_are_one_unit_and_wake_no_other():
    for rows, width, itemsize in ((128, 512, 4), (60, 1000, 4), (60, 512, 8), (200, 512, 2)):
        made = plan.plan_of((1, rows, width, 1, 1))
        assert plan.forward_tile(made, itemsize) == plan.sum_tile(made, itemsize) == width
        tile, together = plan.apply_cut(made, False, itemsize)
        assert tile >= width
        assert together == rows
    alone = plan.plan_of((1, 2048, 64, 1, 1))
    assert plan.one_go(alone, 4)
    assert plan.shared(alone, 1 << 19, plan.chunks(alone)) == 0
    more = plan.plan_of((1, 4096, 64, 1, 1))
    assert plan.shared(more, 1 << 20, plan.chunks(more)) >= 1 << 20


@pytest.mark.usefixtures("backend")
def test_what_threads_share_is_more_than_one_unit():
    for rows, width, itemsize in ((129, 512, 8), (200, 512, 8), (100, 1000, 8), (1000, 100, 12)):
        made = plan.plan_of((1, rows, width, 1, 1))
        tile, together = plan.apply_cut(made, False, itemsize)
        assert made.stride > tile or made.outer > together
        assert (
            plan.chunks(made) > 1
            or plan.sum_tile(made, itemsize) < made.stride
            or (plan.shared(made, 1 << 20) == 0)
        )


@pytest.mark.usefixtures("backend")
def test_many_groups_are_worth_threads_however_few_their_values():
    assert plan.shared(plan.plan_of((256, 49, 3, 1, 1)), 256 * 49 * 3 * 4) > plan.SMALL
    assert plan.shared(plan.plan_of((1, 2, 16384, 1, 1)), 2 * 16384 * 4) > plan.SMALL
    assert plan.shared(plan.plan_of((8192, 1, 1, 3, 1)), 8192 * 3 * 4) > plan.SMALL
    assert plan.shared(plan.plan_of((256, 1, 3, 1, 49)), 256 * 49 * 3 * 4) > plan.SMALL
    assert plan.shared(plan.plan_of((16, 49, 3, 1, 1)), 16 * 49 * 3 * 4) < plan.SMALL // 4
    assert plan.shared(plan.plan_of((2, 25, 512, 1, 1)), 2 * 25 * 512 * 4) < plan.SMALL // 2
    assert plan.shared(plan.plan_of((1024, 1, 1, 4, 1)), 1024 * 4 * 4) < plan.SMALL // 2


@pytest.mark.usefixtures("backend")
def test_few_small_samples_are_done_in_one_go():
    for batch, outer, groups in ((2, 2, 448), (2, 25, 512), (3, 9, 300)):
        assert plan.one_go(plan.plan_of((batch, outer, groups, 1, 1)), 4)


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize(
    ("shape", "columns"),
    [
        ((64, 784, 16, 1, 1), 128),
        ((64, 784, 3, 1, 1), 144),
        ((64, 49, 63, 1, 1), 63),  # whole sixteens would be three rows
        ((64, 49, 3, 1, 1), 15),
        ((1, 784, 16, 1, 1), 128),
        ((1, 7840, 16, 1, 1), 512),
        ((1, 1 << 18, 16, 1, 1), 512),
        ((1, 1 << 19, 16, 1, 1), 1024),  # rows of a page
        ((64, 1 << 13, 16, 1, 1), 1024),
        ((1, 1 << 19, 37, 1, 1), 592),  # twice as many are more than a page
        ((1, 1 << 19, 1000, 1, 1), 1000),
        ((1, 7840, 511, 1, 1), 511),  # folded they would leave the L1
    ],
)
def test_rows_are_folded_to_as_many_columns_as_pay(shape, columns):
    assert plan.plan_of(shape).stride == columns


@pytest.mark.parametrize("most", [96, 128])
@pytest.mark.usefixtures("backend")
def test_columns_that_registers_hold(most):
    for period in range(1, 300):
        columns = tiles.repeating.py_func(period, most)
        whole = np.lcm(period, 16)
        assert columns == (most // whole * whole if whole <= most else 0)
        assert columns == 0 or columns > most // 2


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
