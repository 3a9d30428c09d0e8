"""Statistics per channel: of an array, of parts."""

import copy
import math
import pickle
from fractions import Fraction

import numpy as np
import pytest
from exact import channel_moments, relative_error
from hypothesis import given
from hypothesis import strategies as st

import numba_bn as nbn

DATA = np.random.default_rng(0).normal(5.0, 3.0, (30, 4))


def stats(*rows):
    """Statistics of rows of values, one column a channel."""
    return nbn.channel_stats(np.array(rows, float))


# ---- ChannelStats ----


@pytest.mark.parametrize("correction", [0, 1, 2.5])
def test_var_and_std(correction):
    found = nbn.channel_stats(DATA)
    expected = ((DATA - DATA.mean(0)) ** 2).sum(0) / (30 - correction)
    np.testing.assert_allclose(found.var(correction), expected, rtol=1e-14)
    np.testing.assert_allclose(found.std(correction), np.sqrt(expected), rtol=1e-14)
    np.testing.assert_allclose(found.var(correction=0), DATA.var(0), rtol=1e-14)


def test_var_of_too_few_values_is_nan():
    found = nbn.ChannelStats([0, 1, 2], [np.nan, 5, 5], [0, 0, 8])
    np.testing.assert_array_equal(found.var(), [np.nan, 0, 4])
    np.testing.assert_array_equal(found.var(1), [np.nan, np.nan, 8])
    np.testing.assert_array_equal(found.std(2), [np.nan, np.nan, np.nan])


def test_vectors_are_float64_and_its_own():
    count = np.array([1, 2])
    found = nbn.ChannelStats(count, [1, 2], (3, 4))
    count[0] = 7
    assert found.count.tolist() == [1, 2]
    assert {a.dtype for a in (found.count, found.mean, found.m2)} == {np.dtype(np.float64)}


def test_merging_parts_gives_the_whole():
    whole = nbn.channel_stats(DATA)
    parts = [nbn.channel_stats(p) for p in np.split(DATA, [1, 2, 17])]
    merged = parts[0] + parts[1] + parts[2] + parts[3]
    np.testing.assert_array_equal(merged.count, whole.count)
    np.testing.assert_allclose(merged.mean, whole.mean, rtol=1e-15)
    np.testing.assert_allclose(merged.m2, whole.m2, rtol=1e-14)
    assert parts[0].merge(parts[1]) == parts[0] + parts[1]


counts = st.integers(0, 20)
values = st.integers(-1000, 1000)


@given(st.lists(st.lists(values, min_size=0, max_size=8), min_size=1, max_size=6))
def test_merging_is_exact_for_uneven_and_empty_parts(parts):
    merged = nbn.ChannelStats([0], [np.nan], [0])
    for part in parts:
        merged += nbn.channel_stats(np.array(part, float).reshape(-1, 1))
    flat = [Fraction(v) for part in parts for v in part]
    assert merged.count.item() == len(flat)
    if flat:
        mean = sum(flat) / len(flat)
        assert merged.mean.item() == pytest.approx(float(mean), rel=1e-13, abs=1e-11)
        m2 = float(sum((v - mean) ** 2 for v in flat))
        assert merged.m2.item() == pytest.approx(m2, rel=1e-12, abs=1e-9)


def test_merging_at_a_large_mean_keeps_the_variance():
    data = DATA + 1e9
    merged = sum((nbn.channel_stats(p) for p in data[5:].reshape(5, 5, 4)), stats(*data[:5]))
    np.testing.assert_allclose(merged.var(), (data - 1e9).var(0), rtol=1e-7)


def test_merging_changes_neither():
    a, b = stats([1.0], [2.0]), stats([6.0])
    before = copy.deepcopy((a, b))
    a.merge(b)
    assert (a, b) == before


def test_nan_stays_in_its_channel():
    merged = stats([1.0, 2.0]) + stats([np.nan, 4.0])
    np.testing.assert_array_equal(merged.mean, [np.nan, 3.0])
    np.testing.assert_array_equal(merged.m2, [np.nan, 2.0])


def test_update_takes_in_values():
    found = stats([1.0, 10.0])
    assert found.update([[3.0, 30.0]]) is found
    assert found == stats([1.0, 10.0], [3.0, 30.0])
    found.update([[[9.0, 5.0], [7.0, 0.0]]], channel_axis=-1, where=[[[True], [False]]])
    assert found == stats([1.0, 10.0], [3.0, 30.0]) + stats([9.0, 5.0])


def test_update_that_fails_changes_nothing():
    found = stats([1.0, 10.0])
    with pytest.raises(ValueError, match=r"ChannelStats.merge: other must have channels of shape"):
        found.update([[1.0, 2.0, 3.0]])
    assert found == stats([1.0, 10.0])


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_pickles(protocol):
    found = nbn.channel_stats(DATA)
    assert pickle.loads(pickle.dumps(found, protocol)) == found


def test_compares():
    a = nbn.ChannelStats([0, 1], [np.nan, 2], [0, 0])
    assert a == nbn.ChannelStats([0, 1], [np.nan, 2], [0, 0])
    assert a != nbn.ChannelStats([0, 1], [np.nan, 3], [0, 0])
    assert a != nbn.ChannelStats([1, 1], [np.nan, 2], [0, 0])
    assert a != nbn.ChannelStats([0, 1], [np.nan, 2], [0, 1])
    assert a != nbn.ChannelStats([0], [np.nan], [0])
    assert a != "statistics"
    with pytest.raises(TypeError, match="unhashable"):
        hash(a)


def test_prints():
    assert repr(stats([1.5, 2.0])) == "ChannelStats(count=[1. 1.], mean=[1.5 2. ], m2=[0. 0.])"
    assert len(repr(nbn.channel_stats(np.ones((2, 1000))))) < 200


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        (
            ([1], [1, 2], [1]),
            ValueError,
            "ChannelStats: count, mean and m2 must have one shape, got (1,), (2,), (1,)",
        ),
        (
            ([1], np.ma.masked_array([1.0]), [1]),
            TypeError,
            "ChannelStats: mean must be a NumPy array, got MaskedArray; "
            "pass mean.filled(...); where=~x.mask leaves values of x out",
        ),
        (
            ([1], [1], [1j]),
            TypeError,
            "ChannelStats: m2 must have a real floating-point or integer dtype, got complex128; "
            "convert it with m2.astype(np.float64)",
        ),
    ],
)
def test_vectors_that_do_not_fit(arguments, error, text):
    with pytest.raises(error) as caught:
        nbn.ChannelStats(*arguments)
    assert str(caught.value) == text


def test_what_does_not_merge():
    a = stats([1.0, 2.0])
    with pytest.raises(TypeError) as caught:
        a.merge(([1], [1], [1]))
    assert str(caught.value) == "ChannelStats.merge: other must be a ChannelStats, got tuple"
    with pytest.raises(ValueError, match="merge") as caught:
        a.merge(stats([1.0]))
    text = "ChannelStats.merge: other must have channels of shape (2,), got (1,)"
    assert str(caught.value) == text
    with pytest.raises(TypeError, match="unsupported operand"):
        a + 1
    with pytest.raises(ValueError, match=r"^ChannelStats.var: correction must not be NaN$"):
        a.var(math.nan)
    with pytest.raises(TypeError, match=r"^ChannelStats.var: correction must be a real number"):
        a.std("1")


# ---- how good merging is ----


def merged(x, sizes):
    """Statistics of rows of x, merged part by part."""
    parts = np.split(x, np.cumsum(sizes)[:-1])
    found = nbn.ChannelStats(*np.zeros((3, x.shape[1])))
    for part in parts:
        found += nbn.channel_stats(part)
    return found


@pytest.mark.parametrize(
    ("mean", "std", "dtype"), [(1e4, 1, np.float32), (1e7, 0.1, np.float64), (0, 1, np.float32)]
)
@pytest.mark.parametrize("size", [1, 3, 100, 1999])
def test_merging_costs_no_digits(mean, std, dtype, size, backend):
    x = (mean + std * np.random.default_rng(3).normal(size=(4000, 2))).astype(dtype)
    found = merged(x, [size] * (len(x) // size) + [len(x) % size])
    means, squares = channel_moments(x, 1)
    assert relative_error(found.m2, squares) < 3e-14
    held = [Fraction(m) + Fraction(low) for m, low in np.stack([found.mean, found._moments.low]).T]
    assert max(abs(a - b) / std for a, b in zip(held, means, strict=True)) < 1e-15


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mean", "std", "dtype", "rows"),
    [(1e4, 1, np.float32, 100_000), (1e7, 0.1, np.float64, 30_000)],
)
def test_very_many_updates_by_one_row(mean, std, dtype, rows):
    x = (mean + std * np.random.default_rng(3).normal(size=(rows, 1))).astype(dtype)
    found = nbn.ChannelStats([0], [0], [0])
    for row in x:
        found += nbn.ChannelStats([1], row, [0])
    means, squares = channel_moments(x, 1)
    assert relative_error(found.m2, squares) < 1e-13
    assert relative_error(found.mean, means) < 2e-16


def test_files_without_the_rest_of_the_mean_load(tmp_path):
    np.savez(tmp_path / "old.npz", count=[3.0], mean=[1 / 3], m2=[2.0])
    assert nbn.ChannelStats.load(tmp_path / "old.npz") == nbn.ChannelStats([3], [1 / 3], [2])
