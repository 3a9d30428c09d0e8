"""After a warmup no ordinary call compiles anything, in this process or in the next."""

import os
import shutil
import subprocess
import sys

import pytest
from cache_job import ROOT

from numba_bn._kernels import _cache, _store

JOB = """
import sys
import numpy as np
import numba_bn as nbn
from table import CASES, Data, backward, data, forward

report = nbn.warmup(sys.argv[1:], progress=False)
from numba_bn._kernels import _launch
from numba_bn.functional import _plain

def made():
    made = [list(kernel._twins.values()) for kernel in _launch.kernels]
    assert {len(twins) for twins in made} <= {0, 2}  # none of what is compiled on first use
    twins = sum(made, [])
    return sum(len(twin.signatures) for twin in twins)

before = made()
for _launch._PARALLEL_BYTES in (0, 1 << 60):
    _plain._kind.cache_clear()
    for dtype in sys.argv[1:]:
        for case in CASES:
            x, dy, *parameters = data(case, dtype)
            for kind in (np.float32, np.float64):  # kernels take either
                d = Data(x, dy, *(p.astype(kind) for p in parameters))
                forward(case, d), backward(case, d)
            if case.norm == "batch":
                nbn.channel_stats(d.x, **case.options)
print(report.compiled, report.loaded, made() - before)
"""


def run(*dtypes, **environment):
    """Warm up, then run the table of norms and shapes; return the numbers that are printed."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", JOB, *dtypes],
        env={
            **os.environ,
            "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}",
            **environment,
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
    """With a copy of what other tests have compiled; what was not there, is now."""
    folder = _store._folder(tmp_path, _cache._stamp())
    folder.mkdir()
    for place in _store.places().folders:
        for file in _store._folder(place, _cache._stamp()).glob("*.nbc"):
            shutil.copy(file, folder)
    before, _ = _store.usage(tmp_path)
    compiled, loaded, later = run("float32", NUMBA_BN_CACHE=str(tmp_path))
    assert compiled + loaded > 36
    assert _store.usage(tmp_path)[0] - before == compiled
    assert later == 0
    assert run("float32", NUMBA_BN_CACHE=str(tmp_path)) == (0, compiled + loaded, 0)
