"""Statistics of what is kept in chunks: those of the whole, whatever holds it."""

import io
import sys
import threading
from contextlib import nullcontext

import numpy as np
import pytest
from kept import DTYPES, KINDS, SHAPE, Own, data, memmap

import numba_bn as nbn
from numba_bn.chunks import statistics, work
from numba_bn.chunks.ahead import Part, ahead

pytestmark = pytest.mark.usefixtures("small")


def check(found, x, axes):
    """Compare with NumPy in float64, in two passes over the whole."""
    others = tuple(a for a in range(x.ndim) if a not in axes)
    wide = x.astype(np.float64)
    count = x.size / max(found.count.size, 1)
    np.testing.assert_array_equal(found.count, np.full(found.count.shape, count))
    np.testing.assert_allclose(found.mean, wide.mean(others), rtol=1e-14)
    np.testing.assert_allclose(found.var(), wide.var(others), rtol=1e-12)


@pytest.mark.parametrize("axes", [(1,), (3,), (0,), (1, 3), (1, 2)])
@pytest.mark.parametrize("kind", KINDS)
def test_any_source_along_any_axes(kind, axes, tmp_path):
    x = data()
    found = nbn.channel_stats(KINDS[kind](tmp_path, x), channel_axis=axes)
    assert found.count.shape == tuple(SHAPE[a] for a in axes)
    check(found, x, axes)


@pytest.mark.parametrize("axes", [(1,), (3,), (0, 1), (1, 3)])
@pytest.mark.parametrize("kind", KINDS)
def test_reproducible_has_the_bits_of_the_whole(kind, axes, tmp_path):
    x, how = data(), {"channel_axis": axes, "reproducible": True}
    found, whole = (nbn.channel_stats(a, **how) for a in (KINDS[kind](tmp_path, x), x))
    assert found == whole
    assert found.reproducible


def test_reproducible_chunks_come_in_any_order():
    x = data()
    parts = [x[a:b] for a, b in [(0, 1), (1, 1), (1, 8), (8, 11)]]
    found = nbn.ChannelStats.from_chunks(parts[::-1], reproducible=True)
    assert found == nbn.channel_stats(x, reproducible=True)


@pytest.mark.parametrize("reproducible", [False, True])
def test_channels_without_values_have_no_mean_wherever_they_are(reproducible, tmp_path):
    x = data()
    x[:, [0, 5]] = np.nan
    source = Own(x, (4, 1, 9, 5))
    found = nbn.channel_stats(source, nan_policy="omit", reproducible=reproducible)
    assert found.count.tolist() == [0, 495, 495, 495, 495, 0, 495]
    assert np.isnan(found.mean).tolist() == [n == 0 for n in found.count]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ["memmap", "chunked", "compressed", "zarr", "own"])
def test_any_dtype(kind, dtype, tmp_path):
    x = data(dtype)
    check(nbn.channel_stats(KINDS[kind](tmp_path, x)), x, (1,))


def test_a_mean_of_1e4_in_any_chunking(tmp_path):
    x = (1e4 + np.random.default_rng(0).normal(0, 1, (400, 3, 11))).astype(np.float32)
    exact = x.astype(np.float64).var((0, 2))
    for chunks in [(1, 1, 1), (7, 3, 11), (400, 1, 2), (33, 2, 11)]:
        found = nbn.channel_stats(Own(x, chunks)).var()
        np.testing.assert_allclose(found, exact, rtol=1e-12)
    np.testing.assert_allclose(nbn.channel_stats(memmap(tmp_path / "x.npy", x)).var(), exact, 1e-12)


@pytest.mark.parametrize("shape", [(0, 3, 4), (5, 0, 4), (5, 3, 0)])
@pytest.mark.parametrize("kind", ["contiguous", "own", "own, unchunked"])
def test_empty_sources(kind, shape, tmp_path):
    x = np.empty(shape, np.float32)
    source = Own(x, (2, 2, 2)) if kind == "own" else KINDS[kind](tmp_path, x)
    assert nbn.channel_stats(source) == nbn.channel_stats(x)


@pytest.mark.parametrize("kind", ["memmap", "zarr"])
def test_a_mask_is_cut_as_the_blocks_are(kind, tmp_path):
    x, source = data(), KINDS[kind](tmp_path, data())
    for where in (np.arange(9)[:, None] > 4, data(seed=1) > 100):
        found, whole = (nbn.channel_stats(a, where=where) for a in (source, x))
        np.testing.assert_array_equal(found.count, whole.count)
        np.testing.assert_allclose(found.var(), whole.var(), rtol=1e-12)


def test_nan_by_every_policy(tmp_path):
    x = data()
    x[10, 2, 3, 4] = np.nan
    source = KINDS["zarr"](tmp_path, x)
    assert np.isnan(nbn.channel_stats(source).mean).tolist() == [k == 2 for k in range(7)]
    found = nbn.channel_stats(source, nan_policy="omit")
    assert found.count.tolist() == [495 - (k == 2) for k in range(7)]
    with pytest.raises(ValueError, match="has NaN, with nan_policy='raise'") as caught:
        nbn.channel_stats(source, nan_policy="raise")
    assert "in block [8:11, 0:" in caught.value.__notes__[0]


def test_memory_maps_that_were_changed_and_not_saved_keep_their_changes(tmp_path):
    x = data()
    private = KINDS["private"](tmp_path, x)
    private[3] += 7
    x[3] += 7
    check(nbn.channel_stats(private), x, (1,))
    np.testing.assert_array_equal(private, x)


@pytest.mark.parametrize(
    ("options", "kind", "text"),
    [
        ({"channel_axis": 4}, np.exceptions.AxisError, r"channel_axis must lie in \[-4, 4\)"),
        ({"channel_axis": "1"}, TypeError, "channel_axis must be an integer"),
        ({"where": np.ones(3)}, TypeError, "where must have dtype bool"),
        ({"where": np.ones(3, bool)}, ValueError, "where must broadcast to the shape of x"),
        ({"nan_policy": "drop"}, ValueError, "nan_policy must be"),
        ({"checkpoint_every": -1, "checkpoint": "c"}, ValueError, "checkpoint_every must be >= 0"),
        ({"checkpoint": 3}, TypeError, "checkpoint must be a path, got int"),
        ({"checkpoint_every": "1", "checkpoint": "c"}, TypeError, "checkpoint_every must be a re"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_read(
    options, kind, text, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    source = Own(data(), (2, 2, 2, 2))
    with pytest.raises(kind, match=f"^channel_stats: {text}"):
        nbn.channel_stats(source, **options)
    assert source.read == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("dtype", ["complex64", "bool", "S3"])
def test_wrong_dtypes_too(dtype):
    source = Own(np.zeros((4, 4), dtype), (2, 2))
    with pytest.raises(TypeError, match=r"^channel_stats: x must have a real floating"):
        nbn.channel_stats(source)
    assert source.read == []


def test_a_checkpoint_of_an_array_in_memory_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"^channel_stats: checkpoint is for what is read in"):
        nbn.channel_stats(data(), checkpoint=tmp_path / "c")
    assert list(tmp_path.iterdir()) == []


def test_blocks_that_are_not_what_the_shape_says():
    class Short(Own):
        def __getitem__(self, block):
            return super().__getitem__(block)[:, :, 1:]

    with pytest.raises(
        ValueError, match=r"block \[0:2, 0:7, .*\] of x of .* must have shape \(2, "
    ):
        nbn.channel_stats(Short(data(), (2, 7, 9, 5)))


def test_blocks_that_are_no_numpy_arrays():
    class Masked(Own):
        def __getitem__(self, block):
            return np.ma.array(super().__getitem__(block))

    with pytest.raises(
        TypeError, match=r"channel_stats: x\[...\] must be .* got MaskedArray; pass"
    ):
        nbn.channel_stats(Masked(data(), (2, 7, 9, 5)))


@pytest.mark.parametrize("kind", ["chunked", "zarr"])
def test_other_functions_say_what_to_do(kind, tmp_path):
    x = KINDS[kind](tmp_path, data())
    with pytest.raises(
        TypeError, match=r"^batch_norm: x must be .*; read it, x\[...\]; channel_st"
    ):
        nbn.batch_norm(x)
    with pytest.raises(
        TypeError, match=r"^channel_stats: where must be a NumPy array, got .*; read"
    ):
        nbn.channel_stats(data(), where=x)


@pytest.mark.parametrize("at", [0, 1, 5])
def test_an_error_while_reading_is_raised_and_leaves_no_thread(at):
    source = Own(data(), (2, 2, 9, 5), fails_at=at)
    with pytest.raises(OSError, match="the disk is gone"):
        nbn.channel_stats(source)
    assert not [t for t in threading.enumerate() if t.name.startswith("numba_bn-reader")]


def test_a_file_cut_short_is_an_error_and_not_the_end_of_the_process(tmp_path):
    if sys.platform != "linux":
        pytest.skip("other systems do not say so beforehand")
    mapped = memmap(tmp_path / "x.npy", np.ones((64, 3, 100), np.float32))
    with open(mapped.filename, "r+b") as file:
        file.truncate(1000)
    with pytest.raises(OSError, match=r"channel_stats: cannot read block \[.*/x\.npy"):
        nbn.channel_stats(mapped)


@pytest.mark.parametrize(("asked", "left"), [(1, 1), (2, 1), (7, 3)])
def test_a_reader_that_is_waited_for_has_half_of_the_cores(asked, left, monkeypatch):
    seen, kernels = [], statistics.channel_stats

    def noting(*args, **how):
        seen.append(nbn.get_num_threads())
        return kernels(*args, **how)

    def every_other_late(read, blocks):
        late = (n % 2 == 1 for n in range(len(blocks)))
        return nullcontext(map(Part, map(read, blocks), late))

    monkeypatch.setattr(statistics, "channel_stats", noting)
    monkeypatch.setattr(work, "ahead", every_other_late)
    monkeypatch.setattr("numba_bn._threads._pool_size", lambda: 8)
    monkeypatch.setattr("numba_bn._threads._mask", lambda: None)
    with nbn.threads(asked):
        found = nbn.channel_stats(Own(data(), (3, 7, 9, 5)))
    assert seen == [asked, left] * 2
    assert found == nbn.channel_stats(Own(data(), (3, 7, 9, 5)))


@pytest.mark.parametrize(("asked", "number"), [(1, 1), (2, 2), (8, 8), (99, 8)])
def test_blocks_of_a_memory_map_are_looked_at_by_several_threads(
    asked, number, monkeypatch, tmp_path
):
    pools, seen, kernels = [], [], statistics.channel_stats

    def counting(read, items, threads=1):
        pools.append(threads)
        return ahead(read, items, threads)

    def noting(*args, **how):
        seen.append(nbn.get_num_threads())
        return kernels(*args, **how)

    monkeypatch.setattr(work, "ahead", counting)
    monkeypatch.setattr(statistics, "channel_stats", noting)
    monkeypatch.setattr("numba_bn._threads._pool_size", lambda: 99)
    monkeypatch.setattr("numba_bn._threads._mask", lambda: None)
    x = data()
    with nbn.threads(asked):
        found = nbn.channel_stats(memmap(tmp_path / "x.npy", x))
    assert pools == [1, number]
    assert len(seen) > 1 == max(seen)
    check(found, x, (1,))
    assert found == nbn.channel_stats(memmap(tmp_path / "y.npy", x))  # in order, all the same


def test_an_error_in_one_of_several_threads_says_in_which_block(tmp_path):
    x = data()
    x[6:, 2, 3, 4] = np.nan
    with pytest.raises(ValueError, match="channel_stats: ") as caught:
        nbn.channel_stats(memmap(tmp_path / "x.npy", x), nan_policy="raise")
    assert [note for note in caught.value.__notes__ if "in block [" in note]
    assert not [t for t in threading.enumerate() if t.name.startswith("numba_bn-reader")]


# ---- chunks that come one after another ----


def test_chunks_of_any_sizes():
    x = data()
    found = nbn.ChannelStats.from_chunks(x[a:b] for a, b in [(0, 1), (1, 1), (1, 8), (8, 11)])
    check(found, x, (1,))
    check(nbn.ChannelStats.from_chunks([x[:, :, :2], x[:, :, 2:]], channel_axis=3), x, (3,))


def test_chunks_may_be_kept_in_chunks_themselves(tmp_path):
    x = data()
    check(nbn.ChannelStats.from_chunks([KINDS["zarr"](tmp_path, x)]), x, (1,))


def test_no_chunks_have_no_channels():
    with pytest.raises(ValueError, match=r"^ChannelStats.from_chunks: expected at least one chunk"):
        nbn.ChannelStats.from_chunks([])


def test_chunks_that_are_none():
    text = r"^ChannelStats.from_chunks: chunks must be an iterable of arrays, got NoneType$"
    with pytest.raises(TypeError, match=text):
        nbn.ChannelStats.from_chunks(None)


def test_nan_in_chunks_follows_the_policy():
    x = data()
    x[0, 0] = np.nan
    found = nbn.ChannelStats.from_chunks([x], nan_policy="omit")
    assert found.count[0] == found.count[1] - 45


# ---- the bar ----


class Terminal(io.StringIO):
    """Something that looks like a terminal."""

    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("progress", "stream", "shown"),
    [(None, io.StringIO, False), (None, Terminal, True), (True, io.StringIO, True)],
)
def test_the_bar_shows_bytes_and_rate(progress, stream, shown, monkeypatch):
    pytest.importorskip("tqdm")
    monkeypatch.setattr(sys, "stderr", stream())
    nbn.channel_stats(Own(data(), (2, 2, 9, 5)), progress=progress)
    text = sys.stderr.getvalue()
    assert bool(text) == shown
    if shown:
        assert text.startswith("\rchannel_stats:   0%")
        assert "| 13.9k/13.9k [" in text
        assert "B/s]" in text
    sys.stderr.seek(0)
    nbn.ChannelStats.from_chunks([data()], progress=progress)
    assert ("ChannelStats.from_chunks: 13.9kB [" in sys.stderr.getvalue()) == shown
    assert not [t for t in threading.enumerate() if t.name.startswith("numba_bn-reader")]


def test_silent_when_asked(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    nbn.channel_stats(Own(data(), (2, 2, 9, 5)), progress=False)
    assert sys.stderr.getvalue() == ""
