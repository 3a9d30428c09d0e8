"""Exact sums as words: one way to write a number, and addition."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from numba_bn._words import BITS, Words, carried, words_of

numbers = st.lists(st.integers(-(2**200), 2**200), min_size=3, max_size=3)
places = st.integers(-5, 5)


def values(words):
    """The numbers, in units of 2^(-32 * 20)."""
    return [n << (BITS * (words.place + 20)) for n in words.integers()]


def same(a, b):
    return a.place == b.place and np.array_equal(a.words, b.words)


def canonical(w):
    """Tell whether words are as the format says."""
    inner = (w.words[:-1] >= 0).all() and (w.words[:-1] < 1 << BITS).all()
    last = (np.abs(w.words[-1] + 0.5) <= 1 << (BITS - 1)).all()
    if len(w.words) == 1:
        return inner and last and (w.place == 0 or w.words.any())
    needed = (w.words[-1] != -(w.words[-2] >> (BITS - 1))).any()
    return inner and last and w.words[0].any() and needed


@given(numbers, places)
def test_numbers_come_back(n, place):
    w = words_of(n, place, (3,))
    assert w.words.dtype == np.int64
    assert values(w) == [v << (BITS * (place + 20)) for v in n]
    assert canonical(w)


@given(numbers, places, numbers, places)
def test_addition(n, place, m, other):
    a, b = words_of(n, place, (3,)), words_of(m, other, (3,))
    total = a + b
    assert values(total) == [x + y for x, y in zip(values(a), values(b), strict=True)]
    assert canonical(total)
    assert same(total, b + a)


@given(st.lists(st.tuples(numbers, places), min_size=1, max_size=5), st.randoms())
def test_no_order_changes_the_words(terms, random):
    totals = []
    for _ in range(2):
        random.shuffle(terms)
        parts = [words_of(n, place, (3,)) for n, place in terms]
        total = parts[0]
        for part in parts[1:]:
            total = total + part
        totals.append(total)
    assert same(*totals)


def test_what_cancels_leaves_nothing():
    a = words_of([5 << 70, -3], -2, (2,))
    nothing = a + words_of([-5 << 70, 3], -2, (2,))
    assert same(nothing, Words(0, np.zeros((1, 2), np.int64)))


@pytest.mark.parametrize("shape", [(), (2, 3), (0,), (4, 0)])
def test_of_any_shape(shape):
    count = int(np.prod(shape))
    w = words_of(range(-1, count - 1), 3, shape)
    assert w.words.shape == (1, *shape)
    assert w.integers() == list(range(-1, count - 1))


def test_words_of_any_size_are_carried():
    large = np.array([[-(2**61)], [2**61], [7]])
    w = carried(0, large)
    assert w.integers() == [(-(2**61) + (2**61 << 32) + (7 << 64)) >> (32 * w.place)]
    assert canonical(w)
