"""Those parts of the script that measures a GPU which are for a device alone, by stand-ins."""

import importlib
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import numba_bn as nbn

pytest.importorskip("torch")
FOLDER = Path(__file__).resolve().parents[2] / "asv_bench"
X = np.ones((4, 64, 8, 8), np.float32)


@pytest.fixture
def script(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(FOLDER), *sys.path])
    return importlib.import_module("gpu")


@pytest.mark.parametrize("order", ["C", "F"])
def test_dx_alone_is_the_last_launch_of_a_backward(bench, script, order):
    make = bench.cupy.array
    x, dy, out = (make(np.asarray(X, order=order)) for _ in range(3))
    gamma = make(np.ones(64, np.float32))
    _, stats = nbn.batch_norm_train(x)
    nbn.batch_norm_backward(dy, x, gamma, stats=stats, out=out)
    wanted = bench.driver.launched[-1]
    call = script.shapes.dx_alone(dy, x, gamma, gamma, stats.count, out)
    before = len(bench.driver.launched)
    call()
    (launched,) = bench.driver.launched[before:]
    assert launched.label.startswith("input_gradient")
    assert (launched.grid, launched.block) == (wanted.grid, wanted.block)
    assert launched.arguments[:3] == wanted.arguments[:3]  # x, dy and dx


class Clock:
    """Calls once, and gives times that are known."""

    def __init__(self):
        self.times = iter((3.0, 2.0, 10.0, 12.0, 1.0))
        stream = SimpleNamespace(cuda_stream=7)
        self.torch = SimpleNamespace(cuda=SimpleNamespace(current_stream=lambda: stream))

    def host_microseconds(self, call):
        call()
        return next(self.times)


TENSORS = [SimpleNamespace(get_device=lambda: 0, data_ptr=lambda i=i: 4096 * i) for i in range(5)]


def test_launches_are_timed_beside_those_of_cupy(bench, script, monkeypatch):
    kernels = []
    monkeypatch.setattr(bench.cupy, "float32", np.dtype("f4"), raising=False)
    monkeypatch.setattr(bench.cupy, "zeros", bench.cupy.empty, raising=False)
    monkeypatch.setattr(
        bench.cupy, "RawKernel", lambda *_: lambda *given: kernels.append(given), raising=False
    )
    found = script.launch.launches(Clock(), *TENSORS)
    assert found["one launch, x CuPy's RawKernel"] == 1.5
    assert found["batch_norm of CuPy's, allocating"] == 10.0
    assert set(script.launch.WANTED) - set(found) == {"batch_norm, allocating"}  # of tensors
    first = bench.driver.launched[0]
    assert first.stream == 7
    assert {4096 * i for i in range(5)} <= set(first.arguments)
    assert len(kernels) == 1


def test_without_a_cupy_that_works_our_launch_is_timed(bench, script, monkeypatch):
    found = script.launch.launches(Clock(), *TENSORS)  # it has no RawKernel
    assert found["one launch"] == 3.0
    assert "RawKernel" in found["CuPy"]["failed"]
    monkeypatch.setitem(sys.modules, "cupy", None)
    found = script.launch.launches(Clock(), *TENSORS)
    assert found["one launch"] == 3.0
    assert found["CuPy"].startswith("not there")
