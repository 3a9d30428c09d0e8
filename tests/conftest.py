"""What all tests share: the choice of backend, the --slow option, Hypothesis' settings."""

import gc
import importlib
import os
import shutil

# two test processes share the cores: threads that spin while they wait would steal them
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import pytest

from numba_bn import _dispatch
from numba_bn.functional import _plain

if os.environ.get("NUMBA_BOUNDSCHECK") == "1":
    import bounds

    bounds.install()

BACKENDS = ("reference", "cpu")

try:
    from hypothesis import HealthCheck, settings
except ImportError:  # the tests of a device do without
    pass
else:
    settings.register_profile(
        "numba_bn",
        deadline=None,
        derandomize=True,
        database=None,
        max_examples=60,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )
    settings.load_profile("numba_bn")


def pytest_addoption(parser):
    parser.addoption("--slow", action="store_true", help="run the slow tests too")


def pytest_configure(config):
    """End the run where what NUMBA_BN_REQUIRE names is missing: its tests would be skipped."""
    names = [name for name in os.environ.get("NUMBA_BN_REQUIRE", "").split(",") if name]
    if "mpi" in names and not shutil.which("mpirun"):
        raise pytest.UsageError("NUMBA_BN_REQUIRE names mpi, but there is no mpirun")
    for name in names:
        try:
            importlib.import_module("mpi4py" if name == "mpi" else name)
        except ImportError as error:
            raise pytest.UsageError(f"NUMBA_BN_REQUIRE names {name}: {error}") from None


def pytest_collection_modifyitems(config, items):
    # two processes start, at the first test and at the one in the middle: not both in all dtypes
    items.sort(key=lambda item: "adapters" in item.path.parts)
    if config.getoption("--slow"):
        return
    skip = pytest.mark.skip(reason="slow: run with --slow")
    for item in items:
        if "slow" in item.keywords:
            item.add_marker(skip)


def pytest_collection_finish():
    """Look for garbage more seldom, and not in all there is by now: a tenth of a compilation."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


def forget():
    """Let the next call ask for its backend, and how that goes about it, anew."""
    _dispatch.backend.cache_clear()
    _plain._kind.cache_clear()


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Be in an empty folder."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(params=BACKENDS)
def backend(request, monkeypatch):
    """Let the public functions compute through one backend; gives its module."""
    name = f"numba_bn._kernels.{request.param}"
    module = importlib.import_module(name)
    monkeypatch.setitem(_dispatch._BACKENDS, "numpy", name)
    forget()
    yield module
    forget()
