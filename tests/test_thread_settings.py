"""The number of threads: what says it, in which order, where it holds, and what is refused."""

import contextlib
import contextvars
import subprocess
import sys
import threading

import pytest

import numba_bn as nbn
from numba_bn import _threads

VARIABLES = ("NUMBA_BN_NUM_THREADS", "OMP_NUM_THREADS")
HERE, PROCESS = "numba_bn.threads or threadpoolctl", "numba_bn.set_num_threads"


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    """No setting, seven CPUs, and a pool and a mask that are no ceiling."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(_threads, "available", lambda: (7, "CPU affinity"))
    monkeypatch.setattr(_threads, "_pool_size", lambda: 99)
    monkeypatch.setattr(_threads, "_mask", lambda: None)
    monkeypatch.setattr(_threads, "_process", None)
    _threads._default.cache_clear()
    yield
    _threads._default.cache_clear()


def test_who_goes_first(monkeypatch):
    assert _threads.origin() == (7, "CPU affinity")
    for number, name in ((5, "OMP_NUM_THREADS"), (4, "NUMBA_BN_NUM_THREADS")):
        monkeypatch.setenv(name, str(number))
        _threads._default.cache_clear()
        assert _threads.origin() == (number, name)
    nbn.set_num_threads(8)
    assert _threads.origin() == (8, PROCESS)
    with nbn.threads(3):
        assert _threads.origin() == (3, HERE)
        nbn.set_num_threads(2)
        assert nbn.get_num_threads() == _threads.asked() == 3
    assert _threads.origin() == (2, PROCESS)
    nbn.set_num_threads(None)
    assert _threads.origin() == (4, "NUMBA_BN_NUM_THREADS")


def test_numba_is_a_ceiling(monkeypatch):
    monkeypatch.setattr(_threads, "_pool_size", lambda: 6)
    assert _threads.origin() == (6, "NUMBA_NUM_THREADS")
    monkeypatch.setattr(_threads, "_mask", lambda: 5)
    assert _threads.origin() == (5, "numba.set_num_threads")
    with nbn.threads(5):
        assert _threads.origin() == (5, HERE)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("3", 3), (" 3 ", 3), ("3,2", 3), ("", 7), ("0", 7), ("-2", 7), ("many", 7), ("2.5", 7)],
)
def test_what_openmp_variables_say(monkeypatch, text, expected):
    monkeypatch.setenv("OMP_NUM_THREADS", text)
    assert nbn.get_num_threads() == expected


@pytest.mark.parametrize("text", ["0", "-2", "many"])
def test_our_variable_is_not_ignored_in_silence(monkeypatch, text):
    monkeypatch.setenv("NUMBA_BN_NUM_THREADS", text)
    message = f"NUMBA_BN_NUM_THREADS must be a positive integer, got {text!r}; ignored"
    with pytest.warns(RuntimeWarning, match=message):
        assert nbn.get_num_threads() == 7
    assert nbn.get_num_threads() == 7


def test_the_environment_is_read_late_and_once(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert nbn.get_num_threads() == 3
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    assert nbn.get_num_threads() == 3


def in_thread(function):
    """Call a function in a new thread; give its result."""
    found = []
    thread = threading.Thread(target=lambda: found.append(function()))
    thread.start()
    thread.join()
    return found[0]


def test_a_process_setting_holds_in_every_thread():
    in_thread(lambda: nbn.set_num_threads(4))
    assert nbn.get_num_threads() == in_thread(nbn.get_num_threads) == 4


def test_a_block_holds_in_its_own_thread_or_task():
    with nbn.threads(2):
        assert in_thread(nbn.get_num_threads) == 7
        assert contextvars.Context().run(nbn.get_num_threads) == 7
        assert contextvars.copy_context().run(nbn.get_num_threads) == 2


def test_blocks_nest_and_end_on_errors():
    with nbn.threads(2):
        with contextlib.suppress(KeyError), nbn.threads(5):
            assert nbn.get_num_threads() == 5
            raise KeyError
        assert nbn.get_num_threads() == 2
    assert nbn.get_num_threads() == 7


@pytest.mark.parametrize("name", ["set_num_threads", "threads"])
@pytest.mark.parametrize(
    ("n", "kind", "text"),
    [
        (0, ValueError, "n must be at least 1, got 0"),
        (-3, ValueError, "n must be at least 1, got -3"),
        (2.0, TypeError, "n must be an integer, got 2.0"),
        (True, TypeError, "n must be an integer, got True"),
        ("2", TypeError, "n must be an integer, got '2'"),
    ],
)
def test_what_is_refused(name, n, kind, text):
    with pytest.raises(kind) as caught:
        getattr(nbn, name)(n)
    assert str(caught.value) == f"{name}: {text}"
    assert nbn.get_num_threads() == 7


def test_limits_are_undone_by_setting_what_was_found():
    with nbn.threads(8):
        _threads.limit(1)
        assert nbn.get_num_threads() == 1
        _threads.limit(8)
        assert nbn.get_num_threads() == 8
    _threads.limit(1)
    _threads.limit(7)
    nbn.set_num_threads(3)
    assert _threads.origin() == (3, PROCESS)


ASKING = """
import sys
import numba_bn as nbn
nbn.set_num_threads(3)
assert nbn.get_num_threads() == 3
with nbn.threads(2):
    assert nbn.get_num_threads() == 2
assert "numba" not in sys.modules
import numba
assert nbn.get_num_threads() == 3
import numba.np.ufunc.parallel as parallel
assert not parallel._is_initialized
numba.set_num_threads(2)
assert nbn.get_num_threads() == 2
"""


def test_asking_loads_nothing_and_starts_nothing(monkeypatch):
    monkeypatch.setenv("NUMBA_NUM_THREADS", "4")
    subprocess.run([sys.executable, "-W", "error", "-c", ASKING], check=True, timeout=60)
