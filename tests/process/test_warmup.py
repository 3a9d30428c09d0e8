"""After a warmup no ordinary call compiles anything, in this process or in the next."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from cache_job import ROOT

from numba_bn import _warmup

JOB = """
import sys
import numpy as np
import numba_bn as nbn
from table import CASES, backward, data, forward

report = nbn.warmup(sys.argv[1:], progress=False)
from numba_bn._kernels import _launch

def made():
    twins = [twin for kernel in _launch.kernels for twin in kernel._twins.values()]
    assert len(twins) == 2 * len(_launch.kernels)
    return sum(len(twin.signatures) for twin in twins)

before = made()
for _launch._PARALLEL_BYTES in (0, 1 << 60):
    for dtype in sys.argv[1:]:
        for case in CASES:
            d = data(case, dtype)
            forward(case, d), backward(case, d)
            if case.norm == "batch":
                nbn.channel_stats(d.x, **case.options)
print(report.compiled, report.loaded, made() - before)
"""


def run(folder, *dtypes):
    """Warm up, then run the table of norms and shapes; return the numbers that are printed."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", JOB, *dtypes],
        env={
            **os.environ,
            "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}",
            "NUMBA_BN_CACHE": str(folder),
        },
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return tuple(int(word) for word in done.stdout.split())


@pytest.mark.slow
def test_nothing_is_compiled_after_it(tmp_path):
    compiled, loaded, later = run(tmp_path, "float32", "uint8")
    assert compiled > 36
    assert (loaded, later) == (0, 0)
    assert len(list(Path(tmp_path).rglob("*.nbc"))) == compiled
    assert run(tmp_path, "float32", "uint8") == (0, compiled, 0)


class Terminal(io.StringIO):
    """Something that looks like a terminal."""

    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("progress", "stream", "shown"),
    [
        (None, io.StringIO, False),
        (None, Terminal, True),
        (True, io.StringIO, True),
        (False, Terminal, False),
    ],
)
def test_the_bar(progress, stream, shown, monkeypatch):
    pytest.importorskip("tqdm")
    steps = [lambda: None] * 3
    monkeypatch.setattr(sys, "stderr", stream())
    assert list(_warmup._shown(steps, progress)) == steps
    assert ("3/3" in sys.stderr.getvalue()) == shown


def test_without_tqdm_there_is_no_bar(monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    monkeypatch.setattr(_warmup, "find_spec", lambda name: None)
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert list(_warmup._shown([len], None)) == [len]
    with pytest.raises(ImportError, match="numba-bn\\[cli\\]"):
        _warmup._shown([len], True)
