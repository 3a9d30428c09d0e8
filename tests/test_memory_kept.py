"""Memory of large results: kept when they are gone, bounded, and never under two of them."""

import gc
import mmap
import os
import signal
import threading
import time

import numpy as np
import pytest

import numba_bn as nbn
from numba_bn import _memory

SIZE = _memory.KEPT_FROM
needs_free = pytest.mark.skipif(not _memory._ON_LINUX, reason="other systems keep nothing")


@pytest.fixture(autouse=True)
def nothing_kept(monkeypatch):
    monkeypatch.setattr(_memory, "_kept", [])


def new(nbytes=SIZE):
    return _memory.empty((nbytes // 4,), np.dtype(np.float32))


def address(a):
    return a.__array_interface__["data"][0]


@pytest.mark.parametrize("nbytes", [_memory.LARGE, SIZE - 4, SIZE, SIZE + 4])
def test_large_arrays_begin_with_a_page_and_are_writable(nbytes):
    a = new(nbytes)
    a[...] = 1
    assert address(a) % 4096 == 0
    assert a.nbytes == nbytes
    assert a.flags.c_contiguous
    assert a.flags.writeable


@needs_free
def test_memory_is_used_again_when_the_last_view_is_gone():
    a = new()
    a[...] = 1
    row, before = a[::2], address(a)
    del a
    assert address(new()) != before
    assert (row == 1).all()
    del row
    assert address(new()) == before


@needs_free
def test_two_results_never_share_memory():
    held = [new() for _ in range(3)]
    del held[0]
    held += [new(), new()]
    for k, a in enumerate(held):
        a[...] = k
    assert [(a == k).all() for k, a in enumerate(held)] == [True] * 4


@needs_free
def test_memory_much_larger_than_asked_is_left_alone():
    before = address(new(2 * SIZE))
    a = new(SIZE)
    assert address(a) != before
    assert address(new(SIZE + 4)) == before


@needs_free
def test_what_is_kept_is_bounded(monkeypatch):
    machine = os.sysconf("SC_PHYS_PAGES") * mmap.PAGESIZE
    monkeypatch.setattr(_memory, "_SHARE", machine / (2.5 * SIZE))
    arrays = [new() for _ in range(5)]
    addresses = [address(a) for a in arrays]
    while arrays:
        del arrays[0]
    assert [address(np.frombuffer(b, np.uint8)) for b in _memory._kept] == addresses[-2:]


@needs_free
@pytest.mark.parametrize("limit", ["RLIMIT_AS", "RLIMIT_DATA"])
def test_a_process_that_may_have_little_keeps_little(limit, monkeypatch):
    import resource

    limits, unlimited = {getattr(resource, limit): (_memory._SHARE * (SIZE + 1), -1)}, (-1, -1)
    monkeypatch.setattr(resource, "getrlimit", lambda which: limits.get(which, unlimited))
    arrays = [new() for _ in range(2)]
    arrays.clear()
    assert len(_memory._kept) == 1


@pytest.fixture
def ctrl_c():
    """Let Ctrl-C raise, also where it is ignored, as in a job in the background of a shell."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@needs_free
@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_while_memory_is_kept_is_not_lost(monkeypatch):
    def interrupted():
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(_memory, "_most", interrupted)
    a = new()
    with pytest.raises(KeyboardInterrupt):  # noqa: PT012
        del a
        for _ in range(1000):
            time.sleep(0.01)


@needs_free
def test_a_system_that_cannot_mark_it_free_keeps_nothing(monkeypatch):
    monkeypatch.setattr(mmap, "MADV_FREE", -1)
    a = new()
    a[...] = 1
    del a
    assert not _memory._kept


def test_other_systems_keep_nothing(monkeypatch):
    monkeypatch.setattr(_memory, "_ON_LINUX", False)
    a = new()
    a[...] = 1
    del a
    assert not _memory._kept


@needs_free
def test_without_room_for_a_mapping_numpy_is_asked(monkeypatch):
    def refused(*args, **kwargs):
        raise OSError("no memory")

    monkeypatch.setattr(mmap, "mmap", refused)
    a = new()
    a[...] = 1
    assert address(a) % 4096 == 0


@needs_free
def test_threads_that_make_and_drop_results_share_none():
    wrong = []

    def make(k):
        for turn in range(50):
            a = new()
            a[:: 1 << 16] = 100 * k + turn
            gc.collect(0)
            if not (a[:: 1 << 16] == 100 * k + turn).all():
                wrong.append((k, turn))

    threads = [threading.Thread(target=make, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@needs_free
def test_results_of_calls_are_right_in_memory_used_before():
    x = np.random.default_rng(0).normal(3.0, 2.0, (32, 16, 128, 128)).astype(np.float32)
    y = nbn.batch_norm_train(x)[0]
    expected, before = y.copy(), address(y)
    y[...] = np.nan
    del y
    y = nbn.batch_norm_train(x)[0]
    assert address(y) == before
    np.testing.assert_array_equal(y, expected)
