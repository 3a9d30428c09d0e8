"""The same bits at any number of threads, by the serial and the parallel twin."""

import os
import subprocess
import sys
from pathlib import Path

JOB = Path(__file__).with_name("threads_job.py")


def test_bits_do_not_depend_on_threads():
    done = subprocess.run(
        [sys.executable, "-W", "error", str(JOB), "1", "3", "8"],
        env={**os.environ, "NUMBA_NUM_THREADS": "8"},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 10
    assert [line for line in lines if not line.endswith(" same")] == []
