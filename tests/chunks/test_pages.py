"""Pages: those that have values and no others, and few of them at a time."""

import mmap
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kept import zarr

import numba_bn as nbn
from numba_bn.chunks import pages
from numba_bn.chunks.sources import Mapped, Source

PAGE = mmap.PAGESIZE
LIMIT = 1 << 18
SHAPE = (64, 4, 40, 200)  # 8 MB in float32


@st.composite
def parts(draw):
    """A part of an array of bytes, with gaps of less than a page and of many."""
    shape = draw(st.sampled_from([(700_000,), (90, 7000), (3, 40, 5000), (7000, 1, 90)]))
    whole = np.zeros(shape, np.int8).transpose(draw(st.permutations(range(len(shape)))))
    steps = st.sampled_from([1, 2, 50, PAGE - 1, PAGE, PAGE + 1])
    cut = (slice(draw(st.integers(0, n - 1)), None, draw(steps)) for n in whole.shape)
    part = whole[tuple(cut)]
    return part[::-1] if draw(st.booleans()) else part


@given(parts())
def test_pages_are_those_with_values(part):
    addresses = np.array([np.lib.array_utils.byte_bounds(part)[0]])
    for stride, n in zip(part.strides, part.shape, strict=True):
        addresses = np.add.outer(np.arange(n) * abs(stride), addresses).ravel()
    found = [
        page for low, high in pages.ranges(part) for page in range(low // PAGE, -(-high // PAGE))
    ]
    assert set(found) == set((addresses // PAGE).tolist())
    assert all(low % PAGE == 0 for low, _ in pages.ranges(part))
    assert pages.spread(part) >= (len(found) - 2) * PAGE / 2


@pytest.fixture
def mapped(monkeypatch):
    """Let blocks be of 256 kB; note how many bytes of pages are mapped at a time, and in all."""
    now, most, in_all, lock = [0], [0], [0], threading.Lock()
    bring, let_go = Mapped.bring, Mapped.let_go

    def size(part):
        return sum(high - low for low, high in pages.ranges(part))

    def more(self, part, writing=False):
        with lock:  # one thread reads, one writes
            now[0] += size(part)
            in_all[0] += size(part)
            most[0] = max(most[0], now[0])
        bring(self, part, writing)

    def less(self, part):
        with lock:
            now[0] -= size(part)
        let_go(self, part)

    monkeypatch.setattr(Source, "limit", LIMIT)
    monkeypatch.setattr(Mapped, "limit", LIMIT)
    monkeypatch.setattr(Mapped, "bring", more)
    monkeypatch.setattr(Mapped, "let_go", less)
    yield most, in_all
    assert now == [0]


def memmap(path, fortran=False):
    return np.lib.format.open_memmap(path, "w+", np.float32, SHAPE, fortran)


@pytest.mark.parametrize("fortran", ["source", "target"])
def test_of_maps_in_different_orders_every_page_is_mapped_a_few_times(fortran, mapped, tmp_path):
    x = memmap(tmp_path / "x.npy", fortran == "source")
    y = memmap(tmp_path / "y.npy", fortran == "target")
    x[...] = np.random.default_rng(0).normal(5, 2, SHAPE)
    stats = nbn.channel_stats(np.array(x))
    nbn.normalize_chunks(x, y, stats)
    np.testing.assert_array_equal(y, nbn.batch_norm(x, mean=stats.mean, var=stats.var()))
    most, in_all = mapped
    assert most[0] <= 12 * LIMIT
    assert in_all[0] <= 8 * x.nbytes


@pytest.mark.parametrize("source", [True, False])
def test_of_chunks_that_lie_across_a_map_few_pages_are_mapped_at_a_time(source, mapped, tmp_path):
    x = np.random.default_rng(0).normal(5, 2, SHAPE).astype(np.float32)
    across = zarr(tmp_path / "x.zarr", x, (64, 4, 8, 20))
    along = memmap(tmp_path / "x.npy")
    along[...] = x
    stats, job = nbn.channel_stats(x), tmp_path / "job.npz"
    given = (along, across) if source else (across, along)
    for _ in range(2):  # done, and looked at
        nbn.normalize_chunks(*given, stats, checkpoint=job)
    expected = nbn.batch_norm(x, mean=stats.mean, var=stats.var())
    np.testing.assert_array_equal(given[1][...], expected)
    assert mapped[0][0] <= 6 * LIMIT


def test_of_a_part_with_gaps_blocks_are_smaller(mapped, tmp_path):
    x = memmap(tmp_path / "x.npy")
    x[...] = np.random.default_rng(0).normal(5, 2, SHAPE)
    part = x[:, :, ::3, ::50]
    found = nbn.channel_stats(part, checkpoint=tmp_path / "job.npz")
    np.testing.assert_allclose(found.mean, np.array(part).mean((0, 2, 3), np.float64), rtol=1e-12)
    assert mapped[0][0] <= 4 * LIMIT
