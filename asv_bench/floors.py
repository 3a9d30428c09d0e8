"""Which promises are out of every kernel's reach here, and where there is something left to gain.

Beside each call that is promised a time runs a bare loop, which loads, sums and writes as many
values but knows no channels, in several ways of which the fastest counts; a call on one position
of each channel is added to it, as no kernel makes that any shorter::

    python asv_bench/floors.py
    python asv_bench/floors.py --shapes 7x7 --only train

A whole run writes docs/floors.md.
"""

from __future__ import annotations

import argparse
import re
import statistics
import sys
from typing import Any, NamedTuple

from _bare import loops
from _report import machine_line, markdown_table
from _targets import target, where
from _workers import cores
from benchmarks.cases import PEERS, Case
from benchmarks.loops import limit, limit_name
from benchmarks.measure import medians
from benchmarks.workloads import OPERATIONS, Call, Work, applies
from peers import ROOT, header

COMMAND = "python asv_bench/floors.py"
_PACKAGES = ("numba-bn", "numba", "numpy")


class Row(NamedTuple):
    """Times in units of the pass or triad beside them."""

    case: Case
    operation: str
    target: float
    ours: float
    bare: float

    @property
    def verdict(self) -> str:
        if self.ours <= self.target:
            return ""
        return "out of reach" if self.bare > self.target else "missed"


def measure(case: Case, pattern: str, samples: int) -> list[Row]:
    """Return the promised operations of a case."""
    once = (1, case.channels, *(1 for _ in case.shape[2:]))
    work, one = Work(case), Work(case._replace(shape=once))
    rows = []
    for operation in OPERATIONS:
        most = target(operation, case) if applies(operation, case) else None
        if most is None or not re.search(pattern, operation):
            continue
        plain = limit(work, limit_name(operation))

        def ratio(call: Call, plain: Call = plain) -> float:
            found = medians({"call": call, "limit": plain}, samples)
            return found["call"] / found["limit"]

        ours, bare = ratio(work.call(operation)), min(map(ratio, loops(work, operation)))
        rows.append(Row(case, operation, most, ours, bare + ratio(one.call(operation))))
    return rows


def summary(rows: list[Row]) -> list[list[str]]:
    """Return, of each operation inside and beyond the caches, how many rows are what."""
    lines = []
    for place in ("beyond", "inside"):
        for operation in OPERATIONS:
            some = [r for r in rows if (where(r.case), r.operation) == (place, operation)]
            if not some:
                continue
            verdicts = [r.verdict for r in some]
            middle = statistics.median_high(r.ours / r.bare for r in some)
            counts = (len(some), *map(verdicts.count, ("", "out of reach", "missed")))
            lines.append([place, operation, *map(str, counts), f"{middle:.2f}"])
    return lines


def table(rows: list[Row], found: dict[str, Any]) -> str:
    """Return everything as Markdown."""
    cells = [
        [
            str(r.case),
            where(r.case),
            r.operation,
            f"{r.target:.4g}",
            f"{r.ours:.2f}",
            f"{r.bare:.2f}",
            f"{r.ours / r.bare:.2f}",
            r.verdict,
        ]
        for r in rows
    ]
    lines = [
        f"# What is in reach\n\n{machine_line(found)} Written by `{COMMAND}`.\n",
        str(__doc__).split("\n\n")[1].replace("::", "."),
        "Times are in units of a plain pass, or triad, that each is in turn with. A promise is out",
        "of reach where the bare loop does not keep it either.\n",
        *markdown_table(
            ["", "operation", "rows", "met", "out of reach", "missed", "ours / bare"],
            summary(rows),
        ),
        "",
        *markdown_table(
            ["array", "", "operation", "at most", "ours", "bare", "ours / bare", ""], cells
        ),
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n")[0])
    parser.add_argument("--shapes", default="", help="regular expression: arrays to measure")
    parser.add_argument("--only", default="", help="regular expression: operations to measure")
    parser.add_argument("--samples", type=int, default=7, help="of each call")
    asked = parser.parse_args()
    chosen, rows = [case for case in PEERS if re.search(asked.shapes, str(case))], list[Row]()
    for number, case in enumerate(chosen, 1):
        print(f"{number}/{len(chosen)} {case}", file=sys.stderr, flush=True)
        rows += measure(case, asked.only, asked.samples)
    text = table(rows, header(cores(), _PACKAGES))
    if not (asked.shapes or asked.only):
        (ROOT / "docs" / "floors.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
