"""Exact statistics: right to the last bit, whatever the order, the chunks and the threads."""

import math
import multiprocessing
import pickle
from itertools import product

import ml_dtypes
import numpy as np
import pytest
from exact import assert_exact
from hypothesis import given
from hypothesis import strategies as st
from table import DTYPES, quickly_pairs

import numba_bn as nbn

NAN, INF = math.nan, math.inf
LAYOUTS = [
    ((3, 5, 700), 1),
    ((150, 3, 49), 1),
    ((901, 5), 1),
    ((2, 60, 300), -1),
    ((40, 3, 7), 1),
    ((1, 37), 1),
    ((3, 17000), 0),
]


WIDE = [np.dtype(np.int64), np.dtype(np.uint64)]
MASKED = [np.dtype(t) for t in (np.float32, np.float64, ml_dtypes.bfloat16, np.uint8)]


def drawn(dtype, shape, how, seed=0):
    """Values of a dtype: ordinary ones, or any bits whatever but NaN and infinities."""
    rng = np.random.default_rng(seed)
    if dtype.kind in "iu":
        info = np.iinfo(dtype)
        return rng.integers(info.min, info.max, shape, dtype, endpoint=True)
    if how == "ordinary":
        return rng.normal(3, 2, shape).astype(dtype)
    bits = np.dtype(f"u{dtype.itemsize}")
    x = rng.integers(0, np.iinfo(bits).max, shape, bits, endpoint=True).view(dtype)
    with np.errstate(invalid="ignore"):
        return np.where(np.isfinite(x.astype(np.float64)), x, np.ones(1, dtype))


@pytest.mark.parametrize(("shape", "axis"), LAYOUTS)
@pytest.mark.parametrize("how", ["ordinary", "any bits"])
@pytest.mark.parametrize(
    ("dtype", "masked"),
    quickly_pairs(product(DTYPES, [False]), [*product(WIDE, [False]), *product(MASKED, [True])]),
    ids=str,
)
def test_every_bit_is_right(shape, axis, dtype, how, masked):
    x = drawn(dtype, shape, how)
    where = np.random.default_rng(1).random(shape) < 0.6 if masked else None
    found = nbn.channel_stats(x, channel_axis=axis, where=where, reproducible=True)
    assert_exact(found, x, axis, where)


@pytest.mark.parametrize(
    ("dtype", "masked"), [*product(DTYPES, [False]), *product(MASKED, [True])], ids=str
)
def test_the_backends_agree(dtype, masked, backend):
    x = drawn(dtype, (6, 5, 11), "any bits")
    where = np.random.default_rng(1).random(x.shape) < 0.6 if masked else None
    found = nbn.channel_stats(x, where=where, reproducible=True)
    assert_exact(found, x, 1, where)
    assert found._arrays()["sum_words"].dtype == np.int64


LARGEST = {
    "float16": (65504.0, 2.0**-24),
    "float32": (float(np.finfo(np.float32).max), 2.0**-149),
    "float64": (float(np.finfo(np.float64).max), 2.0**-1074),
    "bfloat16": (float(ml_dtypes.finfo(ml_dtypes.bfloat16).max), 2.0**-133),
}


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("axis", [0, 1])
def test_the_largest_and_the_smallest(dtype, axis):
    large, small = LARGEST[dtype]
    kind = np.dtype(getattr(ml_dtypes, dtype) if dtype == "bfloat16" else dtype)
    columns = [
        [large] * 200 + [small],
        [large, -large] * 100 + [small],
        [small] * 201,
        [small, -small] * 100 + [3 * small],
        [-0.0] * 201,
        [large, small, 1.0, -small, -1.0, -large, 0.0] * 28 + [-0.0] * 5,
    ]
    x = np.array(columns, np.float64).astype(kind)
    x = x if axis == 0 else np.ascontiguousarray(x.T)
    found = nbn.channel_stats(x, channel_axis=axis, reproducible=True)
    assert_exact(found, x, axis)
    assert found.mean[4] == 0
    assert np.isinf(found.m2[0]) == (dtype == "float64")


@given(
    st.lists(
        st.floats(allow_nan=False, allow_infinity=False)
        | st.sampled_from([1e-300, 1e300, -1e300, 1.0, 5e-324]),
        max_size=40,
    )
)
def test_any_values(values):
    x = np.array(values, np.float64).reshape(-1, 1)
    assert_exact(nbn.channel_stats(x, reproducible=True), x, 1)


@pytest.mark.parametrize("odd", [NAN, INF, -INF])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("length", [5, 400, 9001])
def test_what_is_not_finite_spoils_its_channel_alone(odd, dtype, length, backend):
    x = np.ones((3, length)).astype(getattr(ml_dtypes, dtype) if dtype == "bfloat16" else dtype)
    x[1, length // 2] = odd
    found = nbn.channel_stats(x, channel_axis=0, reproducible=True)
    np.testing.assert_array_equal(found.mean, [1, NAN, 1])
    np.testing.assert_array_equal(found.m2, [0, NAN, 0])
    np.testing.assert_array_equal(found.count, [length] * 3)
    x = np.ascontiguousarray(x.T)
    assert nbn.channel_stats(x, reproducible=True) == found
    if math.isnan(odd):
        kept = nbn.channel_stats(x, nan_policy="omit", reproducible=True)
        np.testing.assert_array_equal(kept.mean, [1, 1, 1])
        np.testing.assert_array_equal(kept.count, [length, length - 1, length])
        with pytest.raises(ValueError, match="has NaN"):
            nbn.channel_stats(x, nan_policy="raise", reproducible=True)


def test_of_nothing(backend):
    for x in (np.ones((0, 3)), np.ones((4, 3, 0))):
        found = nbn.channel_stats(x, reproducible=True)
        np.testing.assert_array_equal(found.count, [0] * 3)
        np.testing.assert_array_equal(found.mean, [NAN] * 3)
        np.testing.assert_array_equal(found.m2, [0] * 3)
    some = nbn.channel_stats([[1.0, 2.0, 3.0]], reproducible=True)
    assert found + some == some + found == some
    hidden = nbn.channel_stats([[1.0, 2.0, 3.0]], where=False, reproducible=True)
    assert hidden == found


def test_several_channel_axes(backend):
    x = drawn(np.dtype(np.float32), (3, 4, 5, 6), "ordinary")
    for axes in [(1, 2), (1, -1), (0, 3), (2, 1)]:
        found = nbn.channel_stats(x, channel_axis=axes, reproducible=True)
        kept = sorted(a % 4 for a in axes)
        flat = np.moveaxis(x, kept, (0, 1)).reshape(x.shape[kept[0]] * x.shape[kept[1]], -1)
        want = nbn.channel_stats(flat, channel_axis=0, reproducible=True)
        np.testing.assert_array_equal(found.mean.ravel(), want.mean)
        np.testing.assert_array_equal(found.m2.ravel(), want.m2)


# ---- one bit pattern ----


def bits(stats):
    """All there is, and all there is to see of it."""
    seen = stats.count, stats.mean, stats.m2, stats.var(1), stats.std()
    return {k: v.tobytes() for k, v in stats._arrays().items()}, [v.tobytes() for v in seen]


DATA = np.concatenate(
    [
        drawn(np.dtype(np.float32), (700, 20), "any bits"),
        drawn(np.dtype("f4"), (2300, 20), "ordinary"),
    ]
)
WHOLE = nbn.channel_stats(DATA, reproducible=True)


def in_a_tree(parts):
    while len(parts) > 1:
        parts = [sum(parts[i + 1 : i + 3], parts[i]) for i in range(0, len(parts), 3)]
    return parts[0]


@pytest.mark.parametrize("threads", range(1, 9))
def test_chunks_orders_and_threads(threads):
    rng = np.random.default_rng(threads)
    want = bits(WHOLE)
    with nbn.threads(threads):
        for _ in range(25):
            rows = DATA[rng.permutation(len(DATA))]
            cuts = np.sort(rng.integers(0, len(DATA), rng.integers(0, 12)))
            parts = [
                nbn.channel_stats(np.ascontiguousarray(p.T), channel_axis=0, reproducible=True)
                if rng.random() < 0.5
                else nbn.channel_stats(p, reproducible=True)
                for p in np.split(rows, cuts)
            ]
            assert bits(in_a_tree(parts)) == want
            rng.shuffle(parts)
            assert bits(sum(parts[1:], parts[0])) == want


def test_large_arrays_on_any_number_of_threads():
    x = drawn(np.dtype(np.float64), (64, 8, 5000), "ordinary")
    found = set()
    for threads in (1, 2, 3, 8):
        with nbn.threads(threads):
            for y, axis in ((x, 1), (np.ascontiguousarray(np.moveaxis(x, 1, -1)), -1)):
                stats = nbn.channel_stats(y, channel_axis=axis, reproducible=True)
                found.add(pickle.dumps(bits(stats)))
    assert len(found) == 1


def part_of(k):
    return nbn.channel_stats(DATA[k::4], reproducible=True)


@pytest.mark.slow
def test_processes():
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        parts = pool.map(part_of, range(4))
    assert bits(in_a_tree(parts[::-1])) == bits(WHOLE)


# ---- as ChannelStats ----


def test_updates():
    found = nbn.ChannelStats(*np.zeros((3, 20)))
    assert not found.reproducible
    for part in np.split(DATA, [1, 2, 900]):
        assert found.update(part, reproducible=True) is found
    assert found.reproducible
    assert bits(found) == bits(WHOLE)
    found.update(DATA)  # as it is
    assert bits(found) == bits(WHOLE + WHOLE)


def test_near_the_default():
    x = drawn(np.dtype(np.float32), (4, 5, 999), "ordinary")
    a, b = nbn.channel_stats(x), nbn.channel_stats(x, reproducible=True)
    np.testing.assert_allclose(a.mean, b.mean, rtol=1e-15)
    np.testing.assert_allclose(a.m2, b.m2, rtol=1e-14)
    rest = (a.mean - b.mean) + (a._moments.low - b._moments.low)
    assert np.abs(rest).max() < 1e-18


def test_merges_with_such_alone():
    rounded = nbn.channel_stats(DATA[700:])
    for a, b, which in ((WHOLE, rounded, "other"), (rounded, WHOLE, "self")):
        with pytest.raises(ValueError, match="reproducible") as caught:
            a.merge(b)
        assert str(caught.value) == (
            "ChannelStats.merge: statistics with reproducible=True merge with such alone, "
            f"got {which} without"
        )
    before = bits(rounded)
    with pytest.raises(ValueError, match="merge with such alone"):
        rounded.update(DATA, reproducible=True)
    assert {k: v.tobytes() for k, v in rounded._arrays().items()} == before[0]


def test_running_statistics_of_all_that_was_seen():
    running = nbn.RunningStats(20, momentum=None)
    for part in np.split(DATA[700:], [100, 900]):
        running.update(nbn.channel_stats(part, reproducible=True))
    want = nbn.channel_stats(DATA[700:], reproducible=True)
    np.testing.assert_array_equal(running.running_mean, want.mean)
    np.testing.assert_array_equal(running.running_var, want.var(1))


def test_pickles_saves_compares_and_prints(tmp_path):
    assert pickle.loads(pickle.dumps(WHOLE)) == WHOLE
    WHOLE.save(tmp_path / "whole.npz")
    loaded = nbn.ChannelStats.load(tmp_path / "whole.npz")
    assert loaded == WHOLE
    assert bits(loaded) == bits(WHOLE)
    assert loaded + WHOLE == WHOLE + WHOLE != WHOLE
    one = nbn.channel_stats([[1.0], [3.0]], reproducible=True)
    assert repr(one) == "ChannelStats(count=[2.], mean=[2.], m2=[2.], reproducible=True)"
    assert one != nbn.ChannelStats([2], [2], [2])


DAMAGE = {
    "exact_version": np.array(2),
    "sum_words": np.zeros((1, 3), np.int64),
    "square_words": np.zeros((2, 1)),
    "odd": np.zeros((2, 2), np.int64),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_files_of_something_else(tmp_path, name):
    arrays = nbn.channel_stats([[1.0]], reproducible=True)._arrays()
    np.savez(tmp_path / "other.npz", **{**arrays, name: DAMAGE[name]})
    with pytest.raises(ValueError, match=r"is not a file of ChannelStats"):
        nbn.ChannelStats.load(tmp_path / "other.npz")
    del arrays[name]
    np.savez(tmp_path / "other.npz", **arrays)
    with pytest.raises(ValueError, match=r"is not a file of ChannelStats"):
        nbn.ChannelStats.load(tmp_path / "other.npz")


def test_the_format_does_not_change():
    """Files of version 1 are kept: 3 and -1.5 · 2^40, with squares 9 and 2.25 · 2^80."""
    found = nbn.channel_stats(np.array([[3.0, -1.5 * 2.0**40]]), reproducible=True)._arrays()
    assert {k: v.tolist() for k, v in found.items()} == {
        "exact_version": 1,
        "count": [1, 1],
        "odd": [0, 0],
        "sum_place": 0,
        "sum_words": [[3, 0], [0, -384]],
        "square_place": 0,
        "square_words": [[9, 0], [0, 0], [0, 147456]],
    }
