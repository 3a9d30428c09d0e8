"""From measured times to rows, and from rows to a summary that says what holds."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from _libraries import NUMBA_BN, ONE_THREAD
from _targets import extra_limit, target, where
from benchmarks.cases import DTYPES, SCIKIT_SHAPE, SMALL, Case
from benchmarks.loops import beside, limit_name
from benchmarks.workloads import OPERATIONS

Times = dict[str, dict[str, float]]
Row = dict[str, Any]
FRAMEWORKS = ("PyTorch", "torch.compile", "JAX")
GIVEN = f"{NUMBA_BN} out="


def rows_of(case: Case, times: Times, extra: dict[str, int], threads: int) -> list[Row]:
    """Return one row an operation, from milliseconds by library and call."""
    ours = times[NUMBA_BN]
    rows = []
    for operation in OPERATIONS:
        if f"{operation} out=" in ours:
            row = _row(case, operation, times)
            row["extra_bytes"] = extra.get(operation)
            row["extra_limit"] = extra_limit(case, threads)
            rows.append(row)
    return rows


def _row(case: Case, operation: str, times: Times) -> Row:
    ours, loop = times[NUMBA_BN], limit_name(operation)
    ms = {GIVEN: ours[f"{operation} out="], loop: ours[beside(operation)]}
    ms |= {name: found[operation] for name, found in times.items() if operation in found}
    ms.pop(ONE_THREAD, None)
    most = target(operation, case)
    ratio = ms[GIVEN] / ms[loop]
    row: Row = {
        "shape": list(case.shape),
        "layout": case.layout,
        "dtype": case.dtype,
        "operation": operation,
        "where": where(case),
        "ms": {name: round(value, 5) for name, value in ms.items()},
        "limit": loop,
        "ratio": round(ratio, 3),
        "target": most,
        "met": None if most is None else ratio <= most,
    }
    if one := times.get(ONE_THREAD):
        row["speedup"] = round(one[f"{operation} out="] / ms[GIVEN], 3)
        row["limit_speedup"] = round(one[beside(operation)] / ms[loop], 3)
    return row


def case_of(row: Row) -> Case:
    """Return the case a row is of."""
    return Case(tuple(row["shape"]), row["layout"], row["dtype"])


def faster(row: Row, peers: Iterable[str] = FRAMEWORKS) -> float | None:
    """Return how many times faster ours is than the fastest of some peers; none without them."""
    found = [row["ms"][name] for name in peers if name in row["ms"]]
    return min(found) / row["ms"][NUMBA_BN] if found else None


def _mean(values: Iterable[float | None]) -> float | None:
    """Return the geometric mean of what was measured."""
    found = [math.log(value) for value in values if value is not None]
    return math.exp(sum(found) / len(found)) if found else None


def _least(values: Iterable[float | None]) -> float | None:
    return min((value for value in values if value is not None), default=None)


def _halves_and_integers(rows: list[Row]) -> float | None:
    """Return the slowest of a short dtype relative to float32, as float32's time over its time."""
    times = {(case_of(row), row["operation"]): row["ms"][GIVEN] for row in rows}
    return _least(
        times.get((case._replace(dtype="float32"), operation), math.inf) / ms
        for (case, operation), ms in times.items()
        if case.dtype in DTYPES
    )


def summary(rows: list[Row]) -> list[dict[str, Any]]:
    """Return what was promised of the whole table; each value must be at least its target."""
    small = [row for row in rows if case_of(row) in SMALL]
    large = [row for row in rows if case_of(row) not in SMALL]
    train = [row for row in large if row["operation"] == "train"]
    backward = [row for row in large if row["operation"] == "backward"]
    table = [row for row in train if case_of(row) == Case(SCIKIT_SHAPE)]
    called = [row for row in small if row["operation"] in ("train", "inference")]
    judged = [row for row in rows if row["target"] is not None]
    lines = [
        ("training forward, × faster than the fastest framework", _mean(map(faster, train)), 2.0),
        ("backward, × faster than PyTorch", _mean(faster(r, ["PyTorch"]) for r in backward), 2.0),
        ("× scikit-learn", _least(faster(r, ["scikit-learn"]) for r in table), 5.0),
        ("× NumPy", _least(faster(r, ["NumPy"]) for r in table), 5.0),
        ("small arrays, × PyTorch", _least(faster(r, ["PyTorch"]) for r in called), 1.0),
        ("short dtypes, × float32, least", _halves_and_integers(large), 1.0),
        ("speed-up by threads, × the loop's, least", _least(_scaling(r) for r in rows), 0.9),
        ("memory promised / taken, least", _least(_memory(r) for r in rows), 1.0),
        ("time promised / taken, least", _least(r["target"] / r["ratio"] for r in judged), 1.0),
    ]
    return [
        {"what": what, "value": round(value, 3), "target": most, "met": value >= most}
        for what, value, most in lines
        if value is not None
    ]


def _scaling(row: Row) -> float | None:
    return row["speedup"] / row["limit_speedup"] if "speedup" in row else None


def _memory(row: Row) -> float | None:
    taken = row["extra_bytes"]
    return None if taken is None else float(row["extra_limit"] / max(taken, 1))
