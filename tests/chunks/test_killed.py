"""Killed at any moment and begun again: the same as if nothing had happened."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from job import BLOCKS, SHAPE

import numba_bn as nbn
from numba_bn.chunks.sources import Mapped

JOB = Path(__file__).with_name("job.py")
LASTS = 0.6
"""Seconds that the job takes at least, once it has begun."""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """What the job finds."""
    x = np.random.default_rng(0).normal(1e4, 1.0, SHAPE).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    np.lib.format.open_memmap(tmp_path / "y.npy", "w+", "f4", SHAPE).flush()
    nbn.channel_stats(x).save(tmp_path / "given.npz")
    monkeypatch.setattr(Mapped, "limit", 5 * 100 * 4)
    return tmp_path


def begun(what, folder):
    """Start the job, and come back when it has begun."""
    process = subprocess.Popen(
        [sys.executable, "-W", "error", JOB, what, folder],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # where Ctrl-C is ignored, as in a job in the background of a shell, it would be here too
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert process.stdout.readline() == "begun\n", process.communicate()[1]
    return process


def stopped(what, folder, after, how=signal.SIGKILL):
    """Start the job and stop it after so many seconds; return what it said."""
    process = begun(what, folder)
    time.sleep(after)
    process.send_signal(how)
    said = process.communicate(timeout=60)
    return process.returncode, *said


def check(what, folder):
    """Let the job end, and compare; return how many blocks it still had to read."""
    process = begun(what, folder)
    said, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    x = np.load(folder / "x.npy", mmap_mode="r")
    if what == "stats":
        whole = nbn.channel_stats(x, checkpoint=folder / "whole.npz")
        assert nbn.ChannelStats.load(folder / "stats.npz") == whole
    else:
        given = nbn.ChannelStats.load(folder / "given.npz")
        whole = nbn.batch_norm(x, mean=given.mean, var=given.var())
        np.testing.assert_array_equal(np.load(folder / "y.npy"), whole)
    return int(said)


@pytest.mark.parametrize("what", ["stats", "normalize"])
def test_killed_twice(what, folder):
    for after in (0.1, 0.2):
        assert stopped(what, folder, after)[0] == -signal.SIGKILL
    assert check(what, folder) < BLOCKS


@pytest.mark.slow
@pytest.mark.parametrize(("what", "times"), [("stats", 7), ("normalize", 4)])
def test_killed_at_random_moments(what, times, folder):
    rng = np.random.default_rng(0)
    fewest = BLOCKS
    for i in range(times):
        (folder / "job.npz").unlink(missing_ok=True)
        (folder / "stats.npz").unlink(missing_ok=True)
        stopped(what, folder, (i + rng.random()) / times * LASTS)
        fewest = min(fewest, check(what, folder))
    assert fewest < BLOCKS / 2


@pytest.mark.parametrize("what", ["stats", "normalize"])
def test_ctrl_c_leaves_a_checkpoint_of_all_that_was_done(what, folder):
    code, said, errors = stopped(what, folder, LASTS / 2, signal.SIGINT)
    assert (code, said) == (-signal.SIGINT, "")
    assert errors.rstrip().endswith("KeyboardInterrupt")
    assert 0 < check(what, folder) < BLOCKS
    leftovers = {p for p in os.listdir(folder) if p.endswith(".tmp")}
    assert leftovers == set()
