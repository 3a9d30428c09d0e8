"""Exact sums as words of 32 bits, one number per channel: what reproducible statistics are made of.

The format, which files keep (version 1): a number is ``sum(words[i] * 2**(32 * (place + i)))``,
``words`` being int64 of shape (words, ...). Each word but the last lies in [0, 2**32), the last in
[-2**31, 2**31); there are as few words as hold all numbers of the array, at least one, and
``place`` is 0 where all are 0. So equal sums have equal words, whatever they were added up from,
and in whatever order.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from numba_bn._arrays import Array

BITS = 32
_ALL = (1 << BITS) - 1


@dataclass(frozen=True)
class Words:
    """Integers times a power of two, as the module says."""

    place: int
    words: Array

    def __add__(self, other: Words) -> Words:
        """Return the sums of both."""
        place = min(self.place, other.place)
        top = max(w.place + len(w.words) for w in (self, other))
        total = np.zeros((top - place, *self.words.shape[1:]), np.int64)
        for w in (self, other):
            first = w.place - place
            total[first : first + len(w.words)] += w.words
        return carried(place, total)

    def integers(self) -> list[int]:
        """Return the numbers, of all channels in a row, without their power of two."""
        rows = self.words.reshape(len(self.words), -1).T.astype("<u4", order="C")
        return [int.from_bytes(row.tobytes(), "little", signed=True) for row in rows]


@dataclass(frozen=True)
class ExactSums:
    """Of each channel: how many values, how many not finite, exact Σx and Σx² of the rest."""

    count: Array
    odd: Array
    first: Words
    second: Words

    def __add__(self, other: ExactSums) -> ExactSums:
        """Return the sums of both."""
        return ExactSums(
            self.count + other.count,
            self.odd + other.odd,
            self.first + other.first,
            self.second + other.second,
        )


def carried(place: int, words: Array) -> Words:
    """Return words of any size, less than 2**62, in the one way there is to write their sum."""
    used = np.flatnonzero(words.any(axis=tuple(range(1, words.ndim))))
    start, stop = (int(used[0]), int(used[-1]) + 1) if used.size else (0, 1)
    place, words = place + start, words[start:stop]
    words = np.concatenate([words, np.zeros((1, *words.shape[1:]), np.int64)])
    for i in range(len(words) - 1):
        words[i + 1] += words[i] >> BITS
        words[i] &= _ALL
    first, last = 0, len(words)
    # a last word that only repeats the sign of the one before says nothing
    while last > 1 and (words[last - 1] == -(words[last - 2] >> (BITS - 1))).all():
        last -= 1
        words[last - 1] -= (words[last - 1] >> (BITS - 1)) << BITS
    while first < last - 1 and not words[first].any():
        first += 1
    return Words(place + first if words.any() else 0, words[first:last])


def words_of(numbers: Iterable[int], place: int, shape: tuple[int, ...]) -> Words:
    """Return integers, in units of ``2**(32 * place)``, as words of a shape."""
    whole = list(numbers)
    count = max((n.bit_length() for n in whole), default=0) // BITS + 1
    rows = [[(n >> (BITS * i)) & _ALL for n in whole] for i in range(count - 1)]
    rows.append([n >> (BITS * (count - 1)) for n in whole])
    return carried(place, np.array(rows, np.int64).reshape(count, *shape))
