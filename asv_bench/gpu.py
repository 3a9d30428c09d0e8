"""Everything there is to measure on an NVIDIA GPU, by one command, left as files in a folder.

    python asv_bench/gpu.py FOLDER

needs Numba, numba-cuda, cuda-core and PyTorch, and takes CuPy, pytest and compute-sanitizer where
they are; the package is found from the source tree. ``--quick`` takes small arrays and few repeats,
``--device cpu`` tries the script itself where there is no GPU.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import _gpu_checks as checks  # noqa: E402
import _gpu_launch as launch  # noqa: E402
import _gpu_shapes as shapes  # noqa: E402
from _gpu_clock import Clock  # noqa: E402

PACKAGES = (
    *("numpy", "numba", "numba-cuda", "cuda-core", "cuda-bindings", "cuda-toolkit", "llvmlite"),
    *("torch", "cupy-cuda12x", "cupy-cuda13x", "nvidia-cudnn-cu12", "nvidia-cudnn-cu13"),
)
SANITIZED = "import _gpu_checks as c, sys; c.small(sys.argv[1])"


def main(argv: Sequence[str] | None = None) -> int:
    """Run every part; one that fails is written down as failed, and the others still run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where the results go")
    parser.add_argument("--quick", action="store_true", help="small arrays, few repeats")
    parser.add_argument("--device", default="cuda", help="cuda, or cpu to try the script")
    parser.add_argument("--parts", nargs="*", default=list(PARTS), choices=list(PARTS))
    chosen = parser.parse_args(argv)
    chosen.folder.mkdir(parents=True, exist_ok=True)
    clock = Clock(chosen.device, chosen.quick)
    results: dict[str, Any] = {}
    for part in chosen.parts:
        started = time.perf_counter()
        try:
            results[part] = PARTS[part](clock, chosen)
        except Exception as error:  # each part stands for itself
            results[part] = {"failed": repr(error), "where": traceback.format_exc()}
        took = time.perf_counter() - started
        print(f"{part}: {took:.1f} s\n{json.dumps(results[part], indent=1)[:4000]}", flush=True)
        (chosen.folder / "gpu.json").write_text(json.dumps(results, indent=1) + "\n")
    return int(_failed(results))


def _failed(result: dict[str, Any]) -> bool:
    """Tell whether a part, or a part of one, failed."""
    inner = [value for value in result.values() if isinstance(value, dict)]
    return "failed" in result or any(map(_failed, inner))


def _versions(clock: Clock, chosen: argparse.Namespace) -> dict[str, Any]:
    """What ran where."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = None
    return {"python": platform.python_version(), "packages": found, **clock.device_facts()}


def _pytest(clock: Clock, chosen: argparse.Namespace) -> dict[str, Any]:
    """The whole table on the device."""
    if importlib.util.find_spec("pytest") is None:
        return {"skipped": "pytest is not installed"}
    # without the project's options, which need pytest-xdist
    options = ["-q", "-o", "addopts=", "-m", "gpu"]
    command = [sys.executable, "-m", "pytest", *options, "tests/cuda/test_device.py"]
    return _run(command, chosen.folder / "pytest.txt", 900, HERE.parent)


def _sanitizer(clock: Clock, chosen: argparse.Namespace) -> dict[str, Any]:
    """memcheck and racecheck over small arrays of every norm."""
    tool = shutil.which("compute-sanitizer") or shutil.which(
        "/usr/local/cuda/bin/compute-sanitizer"
    )
    if tool is None:
        return {"skipped": "compute-sanitizer is not installed"}
    return {
        check: _run(
            [tool, "--tool", check, "--error-exitcode", "9", sys.executable, "-c", SANITIZED,
             chosen.device],
            chosen.folder / f"{check}.txt", 600, HERE,
        )
        for check in ("memcheck", "racecheck")
    }  # fmt: skip


def _run(command: list[str], output: Path, seconds: float, folder: Path) -> dict[str, Any]:
    """Run a command, its output in a file; return how it ended, and its last line."""
    paths = os.pathsep.join([str(HERE.parent), os.environ.get("PYTHONPATH", "")])
    with output.open("w") as file:
        try:
            code: int | str = subprocess.run(
                command, stdout=file, stderr=subprocess.STDOUT, timeout=seconds, cwd=folder,
                env={**os.environ, "PYTHONPATH": paths}, check=False,
            ).returncode  # fmt: skip
        except subprocess.TimeoutExpired:
            code = f"not done after {seconds:g} s"
    lines = output.read_text(errors="replace").splitlines() or [""]
    found = {"exit": code, "last line": lines[-1], "output": output.name}
    return found if code == 0 else {**found, "failed": "see its output"}


Part = Callable[[Clock, argparse.Namespace], dict[str, Any]]
PARTS: dict[str, Part] = {
    "versions": _versions,
    "correct": lambda clock, chosen: checks.correct(clock),
    "repeats": lambda clock, chosen: checks.repeats(clock),
    "streams": lambda clock, chosen: checks.streams(clock),
    "launch": lambda clock, chosen: launch.costs(clock),
    "bandwidth": lambda clock, chosen: shapes.bandwidth(clock),
    "shapes": lambda clock, chosen: shapes.measured(clock),
    "pytest": _pytest,
    "sanitizer": _sanitizer,
}

if __name__ == "__main__":
    sys.exit(main())
