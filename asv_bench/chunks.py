"""Statistics of data larger than memory, beside a bare loop that reads it, and Dask.

Each side runs in processes of its own, in turn; what counts are the medians of the rounds::

    python asv_bench/chunks.py
    python asv_bench/chunks.py --gb 0.2 --rounds 1 --into found

Writes chunks.json and chunks.md, by default into docs/.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import numpy as np
from _chunk_sides import BY_DASK, DIRECTLY, IN_BLOCKS, SIDES
from _report import machine_line, markdown_table
from _workers import cores
from peers import ROOT, header

PLANES = (64, 56, 56)
COMMAND = "python asv_bench/chunks.py"
_PACKAGES = ("numba-bn", "numba", "numpy", "dask", "zarr", "h5py")
_ZARR_SHARE = 4
"""The compressed array is so many times smaller: it is slower to write and to read."""


def serve(side: str, folder: Path) -> dict[str, float]:
    """Run a side once it is warm; return seconds, of all cores too, those in kernels, and MB."""
    import numba_bn as nbn
    from numba_bn.chunks import statistics as chunks

    in_kernels, kernels = list[float](), chunks.channel_stats

    def timed(*args: Any, **how: Any) -> Any:
        start = perf_counter()
        found = kernels(*args, **how)
        in_kernels.append((perf_counter() - start) * nbn.get_num_threads())
        return found

    chunks.channel_stats = timed
    call = SIDES[side](folder)
    start, of_cores = perf_counter(), process_time()
    call()
    seconds, of_cores = perf_counter() - start, process_time() - of_cores
    peak = Path("/proc/self/status").read_text(encoding="utf-8").split("VmHWM:")[1].split()[0]
    kernels_share = sum(in_kernels) / (seconds * nbn.get_num_threads())
    return {"seconds": seconds, "cpu": of_cores, "kernels": kernels_share, "MB": int(peak) / 1024}


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
        alone = sides[f"{side}, read alone"]
        by_themselves = ours / seconds[side] / (_ZARR_SHARE if side.startswith("zarr") else 1)
        what = f"{side}: share of the time that the kernels take by themselves"
        lines.append(_line(what, by_themselves, at_most=0.2))
        what = f"{side}: share of the time in kernels, while the reader reads"
        lines.append(_line(what, sides[side]["kernels"], at_most=0.2))
        beyond = 1 - alone["seconds"] / seconds[side]
        lines.append(_line(f"{side}: share of the time beyond reading", beyond, at_most=0.2))
    if "reproducible" in seconds:
        what = "reproducible=True, × the time"
        lines.append(_line(what, seconds["reproducible"] / ours, at_most=3.0))
    if BY_DASK in seconds:
        beyond = (seconds[BY_DASK] - seconds[DIRECTLY]) / IN_BLOCKS[0]
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
        if side in (BY_DASK, DIRECTLY):
            nbytes = math.prod(IN_BLOCKS) * 4
        rate, kernels = (
            nbytes / of["seconds"] / 1e9,
            f"{of['kernels']:.0%}" if of["kernels"] else "",
        )
        times = f"{of['seconds']:.3g}", f"{of['cpu']:.3g}"
        sides.append([side, *times, f"{rate:.3g}", kernels, f"{of['MB']:.0f}"])
    lines = [
        f"# Data larger than memory\n\n{machine_line(found)} Written by `{COMMAND}`.\n",
        f"Statistics per channel of {found['bytes'] / 1e9:.1f} GB of float32, (N, 64, 56, 56), in",
        "a file that is in the page cache where it is not cold; the compressed zarr array has a",
        f"quarter of it. Medians of {found['rounds']} runs, each in a process of its own. Reading",
        "alone looks at one value of each page: a virtual machine may get the memory of a cold",
        "file from its host only then, which can take longer than the kernels.\n",
        *markdown_table(["", "value", "promised", ""], promised),
        "",
        *markdown_table(["", "seconds", "of CPU", "GB/s", "in kernels", "memory, MB"], sides),
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
        **header(cores(), _PACKAGES),
        "rounds": asked.rounds,
        "bytes": nbytes,
        "summary": summary(sides),
        "sides": sides,
    }
    asked.into.mkdir(parents=True, exist_ok=True)
    (asked.into / "chunks.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    (asked.into / "chunks.md").write_text(table(found), encoding="utf-8")
    print(table(found))


if __name__ == "__main__":
    main()
