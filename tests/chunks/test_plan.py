"""Blocks: every element once, whole chunks, none too large."""

from math import prod

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from numba_bn.chunks.plan import Chunking, blocks, common


def lengths(block):
    return tuple(s.stop - s.start for s in block)


@st.composite
def jobs(draw):
    """A shape, how it is kept, and a limit."""
    ndim = draw(st.integers(1, 4))
    shape = tuple(draw(st.lists(st.integers(0, 12), min_size=ndim, max_size=ndim)))
    chunk = tuple(draw(st.integers(1, max(n, 1))) for n in shape)
    order = tuple(draw(st.permutations(range(ndim))))
    limit = draw(st.integers(1, 4000))
    return shape, Chunking(chunk, order, draw(st.booleans())), draw(st.sampled_from([1, 8])), limit


@given(jobs())
def test_blocks_cover_everything_once(job):
    shape = job[0]
    seen = np.zeros(shape, int)
    for block in blocks(*job):
        assert prod(lengths(block)) > 0
        seen[block] += 1
    assert (seen == 1).all()


@given(jobs())
def test_blocks_are_no_larger_than_allowed(job):
    _, chunking, itemsize, limit = job
    least = itemsize if chunking.divisible else prod(chunking.chunk) * itemsize
    for block in blocks(*job):
        assert prod(lengths(block)) * itemsize <= max(limit, least)


@given(jobs())
def test_no_chunk_is_read_twice_unless_it_is_too_large(job):
    shape, chunking, itemsize, limit = job
    if chunking.divisible and prod(chunking.chunk) * itemsize > limit:
        return
    for block in blocks(*job):
        for s, c, n in zip(block, chunking.chunk, shape, strict=True):
            assert s.start % c == 0
            assert s.stop % c == 0 or s.stop == n


def test_small_chunks_are_grouped_evenly_and_along_the_fastest_axis():
    found = blocks((10, 6), Chunking((1, 2), (0, 1), False), 1, 30)
    assert [lengths(b) for b in found] == [(5, 6), (5, 6)]
    found = blocks((10, 6), Chunking((1, 2), (1, 0), False), 1, 30)
    assert [lengths(b) for b in found] == [(10, 2)] * 3


def test_they_come_in_the_order_of_memory():
    found = blocks((2, 4), Chunking((1, 1), (1, 0), True), 1, 2)
    assert found == [(slice(0, 2), slice(k, k + 1)) for k in range(4)]


def test_a_chunk_too_large_comes_in_pieces_where_that_is_no_more_work():
    one = (4, 100)
    assert len(blocks(one, Chunking(one, (0, 1), True), 8, 800)) == 4
    assert len(blocks(one, Chunking(one, (0, 1), False), 8, 800)) == 1


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ((2, 3), (3, 3), (6, 3)),
        ((2, 3), (1, 1), (2, 3)),
        ((7, 1), (1, 5), (7, 5)),
        ((7, 9), (8, 10), (8, 10)),  # 56 × 12 would be too large
    ],
)
def test_a_chunk_common_to_two(first, second, expected):
    assert common((60, 12), first, second, 4, 2000) == expected
