"""Exact statistics from block to block: windows that no longer fit, words that are carried."""

import math
from fractions import Fraction

import numpy as np
import pytest
from exact import assert_exact

import numba_bn as nbn
from numba_bn._kernels.cpu import exact, sums


def seam(kind, n, dtype):
    """Values that fit windows for a while, and then do not."""
    x = np.random.default_rng(3).normal(1, 1, n)
    later, tiny = slice(n // 2, None), float(np.finfo(dtype).smallest_subnormal)
    if kind == "larger":
        x[later] *= 2.0**50
    elif kind == "smaller":
        x[later] *= 2.0**-50
    elif kind == "in turn":
        x[np.arange(n) // 40 % 2 == 1] *= 2.0**-70
    elif kind == "zeros":
        x[: n // 2] = -0.0
    elif kind == "all zeros later":
        x[later] = 0.0
    else:  # among others
        x[[n // 2, n - 5, n - 1]] = {"one larger": 2.0**60, "one smaller": tiny}[kind]
    return x.astype(dtype)


SEAMS = ["larger", "smaller", "in turn", "zeros", "all zeros later", "one larger", "one smaller"]


@pytest.mark.parametrize("kind", SEAMS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(9001, 2), (2, 9001), (190, 2, 49)])
def test_blocks_that_do_not_fit_what_was_open(kind, dtype, shape):
    axis = 0 if shape[0] == 2 else 1
    x = np.empty(shape, dtype)
    for c, factor in enumerate((1, -(2.0**20))):
        channel = x[c : c + 1] if axis == 0 else x[:, c]
        channel[...] = seam(kind, channel.size, dtype).reshape(channel.shape) * dtype(factor)
    assert_exact(nbn.channel_stats(x, channel_axis=axis, reproducible=True), x, axis)


@pytest.mark.parametrize("dtype", [np.int64, np.uint64])
@pytest.mark.parametrize("kind", ["all bits", "low bits", "spread", "most"])
def test_long_runs_of_wide_integers(kind, dtype):
    n = 150_000  # so that the digits of many blocks come together
    most = np.iinfo(dtype).max
    if kind == "spread":
        x = np.random.default_rng(0).normal(120_000, 1000, n).astype(dtype)
    else:
        value = {"all bits": most if dtype is np.uint64 else -1, "low bits": 131071, "most": most}
        x = np.full(n, value[kind], dtype)
    stats = nbn.channel_stats(x.reshape(1, 1, n), reproducible=True)
    values = x.tolist()
    total, squares = sum(values), sum(v * v for v in values)
    assert stats.mean[0] == total / n
    assert stats.m2[0] == float(Fraction(squares * n - total * total, n))


def test_words_are_carried_where_lanes_are_often_emptied(monkeypatch):
    monkeypatch.setattr(sums, "_UNITS", 1)  # so that one state takes all blocks
    x = np.random.default_rng(0).normal(0, 1, (4800, 16)).astype(np.float32)
    x[np.arange(4800) // 40 % 2 == 1] *= 2.0**-70
    assert_exact(nbn.channel_stats(x, reproducible=True), x, 1)


@pytest.mark.parametrize("columns", [False, True])
def test_a_lane_whose_window_often_moves_lets_no_other_overflow(columns, monkeypatch):
    monkeypatch.setattr(sums, "_UNITS", 1)  # so that one state takes all blocks
    x = np.full((81920, 16), 3.9)
    x[:256] = 1.0  # opens windows that 3.9 only just fits
    x[:, 0] = np.where(np.arange(81920) // 6400 % 2, 1e-30, 1.0)
    how = {"channel_axis": 1 if columns else 0, "reproducible": True}
    parts = np.split(x, 16)
    if not columns:
        x, *parts = (a.reshape(1, -1) for a in (x, *parts))
    found = nbn.channel_stats(x, **how)
    stats = [nbn.channel_stats(p, **how) for p in parts]
    assert found == sum(stats[1:], stats[0])
    np.testing.assert_allclose(found.mean, x.mean(how["channel_axis"] - 1), rtol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64])
@pytest.mark.parametrize("axis", [0, 1])
def test_a_call_leaves_nothing_to_the_next(dtype, axis):
    x = np.column_stack([seam(kind, 9001, np.float64) for kind in ("in turn", "one larger")])
    x = x.astype(dtype) if dtype is not np.int64 else (x % 2**62).astype(dtype)
    if dtype is not np.int64:
        x[5, 1] = np.nan
    x = np.ascontiguousarray(x.T) if axis == 0 else x
    how = {"channel_axis": axis, "where": x != 1, "reproducible": True}
    first = nbn.channel_stats(x, **how)
    (room,) = sums._spare
    assert not room.any()
    assert nbn.channel_stats(x, **how)._arrays()["sum_words"].tolist() == (
        first._arrays()["sum_words"].tolist()
    )


@pytest.mark.parametrize("shape", [(901, 33), (300, 255), (90, 70, 7), (40, 100, 3, 3)], ids=str)
def test_no_two_units_of_work_write_the_same_words(shape):
    """Threads do them at once, and would lose what the other adds."""
    groups, length = shape[1], math.prod(shape[2:])
    numbers = sums._form_of(np.dtype(np.float64))
    sizes = sums._columns(1 << 20, shape[0], groups, length)
    chunks, rows, _, stride, _, _, tile, each = sizes
    writers = np.zeros(chunks * groups, np.int64)
    for chunk in range(chunks):
        for first in range(0, stride, tile):
            x = np.zeros((shape[0] * groups * length // stride, stride))
            x[chunk * each : min((chunk + 1) * each, rows), first : first + tile] = 1.0
            flat = np.zeros(math.prod(shape))
            flat[: x.size] = x.ravel()
            words = np.zeros((numbers.words + sums.KEPT, chunks * groups), np.int64)
            args = numbers.floats, numbers.deep, numbers.numbers, words
            exact.column_words(0, flat, None, *args, *sizes)
            writers += words[: -sums.KEPT].any(0)
    assert chunks * -(-stride // tile) > 1
    assert writers.max() == 1
