"""Statistics as exact sums: the same bits, however the values were chunked, ordered and spread."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from numba_bn._arrays import Array
from numba_bn._call import per_channel
from numba_bn._view import View
from numba_bn._words import BITS, ExactSums, Words, carried
from numba_bn.stats._moments import Moments

VERSION = 1
"""Of the arrays that files keep: those of `arrays`, words being as `_words` says."""

_FARTHEST = 100  # words: more than float64 and its squares reach


@dataclass(frozen=True)
class Exact:
    """Exact Σx and Σx² per channel; mean and m2 are rounded once, when they are asked for."""

    sums: ExactSums

    @classmethod
    def of(cls, sums: ExactSums, view: View) -> Exact:
        """Return a backend's sums (channels,) in the order and shape of x's channel axes."""
        if len(view.channels) == 1:
            return cls(sums)
        first, second = (
            Words(w.place, np.stack([per_channel(row, view) for row in w.words]))
            for w in (sums.first, sums.second)
        )
        return cls(
            ExactSums(per_channel(sums.count, view), per_channel(sums.odd, view), first, second)
        )

    @classmethod
    def empty(cls, shape: tuple[int, ...]) -> Exact:
        """Return the sums of no values."""
        none = Words(0, np.zeros((1, *shape), np.int64))
        return cls(ExactSums(none.words[0], none.words[0], none, none))

    @property
    def count(self) -> Array:
        """Number of values per channel."""
        return self.sums.count

    @cached_property
    def moments(self) -> Moments:
        """Count, mean and m2, each the float64 nearest to what it is."""
        sums = self.sums
        units = BITS * sums.first.place, BITS * sums.second.place
        numbers = sums.first.integers(), sums.second.integers()
        each = zip(sums.count.ravel().tolist(), sums.odd.ravel().tolist(), *numbers, strict=True)
        rows = [_moments(n, odd, s, q, *units) for n, odd, s, q in each]
        columns = np.ascontiguousarray(np.array(rows).reshape(-1, 3).T)
        mean, low, m2 = columns.reshape(3, *sums.count.shape)
        return Moments(sums.count.astype(np.float64), mean, low, m2)

    def merge(self, other: Exact) -> Exact:
        """Return the sums of both."""
        return Exact(self.sums + other.sums)

    def arrays(self) -> dict[str, Array]:
        """Return all there is to keep, by name."""
        sums = self.sums
        return {
            "exact_version": np.array(VERSION),
            "count": sums.count,
            "odd": sums.odd,
            "sum_place": np.array(sums.first.place),
            "sum_words": sums.first.words,
            "square_place": np.array(sums.second.place),
            "square_words": sums.second.words,
        }


def merged(mine: Moments | Exact, theirs: Moments | Exact) -> Moments | Exact:
    """Return the state of both; what is empty goes with any."""
    if isinstance(mine, Exact) and isinstance(theirs, Exact):
        return mine.merge(theirs)
    if isinstance(mine, Moments) and isinstance(theirs, Moments):
        return mine.merge(theirs)
    exact, rounded = (mine, theirs) if isinstance(mine, Exact) else (theirs, mine)
    if rounded.count.any():
        raise ValueError(
            "ChannelStats.merge: statistics with reproducible=True merge with such alone, "
            f"got {'other' if rounded is theirs else 'self'} without"
        )
    return exact


def exact_from(arrays: Mapping[str, Array]) -> Exact:
    """Return the sums in what `arrays` gave."""
    if arrays["exact_version"] != VERSION:
        raise ValueError(f"exact_version must be {VERSION}, got {arrays['exact_version']}")
    words = [_words(arrays[f"{k}_place"], arrays[f"{k}_words"]) for k in ("sum", "square")]
    count, odd = (np.array(arrays[k], np.int64) for k in ("count", "odd"))
    if {odd.shape, *(w.words.shape[1:] for w in words)} != {count.shape}:
        raise ValueError("count, odd, sum_words and square_words must have one shape of channels")
    return Exact(ExactSums(count, odd, *words))


def _words(place: Array, words: Array) -> Words:
    """Return words that were kept, if they are as they should be."""
    if words.dtype != np.int64 or not words.ndim or not len(words):
        raise ValueError(f"words must be int64 of shape (words, ...), got {words.dtype}")
    if (np.abs(words) >> BITS).any() or abs(int(place)) > _FARTHEST:
        raise ValueError(f"words must be of {BITS} bits, and no farther than {_FARTHEST} from 1")
    return carried(int(place), words)


def _moments(
    n: int, odd: int, first: int, second: int, unit: int, square_unit: int
) -> tuple[float, float, float]:
    """Σx and Σx² in units 2^unit and 2^square_unit → mean, what it lost to rounding, m2."""
    if n == 0 or odd:
        return math.nan, 0.0, math.nan if odd else 0.0
    if unit > 0:
        first, unit = first << unit, 0
    mean = _rounded(first, n, unit)
    p, q = mean.as_integer_ratio()
    low = _rounded(first * q - (p * n << -unit), n * q, unit)
    least = min(2 * unit, square_unit)
    squares = n * (second << (square_unit - least)) - (first * first << (2 * unit - least))
    return mean, low, _rounded(squares, n, least)


def _rounded(number: int, divisor: int, unit: int) -> float:
    """Return number · 2^unit / divisor, rounded once; Python divides integers so."""
    try:
        return (number << max(unit, 0)) / (divisor << max(-unit, 0))
    except OverflowError:
        return math.inf
