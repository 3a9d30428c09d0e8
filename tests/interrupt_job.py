"""Ctrl-C again and again while calls run, compile or update: prints what the process is then worth.

Run in a process of its own: ``interrupt_job.py call|compile|update``, or
``interrupt_job.py load SECONDS``.
"""

import os
import signal
import sys
import threading
import time

import numpy as np

import numba_bn as nbn
from numba_bn._dispatch import backend
from numba_bn._kernels import reference

X = np.random.default_rng(0).normal(3.0, 2.0, (8, 64, 40, 40)).astype(np.float32)


armed = False


def on_interrupt(*_):
    """Do what Python does, but only while an action is under way."""
    if armed:
        raise KeyboardInterrupt


def send(longest, until):
    """Send SIGINT after random times, none longer than that."""
    rng = np.random.default_rng(1)
    while time.monotonic() < until:
        time.sleep(rng.uniform(0, longest))
        os.kill(os.getpid(), signal.SIGINT)


def hammer(action, seconds, longest):
    """Repeat an action under interrupts; return how often it ended and how often it did not."""
    global armed
    ended = broken = 0
    signal.signal(signal.SIGINT, on_interrupt)
    until = time.monotonic() + seconds
    sender = threading.Thread(target=send, args=(longest, until))
    sender.start()
    while time.monotonic() < until:
        try:
            armed = True
            action()
            armed = False
            ended += 1
        except KeyboardInterrupt:
            armed = False
            broken += 1
    sender.join()
    return ended, broken


def is_right():
    """Tell whether calls are, small and large, in this thread and in another."""
    found = []

    def look():
        for x in (X, X[:2, :3, :2, :2].copy()):
            y, stats = nbn.batch_norm_train(x)
            x5, y5 = (a.reshape(1, len(x), x.shape[1], 1, -1) for a in (x, np.empty_like(x)))
            ones, zeros = np.ones(x.shape[1]), np.zeros(x.shape[1])
            _, mean, _, _ = reference.forward(x5, ones, zeros, 1e-5, y5)
            found.append(np.allclose(y, y5.reshape(x.shape), atol=1e-5))
            found.append(np.allclose(stats.mean, mean.ravel()))

    look()
    other = threading.Thread(target=look, daemon=True)
    other.start()
    other.join(60)
    return len(found) == 8 and all(found)


def load():
    """The first call of a process, interrupted while it imports Numba."""
    global armed
    signal.signal(signal.SIGINT, on_interrupt)
    signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGINT))
    signal.setitimer(signal.ITIMER_REAL, float(sys.argv[2]))
    armed = True
    try:
        nbn.layer_norm(X[0, 0])
        ended = 1
    except KeyboardInterrupt:
        ended = 0
    armed = False
    return ended, 1 - ended


def call():
    """Long calls, one after the other."""
    nbn.batch_norm_train(X)
    return hammer(lambda: nbn.batch_norm_train(X), 2.0, 0.02)


def compile_():
    """First calls, of which nothing is on disk yet; Numba itself is there."""
    backend()
    return hammer(lambda: nbn.batch_norm_train(X), 4.0, 0.3)


def update():
    """Updates of states: mean and variance stay in step, and nothing stays locked."""
    part, total, layer = X[:2, :, :4, :4].copy(), nbn.channel_stats(X), nbn.BatchNorm2d(64)
    layer(part)

    def step():
        total.update(part)
        layer(part)

    step()  # compiles what it needs
    done = hammer(step, 3.0, 0.003)
    want = nbn.BatchNorm2d(64)
    for _ in range(layer.num_batches_tracked):
        want(part)
    assert np.array_equal(layer.running_mean, want.running_mean)
    assert np.array_equal(layer.running_var, want.running_var)
    parts = (total.count[0] - X[:, 0].size) / part[:, 0].size
    means = (X.mean((0, 2, 3), np.float64) * X[:, 0].size, part.mean((0, 2, 3), np.float64))
    mean = (means[0] + means[1] * parts * part[:, 0].size) / total.count[0]
    assert parts == int(parts)
    assert np.allclose(total.mean, mean)
    other = threading.Thread(target=step, daemon=True)
    other.start()
    other.join(60)
    assert not other.is_alive()
    return done


if __name__ == "__main__":
    jobs = {"load": load, "call": call, "compile": compile_, "update": update}
    ended, broken = jobs[sys.argv[1]]()
    print("interrupted" if broken else "never interrupted", "right" if is_right() else "wrong")
    print(ended, broken, file=sys.stderr)
