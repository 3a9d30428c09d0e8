"""Which memory is asked for while some is read: all of what comes, of eight pages in turn."""

import numpy as np
import pytest

from numba_bn._kernels.cpu import asking

PAGE = 4096


@pytest.fixture
def asked(monkeypatch):
    """What is asked for, from a to b, in some way: as plain Python, of a CPU that takes turns."""
    seen = []
    monkeypatch.setattr(asking, "near", lambda x: 2 * PAGE // x.itemsize)
    monkeypatch.setattr(asking, "in_turn", lambda x, far: far)
    monkeypatch.setattr(asking, "straight", asking.straight.py_func)
    monkeypatch.setattr(asking, "prefetch", lambda x, i: seen.append(i))

    def walk(x, a, b, way):
        seen.clear()
        for k in range(a, b, 16):
            asking.ask.py_func(x, k, way)
        return list(seen)

    return walk


@pytest.fixture(params=["float32", "float64"])
def x(request):
    return np.empty(0, request.param)


def sixteens(a, size):
    return list(range(a, a + size, 16))


def test_eight_pages_are_asked_for_while_eight_are_read(x, asked):
    page, start, jump = PAGE // x.itemsize, 48, 1 << 30
    size = 8 * page
    way = asking.by_pages.py_func(x, True, start, 3 * size, jump)
    for first in (start, start + size):
        found = asked(x, first, first + size, way)
        assert sorted(found) == sixteens(first + size, size)
        assert np.diff(found[:8]).tolist() == [page] * 7
    found = asked(x, start + 2 * size, start + 3 * size, way)
    assert sorted(found) == sixteens(start + 3 * size + jump, size)
    after = asking.by_pages.py_func(x, True, start + 7, 3 * size, jump)
    assert asking.further.py_func(way, 7) == after


@pytest.mark.parametrize("sixteen", [512, 784, 1001, 5000])
def test_a_row_is_asked_for_while_the_one_before_is_read(x, asked, sixteen):
    start, stride, size = 32, 1 << 20, 16 * sixteen * 4 // x.itemsize
    way = asking.by_rows.py_func(x, True, start, size, stride, 9)
    found = asked(x, start, start + size, way)
    assert len(set(found)) == len(found)
    # the eight parts it is in may be a little longer than it
    assert len(set(sixteens(start + stride, size)) - set(found)) < 64
    assert np.ptp(found) < size + 128
    assert (np.diff(found[:8]) >= PAGE // x.itemsize).all()
    after = asking.further.py_func(way, stride)
    assert after == asking.by_rows.py_func(x, True, start + stride, size, stride, 9)
    assert asking.takes_turns.py_func(after)


def test_what_is_near_or_short_is_asked_for_straight(x, asked):
    near, many = 2 * PAGE // x.itemsize, 1 << 20
    for far, size in ((False, many), (True, 4 * near - 16)):
        assert asked(x, 64, 65, asking.by_pages.py_func(x, far, 0, size, 0)) == [64 + near]
        stride = max(size, 5 * near)
        for rows, ahead in ((2, stride), (1, near)):
            way = asking.by_rows.py_func(x, far, 0, size // 5, stride, rows)
            assert asked(x, 64, 65, way) == [64 + ahead]
    way = asking.by_rows.py_func(x, False, 0, 16, near // 3, 2)
    assert not asking.takes_turns.py_func(way)
    assert asked(x, 64, 65, way) == [64 + near // 3 * 3]
