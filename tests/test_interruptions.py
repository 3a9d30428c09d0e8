"""Interrupted anywhere, updated by many threads: a state is the old one or the new one, whole."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from injection import interrupted

import numba_bn as nbn
from numba_bn.stats import _turns

FIRST, SECOND = np.random.default_rng(3).normal(2.0, 3.0, (2, 9, 3))


def collected():
    return nbn.channel_stats(FIRST)


def running(momentum):
    state = nbn.RunningStats(3, momentum=momentum)
    state.update(nbn.channel_stats(FIRST))
    return state


def layer(**options):
    made = nbn.BatchNorm(3, dtype=np.float64, **options)
    made(FIRST)
    made.backward(SECOND)
    return made


def other_state():
    other = nbn.BatchNorm(3)
    other.gamma, other.beta = np.full(3, 2.0), np.full(3, 5.0)
    other(SECOND)
    return other.state_dict()


def held(state):
    """Everything a state holds, as bytes."""
    if isinstance(state, dict):
        return {name: held(value) for name, value in state.items()}
    if isinstance(state, tuple):
        return [held(value) for value in state]
    if isinstance(state, np.ndarray):
        return state.tobytes()
    if isinstance(state, nbn.ChannelStats):
        m = state._moments
        return held((m.count, m.mean, m.low, m.m2))
    return held(vars(state)) if hasattr(state, "__dict__") else state


BATCH = nbn.channel_stats(SECOND)
STATE = other_state()
ACTIONS = {
    "ChannelStats.update": (collected, lambda s: s.update(SECOND)),
    "RunningStats.update": (lambda: running(0.1), lambda s: s.update(BATCH)),
    "RunningStats.update, exact": (lambda: running(None), lambda s: s.update(BATCH)),
    "BatchNorm trains": (layer, lambda s: s(SECOND)),
    "BatchNorm trains in place": (layer, lambda s: (a := SECOND.copy(), s(a, out=a))),
    "BatchNorm without tracking": (
        lambda: layer(track_running_stats=False),
        lambda s: s(SECOND),
    ),
    "BatchNorm at test time": (lambda: layer().eval(), lambda s: s(SECOND)),
    "BatchNorm.backward": (layer, lambda s: s.backward(FIRST)),
    "BatchNorm.load_state_dict": (layer, lambda s: s.load_state_dict(STATE)),
}


@pytest.fixture
def lost_lock(monkeypatch):
    """A lock that may stay locked: a trace raises even between a with block and its end.

    CPython looks for signals after calls and jumps only, and never there.
    """
    monkeypatch.setattr(_turns, "lock", threading.RLock())


@pytest.mark.usefixtures("lost_lock")
@pytest.mark.parametrize("action", ACTIONS)
def test_interrupted_at_any_step(action):
    make, act = ACTIONS[action]
    new = make()
    old = held(new)
    act(new)
    assert held(new) != old
    seen = [held(state) for state in interrupted(make, act)]
    assert len(seen) > 10
    assert (seen[0], seen[-1]) == (old, held(new))
    for step, state in enumerate(seen, 1):
        assert state in (old, held(new)), f"interrupted at step {step}"


def test_this_file_sees_a_state_between_two():
    def store_one_by_one(state):
        state.running_mean = BATCH.mean
        state.running_var = BATCH.var(1)

    seen = interrupted(lambda: running(0.1), store_one_by_one, within=__file__)
    assert len({repr(held(state)) for state in seen}) == 3


# ---- a file ----


# between the last line of a with block and its end a file closes with its last reference
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_save_interrupted_at_any_step(tmp_path):
    path = tmp_path / "statistics.npz"
    old, new = nbn.channel_stats(FIRST), nbn.channel_stats(SECOND)

    found = []
    for _ in interrupted(lambda: old.save(path), lambda _: new.save(path)):
        found.append(nbn.ChannelStats.load(path))
        assert found[-1] in (old, new)
        assert os.listdir(tmp_path) == ["statistics.npz"]
    assert found[0] == old
    assert found[-1] == new


# ---- several threads ----


def together(count, action):
    """Run an action in many threads at once."""
    gate = threading.Barrier(count)

    def run():
        gate.wait()
        action()

    threads = [threading.Thread(target=run) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()


def test_all_updates_of_many_threads_count():
    total = nbn.ChannelStats(*np.zeros((3, 3)))
    exact = nbn.RunningStats(3, momentum=None)
    layers = nbn.BatchNorm(3, momentum=None)

    def update():
        for _ in range(50):
            total.update(FIRST)
            exact.update(BATCH)
            layers(SECOND)

    together(8, update)
    np.testing.assert_array_equal(total.count, np.full(3, 8 * 50 * 9.0))
    np.testing.assert_allclose(total.var(), FIRST.var(0), rtol=1e-12)
    for state in (exact, layers):
        assert state.num_batches_tracked == 400
        np.testing.assert_allclose(state.running_mean, SECOND.mean(0), rtol=1e-12)
    np.testing.assert_array_equal(exact.seen.count, np.full(3, 3600.0))


def test_others_see_whole_states_only():
    """Count and mean are of one moment: of k batches of k ones, twos, ... only one pair fits."""
    total = nbn.ChannelStats([0], [0], [0])
    pairs, done = [], threading.Event()

    def look():
        while not done.is_set():
            seen = total + nbn.ChannelStats([0], [0], [0])
            pairs.append((seen.count.item(), seen.mean.item()))

    def update():
        for value in range(1, 30):
            total.update([[value]])
        done.set()

    threads = [threading.Thread(target=f) for f in (look, update)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert pairs
    for count, mean in pairs:
        assert mean == pytest.approx((count + 1) / 2 if count else 0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_child_forked_during_an_update_can_update():
    held_by_another, done = threading.Event(), threading.Event()

    def hold():
        with _turns.lock:
            held_by_another.set()
            done.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    held_by_another.wait(60)
    pid = os.fork()
    if pid == 0:
        import signal

        signal.alarm(20)
        os._exit(0 if collected().update(SECOND).count[0] == 18 else 1)
    done.set()
    thread.join(60)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


# ---- Ctrl-C ----

JOB = Path(__file__).with_name("interrupt_job.py")
LAYERS = ["default", "workqueue", "omp"]


def interrupt(job, *arguments, layer="default", **variables):
    """Run a job in a process, and see what it says."""
    env = {**os.environ, "NUMBA_NUM_THREADS": "2", **variables}
    env = env if layer == "default" else {**env, "NUMBA_THREADING_LAYER": layer}
    done = subprocess.run(
        [sys.executable, str(JOB), job, *arguments],
        env=env,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "interrupted right\n", done.stderr


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="sends signals")
@pytest.mark.parametrize("layer", LAYERS)
def test_ctrl_c_during_calls(layer):
    interrupt("call", layer=layer)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="sends signals")
@pytest.mark.parametrize("seconds", ["0.02", "0.05", "0.08", "0.11"])
def test_ctrl_c_while_numba_is_imported(seconds):
    interrupt("load", seconds)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="sends signals")
def test_ctrl_c_while_kernels_compile(tmp_path):
    interrupt("compile", NUMBA_CACHE_DIR=str(tmp_path))
    interrupt("call", NUMBA_CACHE_DIR=str(tmp_path))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="sends signals")
def test_ctrl_c_during_updates():
    interrupt("update")
