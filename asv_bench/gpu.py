"""Everything there is to measure on an NVIDIA GPU, by one command, left as files in a folder.

    python asv_bench/gpu.py FOLDER

needs Numba, numba-cuda, cuda-core and PyTorch, and takes CuPy, ml_dtypes, pytest and
compute-sanitizer where they are; the package is found from the source tree. ``--quick`` takes small
arrays and few repeats, ``--device cpu`` tries the script itself where there is no GPU. What is not
begun after ``--seconds`` is skipped: ``--parts`` measures it later, into the same folder. Shapes
that are in the folder are not measured again. Where a command may take ten minutes, one after the
other, and that of shapes again, until none is skipped:

    python asv_bench/gpu.py FOLDER --seconds 540 --parts versions correct repeats streams
    python asv_bench/gpu.py FOLDER --seconds 540 --parts launch bandwidth
    python asv_bench/gpu.py FOLDER --seconds 540 --parts shapes
    python asv_bench/gpu.py FOLDER --seconds 540 --parts pytest
    python asv_bench/gpu.py FOLDER --seconds 540 --parts sanitizer
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

import numba_bn as nbn  # noqa: E402

PACKAGES = (
    *("numpy", "numba", "numba-cuda", "cuda-core", "cuda-bindings", "cuda-toolkit", "llvmlite"),
    *("cuda-pathfinder", "nvidia-nvjitlink", "nvidia-nvjitlink-cu12", "ml-dtypes"),
    *("torch", "cupy", "cupy-cuda12x", "cupy-cuda13x", "nvidia-cudnn-cu12", "nvidia-cudnn-cu13"),
)
SANITIZED = "import _gpu_checks as c, sys; c.small(sys.argv[1])"


def main(argv: Sequence[str] | None = None) -> int:
    """Run every part; one that fails is written down as failed, and the others still run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where the results go")
    parser.add_argument("--quick", action="store_true", help="small arrays, few repeats")
    parser.add_argument("--device", default="cuda", help="cuda, or cpu to try the script")
    parser.add_argument("--seconds", type=float, default=7200.0, help="that all parts may take")
    parser.add_argument("--parts", nargs="*", default=list(PARTS), choices=list(PARTS))
    chosen = parser.parse_args(argv)
    chosen.folder.mkdir(parents=True, exist_ok=True)
    clock = Clock(chosen.device, chosen.quick, chosen.seconds)
    results = {part: _ended(part, clock, chosen) for part in chosen.parts}
    return int(_failed(results))


def _ended(part: str, clock: Clock, chosen: argparse.Namespace) -> dict[str, Any]:
    """Run a part, keep what it found, and return that."""
    started, reason = time.perf_counter(), clock.late()
    try:
        result = {"skipped": reason} if reason else PARTS[part](clock, chosen)
    except Exception as error:  # each part stands for itself
        result = {"failed": repr(error), "where": traceback.format_exc()}
    took = time.perf_counter() - started
    print(f"{part}: {took:.1f} s\n{json.dumps(result, indent=1)[:4000]}", flush=True)
    _keep(chosen.folder, part, result, instead=reason is None)
    return result


def _keep(folder: Path, part: str, result: dict[str, Any], instead: bool = True) -> None:
    """Put a part's result beside those in the folder, instead of an earlier one or if none is."""
    path, new = folder / "gpu.json", folder / "gpu.json.new"
    before = _kept(folder)
    result = result if instead else before.get(part, result)
    new.write_text(json.dumps(before | {part: result}, indent=1) + "\n")
    new.replace(path)  # a run that is cut short leaves the file whole


def _kept(folder: Path) -> dict[str, Any]:
    """Return the parts that are in the folder."""
    path = folder / "gpu.json"
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return found


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
    facts = {"numba-bn": nbn.__version__, "python": platform.python_version(), "packages": found}
    return {**facts, "driver": _driver(), **clock.device_facts()}


def _driver() -> str | None:
    """Return the version of NVIDIA's driver, if its program is there to tell."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return None
    asked = [tool, "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        said = subprocess.run(asked, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        return repr(error)
    return said.stdout.strip()


def _pytest(clock: Clock, chosen: argparse.Namespace) -> dict[str, Any]:
    """The whole table on the device."""
    if importlib.util.find_spec("pytest") is None:
        return {"skipped": "pytest is not installed"}
    # without the project's options, which need pytest-xdist; what other versions warn of is no
    # failure; each test has its line, so that a run that is cut short leaves those it had
    options = ["-v", "--tb=short", "-o", "addopts=", "-W", "default", "-m", "gpu"]
    if importlib.util.find_spec("xdist") is not None:  # most of the time goes into compilation
        options += ["--numprocesses", str(min(os.cpu_count() or 1, 8))]
    command = [sys.executable, "-m", "pytest", *options, "tests/cuda/test_device.py"]
    return _run(command, chosen.folder / "pytest.txt", clock.left(), HERE.parent)


def _sanitizer(clock: Clock, chosen: argparse.Namespace) -> dict[str, Any]:
    """memcheck and racecheck over small arrays of every norm."""
    tool = shutil.which("compute-sanitizer") or shutil.which(
        "/usr/local/cuda/bin/compute-sanitizer"
    )
    if tool is None:
        return {"skipped": "compute-sanitizer is not installed"}
    found = {}
    for check, share in (("memcheck", 2), ("racecheck", 1)):
        begin = [tool, "--tool", check, "--error-exitcode", "9"]
        command = [*begin, sys.executable, "-c", SANITIZED, chosen.device]
        seconds = max(clock.left() / share, 1.0)
        found[check] = _run(command, chosen.folder / f"{check}.txt", seconds, HERE)
    return found


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
    "shapes": lambda clock, chosen: shapes.measured(
        clock,
        lambda found: _keep(chosen.folder, "shapes", found),
        _kept(chosen.folder).get("shapes", {}),
    ),
    "pytest": _pytest,
    "sanitizer": _sanitizer,
}

if __name__ == "__main__":
    sys.exit(main())
