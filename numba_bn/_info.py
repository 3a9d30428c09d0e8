"""What a report of a bug needs to say about the machine and the installation."""

from __future__ import annotations

import ctypes
import os
import platform
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import numba_bn
from numba_bn._kernels import _store
from numba_bn._threads import origin

_PACKAGES = ("numpy", "numba", "llvmlite")
_OPTIONAL = (
    *("ml_dtypes", "tbb", "threadpoolctl", "tqdm", "psutil", "scipy", "dask", "distributed"),
    *("xarray", "zarr", "mpi4py", "torch", "jax", "cupy-cuda12x", "cupy-cuda13x", "numba-cuda"),
)


def collect() -> dict[str, Any]:
    """Return everything, as JSON takes it."""
    return {
        "versions": {
            "numba_bn": numba_bn.__version__,
            "python": platform.python_version(),
            "platform": platform.platform(),
            **{name: _version(name) or "missing" for name in _PACKAGES},
            **{name: version for name in _OPTIONAL if (version := _version(name))},
        },
        "cpu": _cpu(),
        "cuda driver": _cuda_driver(),
        "threads": _threads(),
        "cache": _cache(),
    }


def text(found: Any, indent: str = "") -> str:
    """Return what `collect` found for people to read."""
    lines = []
    for name, value in found.items():
        if isinstance(value, dict):
            lines += [f"{indent}{name}", text(value, f"{indent}  ")]
        else:
            lines.append(f"{indent}{name:15} {'none' if value is None else value}")
    return "\n".join(lines)


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _cpu() -> dict[str, Any]:
    affinity = getattr(os, "sched_getaffinity", None)
    return {
        "name": _cpu_name(),
        "cores": os.cpu_count(),
        "usable": len(affinity(0)) if affinity else os.cpu_count(),
    }


def _cpu_name() -> str:
    """Return the CPU's name; Python knows it on other systems than Linux."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(": ")[2] for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _cuda_driver() -> str | None:
    """Return the newest CUDA that the driver serves; asking starts nothing on the device."""
    try:
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
        version = ctypes.c_int()
        driver.cuDriverGetVersion(ctypes.byref(version))
    except (OSError, AttributeError):
        return None
    return f"CUDA {version.value // 1000}.{version.value % 1000 // 10}"


def _threads() -> dict[str, Any]:
    number, source = origin()
    return {"number": number, "from": source, "layer": _layer()}


def _layer() -> str:
    """Return Numba's threading layer, or why there is none."""
    try:
        import numba

        numba.get_num_threads()  # starts the threads; before, no layer is chosen
        return str(numba.threading_layer())
    except Exception as error:  # a broken installation can raise nearly anything
        return f"none: {type(error).__name__}: {error}"


def _cache() -> dict[str, Any]:
    places = _store.places()
    used = {str(place): _store.usage(place) for place in places.folders}
    return {
        "from": places.origin,
        "folders": {place: {"files": n, "bytes": size} for place, (n, size) in used.items()},
    }
