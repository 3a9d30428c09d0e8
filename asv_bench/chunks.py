"""Statistics of data larger than memory, beside a bare loop that reads it, and Dask.

Each side runs in processes of its own, in turn; what counts are the medians of the rounds::

    python asv_bench/chunks.py
    python asv_bench/chunks.py --gb 0.2 --rounds 1 --into found

Writes chunks.json and chunks.md, by default into docs/.
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from _report import machine_line, markdown_table
from _workers import cores
from peers import ROOT, machine, versions

PLANES = (64, 56, 56)
COMMAND = "python asv_bench/chunks.py"
_PACKAGES = ("numba-bn", "numba", "numpy", "dask", "zarr", "h5py")
_ZARR_SHARE = 4
"""The compressed array is so many times smaller: it is slower to write and to read."""
_IN_BLOCKS = (256, 64, 64, 64)
"""Of float32, in memory, so that a sample is a block of 1 MiB."""
_BY_DASK, _DIRECTLY = "Dask, 256 blocks of 1 MiB", "the same blocks, one by one"


# ---- the sides: each is a call, and what it also tells ----


def _memmap(folder: Path) -> Any:
    return np.load(folder / "x.npy", mmap_mode="r")


def _bare(folder: Path) -> Callable[[], object]:
    """A sum by all threads, nothing else."""
    import numba

    @numba.njit(parallel=True, fastmath=True)  # type: ignore[untyped-decorator]
    def total(x: Any) -> float:
        found = 0.0
        for i in numba.prange(x.size):
            found += x[i]
        return found

    total(_memmap(folder)[:1].reshape(-1))
    return lambda: total(_memmap(folder).reshape(-1))


def _stats(open_: Callable[[Path], Any], **how: Any) -> Callable[[Path], Callable[[], object]]:
    """Return the side that takes our statistics of an array."""

    def side(folder: Path) -> Callable[[], object]:
        import numba_bn as nbn

        nbn.channel_stats(np.array(open_(folder)[:8]), **how)
        return lambda: nbn.channel_stats(open_(folder), progress=False, **how)

    return side


def _dask(folder: Path) -> Callable[[], object]:
    """Mean and variance by dask.array, in one go, in chunks of its own choice."""
    import dask
    import dask.array

    def call() -> object:
        x = dask.array.from_array(_memmap(folder))
        return dask.compute(x.mean((0, 2, 3)), x.var((0, 2, 3)))

    return call


def _blocks() -> Any:
    return np.random.default_rng(0).standard_normal(_IN_BLOCKS, np.float32)


def _by_dask(folder: Path) -> Callable[[], object]:
    """Our statistics of many small blocks, by one worker, graph and all."""
    import dask.array

    import numba_bn as nbn

    x = dask.array.from_array(_blocks(), (1, *_IN_BLOCKS[1:]), name="x")

    def call(x: Any) -> object:
        return nbn.channel_stats(x).compute(scheduler="threads", num_workers=1)

    call(x[:2])
    return lambda: call(x)


def _directly(folder: Path) -> Callable[[], object]:
    """What the kernels take for those blocks, by one thread as in a task."""
    import numba_bn as nbn

    x = _blocks()

    def call() -> None:
        with nbn.threads(1):
            for i in range(len(x)):
                nbn.channel_stats(x[i : i + 1])

    nbn.channel_stats(x[:1])
    return call


def _zarr(folder: Path) -> Any:
    import zarr

    return zarr.open_array(folder / "x.zarr", mode="r")


def _cold(folder: Path) -> Any:
    """A memory map of a file that is not in memory."""
    with open(folder / "x.npy", "rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return _memmap(folder)


def _reading(open_: Callable[[Path], Any]) -> Callable[[Path], Callable[[], object]]:
    """Return the side that reads an array as ours does, and does nothing with it."""
    from numba_bn.chunks.plan import blocks
    from numba_bn.chunks.sources import source_of

    def call(folder: Path) -> None:
        source = source_of("chunks.py", "x", open_(folder))
        kept, itemsize = source.chunking(), source.dtype.itemsize
        for block in blocks(source.shape, kept, itemsize, source.limit):
            source.read(block)
            source.release(block)

    return lambda folder: lambda: call(folder)


SIDES: dict[str, Callable[[Path], Callable[[], object]]] = {
    "bare sum": _bare,
    "channel_stats": _stats(_memmap),
    "dask.array": _dask,
    "reproducible": _stats(_memmap, reproducible=True),
    "zarr, compressed": _stats(_zarr),
    "zarr, compressed, read alone": _reading(_zarr),
    "cold file": _stats(_cold),
    "cold file, read alone": _reading(_cold),
    _BY_DASK: _by_dask,
    _DIRECTLY: _directly,
}


def serve(side: str, folder: Path) -> dict[str, float]:
    """Run a side once it is warm; return seconds, of them those in kernels, and memory in MB."""
    from numba_bn.chunks import statistics as chunks

    in_kernels, kernels = [0.0], chunks.channel_stats

    def timed(*args: Any, **how: Any) -> Any:
        start = perf_counter()
        found = kernels(*args, **how)
        in_kernels[0] += perf_counter() - start
        return found

    chunks.channel_stats = timed
    call = SIDES[side](folder)
    start = perf_counter()
    call()
    seconds = perf_counter() - start
    peak = Path("/proc/self/status").read_text(encoding="utf-8").split("VmHWM:")[1].split()[0]
    return {"seconds": seconds, "kernels": in_kernels[0] / seconds, "MB": int(peak) / 1024}


# ---- all of them ----


def prepare(folder: Path, gb: float) -> int:
    """Write the data; return its bytes."""
    number = max(16, int(gb * 1e9) // (int(np.prod(PLANES)) * 4))
    part = np.random.default_rng(0).normal(1e4, 1.0, (16, *PLANES))
    part = (np.round(part * 16) / 16).astype(np.float32)  # as of an instrument: compressible
    x = np.lib.format.open_memmap(folder / "x.npy", "w+", np.float32, (number, *PLANES))
    for start in range(0, number, 16):
        x[start : start + 16] = part[: number - start]
    x.flush()
    import zarr

    some = max(16, number // _ZARR_SHARE)
    shape = (some, *PLANES)
    kept = zarr.create_array(folder / "x.zarr", shape=shape, dtype="f4", chunks=(8, *PLANES))
    for start in range(0, some, 64):
        kept[start : start + 64] = x[start : min(start + 64, some)]
    return x.nbytes


def measure(folder: Path, rounds: int) -> dict[str, dict[str, float]]:
    """Return the medians of every side."""
    runs: dict[str, list[dict[str, float]]] = {}
    for _ in range(rounds):
        for side in SIDES:
            command = [sys.executable, __file__, "--serve", side, "--into", str(folder)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                print(f"{side}: {done.stderr.splitlines()[-1]}", file=sys.stderr)
                continue
            runs.setdefault(side, []).append(json.loads(done.stdout))
    return {
        side: {what: statistics.median(run[what] for run in found) for what in found[0]}
        for side, found in runs.items()
    }


def summary(sides: dict[str, dict[str, float]]) -> list[dict[str, Any]]:
    """Return what was promised, and what became of it."""
    seconds = {side: found["seconds"] for side, found in sides.items()}
    ours = seconds["channel_stats"]
    lines = [
        _line("share of the bare sum's speed", seconds["bare sum"] / ours, at_least=0.7),
        _line("× faster than dask.array", seconds["dask.array"] / ours, at_least=5.0),
        _line("memory, MB", sides["channel_stats"]["MB"], at_most=300.0),
    ]
    for side in ("zarr, compressed", "cold file"):
        what = f"{side}: share of the time in kernels, which wait for the reader's core too"
        lines.append(_line(what, sides[side]["kernels"], at_most=0.2))
        beyond = 1 - seconds[f"{side}, read alone"] / seconds[side]
        lines.append(_line(f"{side}: share of the time beyond reading", beyond, at_most=0.2))
    if "reproducible" in seconds:
        what = "reproducible=True, × the time"
        lines.append(_line(what, seconds["reproducible"] / ours, at_most=3.0))
    if _BY_DASK in seconds:
        beyond = (seconds[_BY_DASK] - seconds[_DIRECTLY]) / _IN_BLOCKS[0]
        lines.append(_line("Dask: ms a block beyond the kernel's own", beyond * 1e3, at_most=1.0))
    return lines


def _line(
    what: str, value: float, at_least: float = -np.inf, at_most: float = np.inf
) -> dict[str, Any]:
    bound = f"≥ {at_least:g}" if at_least > -np.inf else f"≤ {at_most:g}"
    return {"what": what, "value": value, "bound": bound, "met": at_least <= value <= at_most}


def table(found: dict[str, Any]) -> str:
    """Return everything that was measured, as Markdown."""
    promised = [
        [line["what"], f"{line['value']:.3g}", line["bound"], "" if line["met"] else "missed"]
        for line in found["summary"]
    ]
    sides = []
    for side, of in found["sides"].items():
        nbytes = found["bytes"] / (_ZARR_SHARE if side.startswith("zarr") else 1)
        if side in (_BY_DASK, _DIRECTLY):
            nbytes = math.prod(_IN_BLOCKS) * 4
        rate, kernels = (
            nbytes / of["seconds"] / 1e9,
            f"{of['kernels']:.0%}" if of["kernels"] else "",
        )
        sides.append([side, f"{of['seconds']:.3g}", f"{rate:.3g}", kernels, f"{of['MB']:.0f}"])
    lines = [
        f"# Data larger than memory\n\n{machine_line(found)} Written by `{COMMAND}`.\n",
        f"Statistics per channel of {found['bytes'] / 1e9:.1f} GB of float32, (N, 64, 56, 56), in",
        "a file that is in the page cache where it is not cold; the compressed zarr array has a",
        f"quarter of it. Medians of {found['rounds']} runs, each in a process of its own.\n",
        *markdown_table(["", "value", "promised", ""], promised),
        "",
        *markdown_table(["", "seconds", "GB/s", "time in kernels", "memory, MB"], sides),
    ]
    return "\n".join(lines) + "\n"


def options(arguments: list[str] | None = None) -> argparse.Namespace:
    """Return what the command line asks for."""
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n")[0])
    parser.add_argument("--gb", type=float, default=4.0, help="of data; in a temporary folder")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--into", type=Path, default=ROOT / "docs", help="folder for the results")
    parser.add_argument("--serve", choices=SIDES, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Measure, write, print."""
    asked = options(arguments)
    if asked.serve:
        print(json.dumps(serve(asked.serve, asked.into)))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        nbytes = prepare(folder, asked.gb)
        sides = measure(folder, asked.rounds)
    found = {
        "machine": machine(),
        "date": datetime.date.today().isoformat(),
        "threads": cores(),
        "rounds": asked.rounds,
        "bytes": nbytes,
        "versions": versions(_PACKAGES),
        "summary": summary(sides),
        "sides": sides,
    }
    asked.into.mkdir(parents=True, exist_ok=True)
    (asked.into / "chunks.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    (asked.into / "chunks.md").write_text(table(found), encoding="utf-8")
    print(table(found))


if __name__ == "__main__":
    main()
