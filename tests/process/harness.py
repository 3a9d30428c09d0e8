"""Runs a scenario, a function that may hang or abort, in a fresh interpreter under a layer.

As a program: ``harness.py MODULE FUNCTION ARGUMENTS``, which is what `run` starts. No tests.
"""

import importlib
import os
import signal
import subprocess
import sys
from functools import cache
from pathlib import Path

LAYERS = ("omp", "workqueue", "tbb")
HERE = Path(__file__).resolve().parent
TBB = Path(sys.prefix, "lib", "libtbb.so.12")
"""Where the package `tbb` puts it, which is not where the loader looks."""

COMPILING = 300.0
"""Seconds for a first run, which compiles."""


def missing(layer):
    """Why a threading layer cannot be tested here; None if it can."""
    if layer == "tbb":
        return None if TBB.exists() else f"the package tbb is not installed: no {TBB.name}"
    module = {"omp": "omppool"}.get(layer, layer)
    try:
        importlib.import_module(f"numba.np.ufunc.{module}")
    except ImportError as error:
        return str(error)
    return None


def environment(layer, **variables):
    """The environment of a process under a layer, with more threads than most test machines."""
    paths = [str(TBB.parent), os.environ.get("LD_LIBRARY_PATH", "")]
    return {
        **os.environ,
        "LD_LIBRARY_PATH": os.pathsep.join(filter(None, paths)),
        "NUMBA_THREADING_LAYER": layer,
        "NUMBA_NUM_THREADS": "4",
        "NUMBA_BN_NUM_THREADS": "4",
        **variables,
    }


def outcome(layer, module, scenario, *args, limit, **variables):
    """Run a scenario; give its exit code, output and errors. Whatever hangs is killed."""
    fork = "ignore:This process:DeprecationWarning"  # of threads; that is what is tested
    interpreter = [sys.executable, "-W", "error", "-W", fork]
    command = [*interpreter, str(HERE / "harness.py"), module, scenario, *map(str, args)]
    return ended(f"{scenario} under {layer}", command, environment(layer, **variables), limit)


def ended(name, command, variables, limit):
    """Run a command; give its exit code, output and errors. Whatever hangs is killed."""
    process = subprocess.Popen(
        command,
        env=variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        output, errors = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, errors = process.communicate()
        raise AssertionError(f"{name} hangs\n{output}{errors}") from None
    return process.returncode, output, errors


@cache
def warm():
    """Let the kernels that scenarios call be compiled, and kept where those find them."""
    code, output, errors = outcome("workqueue", "work", "compile_all", limit=COMPILING)
    assert code == 0, output + errors


def run(layer, module, scenario, *args, limit=20.0, code=0, **variables):
    """Run a scenario with warm kernels; it must end in time and with `code`. Gives its output."""
    warm()
    found, output, errors = outcome(layer, module, scenario, *args, limit=limit, **variables)
    assert found == code, f"{scenario} under {layer}: exit code {found}\n{output}{errors}"
    return output


if __name__ == "__main__":
    sys.path.insert(0, str(HERE))
    name, function, *arguments = sys.argv[1:]
    getattr(importlib.import_module(name), function)(*arguments)
