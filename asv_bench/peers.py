"""numba_bn beside PyTorch, torch.compile, JAX, scikit-learn, NumPy, and what memory allows.

Each library that is installed runs in a process of its own, in turn, on the same number of
threads; what counts are the medians of the rounds::

    python asv_bench/peers.py
    python asv_bench/peers.py --quick --shapes 7x7 --only train

A whole run writes docs/peers.json, docs/peers.md, docs/peers.png and the README's lines about
them; one that leaves something out writes into asv_bench/.asv/peers/ instead.
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import re
import statistics
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from _libraries import LIBRARIES, NUMBA_BN
from _report import draw, table, write_readme
from _results import rows_of, summary
from _workers import Worker, cores, serve
from benchmarks.cases import PEERS, Case

ROOT = Path(__file__).resolve().parents[1]
ASIDE = ROOT / "asv_bench" / ".asv" / "peers"
_QUICK_BYTES = 8e6
_PACKAGES = ("numba-bn", "numba", "numpy", "torch", "jax", "scikit-learn")


def options(arguments: list[str] | None = None) -> argparse.Namespace:
    """Return what the command line asks for."""
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n")[0])
    parser.add_argument("--shapes", default="", help="regular expression: arrays to measure")
    parser.add_argument("--only", default="", help="regular expression: operations to measure")
    parser.add_argument("--libraries", default="", help="regular expression: peers to measure")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--samples", type=int, default=7, help="a round, of each call")
    parser.add_argument("--threads", type=int, default=cores())
    parser.add_argument("--quick", action="store_true", help="small arrays, one round")
    parser.add_argument("--draw", action="store_true", help="write again what was measured before")
    parser.add_argument("--serve", choices=LIBRARIES, help=argparse.SUPPRESS)
    asked = parser.parse_args(arguments)
    if asked.quick:
        asked.rounds, asked.samples = 1, 3
    return asked


def cases(asked: argparse.Namespace) -> list[Case]:
    """Return the arrays to measure."""
    most = _QUICK_BYTES if asked.quick else float("inf")
    return [c for c in PEERS if re.search(asked.shapes, str(c)) and c.nbytes <= most]


def libraries(asked: argparse.Namespace) -> list[str]:
    """Return those to measure, saying which are not installed."""
    names = []
    for name, (module, _, _) in LIBRARIES.items():
        if name != NUMBA_BN and not re.search(asked.libraries, name):
            continue
        if find_spec(module) is None:
            print(f"{name}: {module} is not installed, left out", file=sys.stderr)
            continue
        names.append(name)
    return names


def measure(case: Case, workers: list[Worker], asked: argparse.Namespace) -> list[dict[str, Any]]:
    """Return the rows of a case: rounds of every library in turn."""
    times: dict[str, dict[str, list[float]]] = {}
    extra: dict[str, int] = {}
    for number in range(asked.rounds):
        for worker in workers:
            if not LIBRARIES[worker.library][2](case):
                continue
            memory = worker.library == NUMBA_BN and number == 0
            answer = worker.ask(case, asked.only, asked.samples, memory)
            if "error" in answer:
                print(f"{case}: {worker.library}: {answer['error']}", file=sys.stderr)
                continue
            extra |= answer["extra"]
            for what, ms in answer["ms"].items():
                times.setdefault(worker.library, {}).setdefault(what, []).append(ms)
    middle = {
        library: {what: statistics.median(some) for what, some in found.items()}
        for library, found in times.items()
    }
    return rows_of(case, middle, extra, asked.threads)


def machine() -> str:
    """Return the processor's name."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def versions(packages: Sequence[str] = _PACKAGES) -> dict[str, str]:
    """Return those of what is installed."""
    found = {}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def header(threads: int, packages: Sequence[str] = _PACKAGES) -> dict[str, Any]:
    """Return where, when and with what it is measured."""
    return {
        "machine": machine(),
        "date": datetime.date.today().isoformat(),
        "threads": threads,
        "versions": versions(packages),
    }


def run(asked: argparse.Namespace) -> dict[str, Any]:
    """Measure everything."""
    workers = [Worker(name, asked.threads) for name in libraries(asked)]
    rows = []
    try:
        chosen = cases(asked)
        for number, case in enumerate(chosen, 1):
            print(f"{number}/{len(chosen)} {case}", file=sys.stderr, flush=True)
            rows += measure(case, workers, asked)
    finally:
        for worker in workers:
            worker.close()
    return {
        **header(asked.threads),
        "rounds": asked.rounds,
        "samples": asked.samples,
        "summary": summary(rows),
        "rows": rows,
    }


def write(found: dict[str, Any], folder: Path) -> None:
    """Write numbers, table and picture."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "peers.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    (folder / "peers.md").write_text(table(found), encoding="utf-8")
    draw(folder / "peers.png", found)


def main() -> None:
    """Measure, or write again; print the table."""
    asked = options()
    if asked.serve:
        serve(asked.serve)
        return
    whole = not (asked.quick or asked.shapes or asked.only or asked.libraries)
    folder = ROOT / "docs" if whole else ASIDE
    kept = folder / "peers.json"
    found = json.loads(kept.read_text(encoding="utf-8")) if asked.draw else run(asked)
    write(found, folder)
    if whole:
        write_readme(ROOT / "README.md", found)
    print(table(found))


if __name__ == "__main__":
    main()
