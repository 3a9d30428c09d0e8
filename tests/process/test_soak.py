"""The soak's short forms: nothing hangs, no bit differs, no memory and no thread is left over."""

import os
import signal
import subprocess
import sys

import harness
import pytest

pytestmark = pytest.mark.slow
SOAK = harness.HERE.parent / "soak.py"


def soak(layer, *options):
    """Run the soak under a layer; it must end well, within a time in which it also compiles."""
    for module in ("psutil", "joblib", "dask"):
        pytest.importorskip(module)
    process = subprocess.Popen(
        [sys.executable, str(SOAK), *options],
        env=harness.environment(layer),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=900)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 0, output
    return output


@pytest.mark.parametrize("layer", ["omp", "workqueue"], indirect=True)
def test_mixed_calls(layer):
    """Under those that a fork or two threads at once would end, were they asked."""
    assert "mixed" in soak(layer, "--minutes", "0")


def test_memory_of_small_calls():
    assert "MB above" in soak("workqueue", "--calls", "100000")
