"""Reading ahead: in order, one ahead, and no thread that stays behind."""

import threading
from types import SimpleNamespace

import pytest

from numba_bn.chunks.ahead import ahead


def readers():
    return [t for t in threading.enumerate() if t.name.startswith("numba_bn-reader")]


@pytest.fixture(autouse=True)
def _no_thread_stays():
    yield
    assert readers() == []


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("number", [0, 1, 2, 5, 20])
def test_everything_comes_in_order(number, threads):
    with ahead(lambda item: item**2, range(number), threads) as results:
        assert [part.value for part in results] == [n**2 for n in range(number)]


def test_threads_read_at_once_and_one_more_item_waits_for_them():
    meeting, taken = threading.Barrier(2, timeout=10), []

    def read(item):
        if item < 2:
            meeting.wait()  # for ever, if they came one by one
        return item

    def items():
        for item in range(6):
            taken.append(item)
            yield item

    with ahead(read, items(), 2) as results:
        assert next(results).value == 0
        assert taken == [0, 1, 2]
        assert [part.value for part in results] == [1, 2, 3, 4, 5]


def test_the_next_is_read_while_the_caller_works():
    reading = [threading.Event() for _ in range(4)]

    def read(item):
        reading[item].set()
        return item

    with ahead(read, range(3)) as results:
        assert next(results).value == 0
        assert reading[1].wait(10)
        assert not reading[2].is_set()
        assert len(readers()) == 1


class Pool:
    """A pool whose even items are done when they are asked for, and whose odd ones are not."""

    def __init__(self, *_):
        pass

    def submit(self, read, item):
        return SimpleNamespace(done=lambda: item % 2 == 0, result=lambda: read(item))

    def shutdown(self, **_):
        pass


def test_says_what_was_waited_for_but_of_the_first(monkeypatch):
    monkeypatch.setattr("numba_bn.chunks.ahead.ThreadPoolExecutor", Pool)
    with ahead(str, [3, 1, 2, 5]) as results:
        assert list(results) == [("3", False), ("1", True), ("2", False), ("5", True)]


def test_an_error_comes_in_its_place():
    def read(item):
        if item == 2:
            raise OSError("the disk is gone")
        return item

    got = []

    def take_all():
        with ahead(read, range(5)) as results:
            for result in results:
                got.append(result.value)

    with pytest.raises(OSError, match="the disk is gone"):
        take_all()
    assert got == [0, 1]


def test_an_error_of_the_caller_ends_the_reading():
    done = []

    def stop():
        with ahead(done.append, range(1000)) as results:
            next(results)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stop()
    assert len(done) <= 2
