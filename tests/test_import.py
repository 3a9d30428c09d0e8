"""Importing is light: no Numba, no CUDA, nothing compiled, until it is needed."""

import subprocess
import sys

import pytest

import numba_bn as nbn


def loaded(code):
    """The modules a fresh interpreter has loaded after running some code."""
    script = f"{code}\nimport sys\nprint(*sorted(sys.modules), sep='\\n')"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def heavy(modules):
    """Those of them that are slow to load, or have a device."""
    tops = ("numba", "llvmlite", "cupy", "cuda", "numba_cuda", "torch", "scipy", "ml_dtypes")
    return {m for m in modules if m.split(".")[0] in tops or "cuda" in m}


def test_importing_loads_nothing_heavy():
    modules = loaded("import numba_bn")
    assert "numba_bn" in modules
    assert heavy(modules) == set()
    assert {m for m in modules if m.startswith("numba_bn.")} == {"numba_bn._limits"}


def test_looking_at_the_names_loads_nothing_heavy():
    code = "import numba_bn as nbn; [getattr(nbn, name) for name in nbn.__all__]; dir(nbn)"
    assert heavy(loaded(code)) == set()


def test_what_needs_no_kernel_loads_nothing_heavy():
    code = """
import numpy as np, numba_bn as nbn
layer = nbn.BatchNorm(3)
layer.load_state_dict(layer.state_dict())
stats = nbn.ChannelStats([2, 2, 2], [1, 2, 3], [1, 1, 1])
nbn.RunningStats(3).update(stats + stats)
nbn.fold_batch_norm(np.eye(3), None, None, None, [0, 0, 0], [1, 1, 1])
try:
    nbn.batch_norm(np.ones((2, 3)), [1.0])
except ValueError:
    pass
"""
    assert heavy(loaded(code)) == set()


def test_a_call_in_float32_loads_neither_ml_dtypes_nor_cuda():
    code = "import numpy as np, numba_bn as nbn; nbn.layer_norm(np.ones((2, 3), np.float32))"
    modules = loaded(code)
    ours = {m for m in modules if m.startswith("numba_bn.")}
    assert "numba_bn._dispatch" in ours
    assert not {m for m in ours if "cuda" in m}
    assert not {"ml_dtypes", "numba.cuda", "cupy", "torch", "dask", "xarray"} & modules


def test_names_are_listed_before_they_are_loaded():
    names = loaded("import numba_bn; print(*dir(numba_bn), sep='\\n')")
    assert set(nbn.__all__) <= names
    assert set(nbn.__all__) <= set(dir(nbn))


def test_all_names_come_with_a_star():
    namespace = {}
    exec("from numba_bn import *", namespace)
    assert set(nbn.__all__) == set(namespace) - {"__builtins__"}


def test_a_name_that_is_not_there():
    with pytest.raises(AttributeError) as caught:
        nbn.batchnorm  # noqa: B018
    assert str(caught.value) == "module 'numba_bn' has no attribute 'batchnorm'"
    assert not hasattr(nbn, "nothing")


def test_a_name_is_looked_up_once():
    assert nbn.batch_norm is nbn.batch_norm
    assert "batch_norm" in vars(nbn)


def test_the_version_is_the_installed_one():
    from importlib.metadata import version

    assert version("numba-bn") == nbn.__version__
