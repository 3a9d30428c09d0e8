"""Where Numba is missing, broken or switched off, errors say so and the rest works."""

import os
import subprocess
import sys

import pytest
from cache_job import ROOT

BROKEN = {
    "absent": ("raise ModuleNotFoundError(\"No module named 'numba'\")", "ModuleNotFoundError: No"),
    "too old": ("raise ImportError('Numba needs NumPy 9')", "ImportError: Numba needs NumPy 9"),
    "damaged": ("1 / 0", "ZeroDivisionError: division by zero"),
    "half there": ("", "No module named 'numba.core'"),
}
WITHOUT_KERNELS = """
import numpy as np, numba_bn as nbn
a, b = nbn.ChannelStats([2.0], [1.0], [2.0]), nbn.ChannelStats([2.0], [3.0], [2.0])
a.merge(b).save("stats.npz")
assert nbn.ChannelStats.load("stats.npz") == a + b
assert (a + b).var() == 2.0
running = nbn.RunningStats(1)
running.update(a + b)
assert running.running_mean == 0.2
weight, bias = nbn.fold_batch_norm(np.eye(1), None, None, None, [1.0], [4.0], eps=0.0)
assert weight == 0.5
layer = nbn.BatchNorm(1)
layer.load_state_dict(layer.state_dict())
"""
WITH_KERNELS = """
x = np.array([[1.0], [3.0]])
def warmup(x): nbn.warmup()
for call in (nbn.batch_norm_train, nbn.layer_norm, nbn.channel_stats, layer, layer, warmup):
    try:
        call(x)
    except ImportError as error:
        print(error)
"""
SWITCHED_OFF = """
y = nbn.batch_norm(np.array([[1.0], [3.0]], np.float32), eps=0.0)
assert y.dtype == np.float32 and y.tolist() == [[-1.0], [1.0]]
dx = nbn.layer_norm_backward(y, y).dx
assert nbn.warmup()[:2] == (0, 0)
import sys
assert "numba_bn._kernels.reference" in sys.modules and "numba_bn._kernels.cpu" not in sys.modules
"""


def run(arguments, folder, path=(), **environment):
    """Run Python in a process of its own, in a folder; return the lines it prints."""
    path = os.pathsep.join(map(str, [*path, ROOT]))
    done = subprocess.run(
        [sys.executable, "-W", "error", *arguments],
        env={**os.environ, "PYTHONPATH": path, **environment},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def instead_of_numba(folder, code):
    """A folder for the path of modules, with another Numba."""
    package = folder / "path" / "numba"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(code)
    return package.parent


@pytest.mark.parametrize("state", BROKEN)
def test_what_needs_numba_says_so_and_the_rest_works(tmp_path, state):
    code, cause = BROKEN[state]
    path = [instead_of_numba(tmp_path, code)]
    lines = run(["-c", WITHOUT_KERNELS + WITH_KERNELS], tmp_path, path)
    assert len(lines) == 6
    for line in lines:
        assert line.startswith("numba_bn: arrays are computed on by Numba")
        assert cause in line
        assert "pip install --upgrade numba" in line


def test_switched_off_it_is_plain_numpy(tmp_path):
    code = ["-c", WITHOUT_KERNELS + SWITCHED_OFF]
    assert run(code, tmp_path, NUMBA_DISABLE_JIT="1") == []


def test_info_tells_what_is_wrong(tmp_path):
    code, cause = BROKEN["too old"]
    lines = run(["-m", "numba_bn", "info"], tmp_path, [instead_of_numba(tmp_path, code)])
    assert f"  layer           none: {cause}" in lines
