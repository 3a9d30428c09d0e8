"""The commands on data as processes of a shell; their help."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from cli_files import X

import numba_bn as nbn
from numba_bn import _cli

pytestmark = pytest.mark.usefixtures("here")


@pytest.mark.parametrize("command", ["stats", "normalize", "merge"])
def test_help_has_examples(command, capsys):
    with pytest.raises(SystemExit) as caught:
        _cli.main([command, "--help"])
    assert caught.value.code == 0
    assert f"\nexamples:\n  numba-bn {command} " in capsys.readouterr().out


def run(*command, **how):
    """Start the command line in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "numba_bn", *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # where Ctrl-C is ignored, as in a job in the background of a shell, it would be here too
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        **how,
    )


def test_from_the_shell_end_to_end():
    np.save("x.npy", X)
    out, err = run("stats", "x.npy", "-o", "s.npz", "--progress", "--checkpoint", "j").communicate()
    assert out.startswith("     channel")
    assert "channel_stats: 100%" in err
    process = run("normalize", "x.npy", "y.npy", "--stats", "s.npz")
    assert process.communicate() == ("", "")
    assert process.returncode == 0
    found = nbn.channel_stats(np.load("y.npy"))
    np.testing.assert_allclose(found.mean, 0, atol=1e-6)
    np.testing.assert_allclose(found.std(), 1, rtol=1e-5)


@pytest.mark.parametrize("axes", ["1", "0,1,2"])  # few lines, and many
def test_what_nobody_reads_to_the_end_is_no_error(axes):
    np.save("x.npy", X)
    with run("stats", "x.npy", "--channel-axis", axes, "-o", "s.npz") as process:
        process.stdout.close()
        assert (process.stderr.read(), process.wait(60)) == ("", 141)
    assert os.path.exists("s.npz")


def test_ctrl_c_exits_with_130_and_leaves_the_checkpoint():
    large = np.lib.format.open_memmap("x.npy", "w+", "f4", (8000, 4, 100_000))  # zeros: on no disk
    assert large.nbytes > 10e9
    process = run("stats", "x.npy", "--checkpoint", "job.npz")
    while not os.path.exists("job.npz"):
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert err == "numba-bn: interrupted; the same command goes on from job.npz\n"
    with np.load("job.npz") as file:
        assert file["done"] * 40e6 < large.nbytes
