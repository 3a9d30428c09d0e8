"""The rules of the launch policy, over a made-up pool of eight threads."""

import threading

import pytest

import numba_bn as nbn
from numba_bn._kernels import _policy

POOL = 8


class Pool:
    """A pool with a mask, as `Policy` sees one."""

    def __init__(self, layer="omp", starter=None, inside=0, mask=POOL):
        self.layer, self.starter, self.current = layer, starter, mask
        self.inside = lambda: inside

    def mask(self):
        return self.current

    def set_mask(self, number):
        self.current = number


def policy_of(pool):
    """A policy whose pool runs."""
    policy = _policy.Policy()
    policy._pool = pool
    return policy


def in_thread(function):
    """Call a function in a new thread; give its result."""
    found = []
    thread = threading.Thread(target=lambda: found.append(function()))
    thread.start()
    thread.join()
    return found[0]


@pytest.fixture(autouse=True)
def many():
    """More threads asked for than the pool has."""
    with nbn.threads(99):
        yield


@pytest.mark.parametrize(("mask", "expected"), [(8, 8), (5, 5), (1, 1), (0, 1), (-1, 1)])
def test_the_mask_is_a_ceiling(mask, expected):
    assert policy_of(Pool(mask=mask)).threads() == expected


@pytest.mark.parametrize(("asked", "expected"), [(1, 1), (3, 3), (9, 8)])
def test_what_was_asked_for(asked, expected):
    with nbn.threads(asked):
        assert policy_of(Pool()).threads() == expected


@pytest.mark.parametrize("layer", ["omp", "tbb"])
def test_callers_at_once_share(layer):
    policy, seen = policy_of(Pool(layer)), []

    def asking():
        with nbn.threads(99):
            return policy.threads()

    def twin(others):
        seen.append(in_thread(asking))
        if others:
            in_thread(lambda: policy.launch(POOL, twin, (others - 1,)))

    policy.launch(POOL, twin, (8,))
    assert seen == [4, 2, 2, 1, 1, 1, 1, 1, 1]
    assert policy.threads() == 8


def test_workqueue_is_for_the_main_thread():
    policy = policy_of(Pool("workqueue"))
    assert policy.threads() == 8
    assert in_thread(policy.threads) == 1


def test_never_within_a_loop():
    assert policy_of(Pool(inside=1)).threads() == 1


@pytest.mark.parametrize("error", [None, ValueError, KeyboardInterrupt])
def test_a_launch_leaves_nothing_behind(error):
    pool = Pool(mask=5)
    policy, seen = policy_of(pool), []

    def twin(*args):
        seen.append((args, pool.current))
        if error:
            raise error

    if error:
        with pytest.raises(error):
            policy.launch(3, twin, (1, 2))
    else:
        policy.launch(3, twin, (1, 2))
    assert seen == [((1, 2), 3)]
    assert pool.current == 5
    assert policy.threads() == 5


@pytest.mark.parametrize(
    ("layer", "starter", "expected"),
    [
        ("omp", "this", 1),
        ("workqueue", "this", 8),
        ("workqueue", "another", 8),
        ("tbb", "this", 8),
        ("tbb", "another", 1),
        ("tbb", "unknown", 1),
    ],
)
def test_after_a_fork(layer, starter, expected):
    here = threading.get_ident()
    starters = {"this": here, "another": here + 1, "unknown": None}
    policy = policy_of(Pool(layer, starters[starter]))
    policy.after_fork()
    assert policy.threads() == expected


def test_after_a_fork_in_the_middle_of_a_launch():
    policy = policy_of(Pool("tbb", threading.get_ident()))
    policy.launch(2, policy.after_fork, ())
    assert policy.threads() == 1


@pytest.mark.parametrize(
    ("layer", "forked", "openmp", "expected"),
    [
        (None, False, True, True),
        ("omp", False, True, True),
        (None, True, False, True),
        (None, True, True, False),
        ("omp", True, False, False),
        ("tbb", True, False, False),
        ("workqueue", True, True, True),
    ],
)
@pytest.mark.parametrize("hooked", [True, False])
def test_where_threads_may_start(monkeypatch, hooked, layer, forked, openmp, expected):
    monkeypatch.setattr(_policy, "_forked_earlier", lambda: forked and not hooked)
    monkeypatch.setattr(_policy, "_openmp_is_loaded", lambda: openmp)
    policy = _policy.Policy()
    if forked and hooked:
        policy.after_fork()
    assert policy._may_start(layer) == expected


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("7f00 r-xp 00000000 08:01 42 /usr/lib/libgomp.so.1.0.0\n7f01 rw-p", True),
        ("7f00 r-xp 00000000 08:01 42 /x/torch.libs/libgomp-a34b3233.so.1\n", True),
        ("7f00 r-xp 00000000 08:01 42 /opt/lib/libiomp5.so\n", True),
        ("7f00 r-xp 00000000 08:01 42 /opt/lib/libomp.so\n", True),
        ("7f00 r-xp 00000000 08:01 42 /opt/libompx/libm.so\n", False),
        ("7f00 r-xp 00000000 08:01 42 /usr/lib/libc.so.6\n", False),
    ],
)
def test_openmp_is_known_by_its_file(line, expected):
    assert bool(_policy._OPENMP.search(line)) == expected
