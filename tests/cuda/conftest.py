"""What the tests of CUDA share: arrays and a driver that need no device."""

import threading
from typing import Any, NamedTuple

import fake_cupy
import fake_numba
import pytest
from ptx_memory import GlobalMemory
from stand_in import StandIn

from numba_bn._adapters.cuda import interface, replay
from numba_bn._kernels.cuda import backend, driver, launch


class Bench(NamedTuple):
    """A CuPy and a driver that stand in for the real ones."""

    cupy: Any
    driver: StandIn
    memory: GlobalMemory


@pytest.fixture
def bench(request, monkeypatch):
    """Stand-ins that note what is launched; with ``indirect`` True they run it as well."""
    memory = GlobalMemory(1 << 24)
    standing = StandIn(memory, getattr(request, "param", False))
    monkeypatch.setattr(driver, "driver", lambda: standing)
    monkeypatch.setattr(launch, "_queues", {})
    monkeypatch.setattr(launch, "_thread", threading.local())
    launch._left.clear()
    monkeypatch.setattr(replay, "_programs", {})
    backend.prepared.cache_clear()
    yield Bench(fake_cupy.install(monkeypatch, memory), standing, memory)
    backend.prepared.cache_clear()


@pytest.fixture
def numba(bench, monkeypatch):
    """A stand-in for Numba's CUDA target beside the others."""
    stand_in = fake_numba.target(bench.cupy)
    monkeypatch.setattr(interface, "_numba", lambda: stand_in)
    return stand_in
