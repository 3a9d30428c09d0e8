"""What is in reach: the bare loops do what they say, and a row says what it means."""

import importlib
import os
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent

with pytest.MonkeyPatch.context() as patch:
    patch.setenv("NUMBA_CACHE_DIR", os.environ.get("NUMBA_CACHE_DIR", ""))
    patch.syspath_prepend(ROOT / "asv_bench")
    floors, bare, cases, workloads, measure = (
        importlib.import_module(name)
        for name in (
            "floors",
            "_bare",
            "benchmarks.cases",
            "benchmarks.workloads",
            "benchmarks.measure",
        )
    )

Case = cases.Case
PIECE, VALUES = 48, 1000


def aligned(count, dtype=np.float32):
    """An array whose first value begins a line of memory."""
    room = np.zeros(count + 64, dtype)
    start = -room.ctypes.data % 64 // room.itemsize
    return room[start : start + count]


@pytest.fixture
def arrays():
    rng = np.random.default_rng(3)
    x, dy = (rng.normal(2, 1, VALUES).astype(np.float32) for _ in range(2))
    return x, dy, aligned(VALUES)


def parts(*given):
    """The pieces of whole sixteens of some arrays, in order."""
    end = VALUES // 16 * 16
    return [[a[i : min(i + PIECE, end)].astype(float) for a in given] for i in range(0, end, PIECE)]


def test_statistics_sum_all_values(arrays):
    x = arrays[0].astype(float)[: VALUES // 16 * 16]
    assert bare.statistics(arrays[0], False, PIECE) == pytest.approx((x + x * x).sum())


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("sweeps", [None, True])
def test_forward_writes_by_the_sums(arrays, sweeps, stream):
    x, _, y = arrays
    sums = [(v + v * v).sum() for (v,) in parts(x)]
    bare.forward(x, y, stream, sweeps, PIECE)
    by = [sum(sums)] * len(sums) if sweeps else sums
    expected = np.concatenate([a * v + a for a, (v,) in zip(by, parts(x), strict=True)])
    np.testing.assert_allclose(y[: expected.size], expected, rtol=1e-5)
    assert not y[expected.size :].any()


@pytest.mark.parametrize("own", [None, True])
@pytest.mark.parametrize("sweeps", [None, True])
def test_backward_writes_by_the_products(arrays, sweeps, own):
    x, dy, dx = arrays
    sums = [(d + d * v).sum() + ((v + v * v).sum() if own else 0.0) for d, v in parts(dy, x)]
    bare.backward(dy, x, dx, own, True, sweeps, PIECE)
    by = [sum(sums)] * len(sums) if sweeps else sums
    pairs = zip(by, parts(dy, x), strict=True)
    expected = np.concatenate([a * (d + v) + a for a, (d, v) in pairs])
    np.testing.assert_allclose(dx[: expected.size], expected, rtol=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "uint8"])
@pytest.mark.parametrize("operation", workloads.OPERATIONS)
def test_each_operation_has_bare_loops(operation, dtype):
    shape = (40, 6) if operation.startswith(("layer", "rms")) else (3, 4, 5, 5)
    for loop in bare.loops(workloads.Work(Case(shape, dtype=dtype)), operation):
        loop()


@pytest.mark.parametrize(
    ("operation", "case", "sweeps"),
    [
        ("train", "32x64x56x56 first float32", False),
        ("train", "32x64x56x56 last float32", True),
        ("train", "32x2048x7x7 last float32", False),
        ("backward", "65536x64 first float32", True),
        ("train", "8x4x1024x1024 first float32", True),
        ("layer", "8192x1024 first float32", False),
        ("instance", "2x32x64x64x64 last float32", True),
    ],
)
def test_sweeps_are_for_what_no_cache_holds(monkeypatch, operation, case, sweeps):
    sizes = {"l2_bytes": 1 << 20, "held_bytes": 1 << 23}
    for name, size in sizes.items():
        monkeypatch.setattr(bare, name, lambda size=size: size)
    monkeypatch.setattr(bare, "far_bytes", lambda once: 24 << 20)
    assert bare.in_sweeps(operation, Case.parse(case)) is sweeps


def test_a_row_is_out_of_reach_where_the_bare_loop_misses_too():
    row = floors.Row(Case((32, 64, 56, 56)), "train", target=2.0, ours=2.4, bare=2.2)
    verdicts = [row, row._replace(bare=1.5), row._replace(ours=1.9)]
    assert [r.verdict for r in verdicts] == ["out of reach", "missed", ""]
    assert floors.summary(verdicts) == [["inside", "train", "3", "1", "1", "1", "1.09"]]


def test_a_part_is_printed_and_not_kept(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(measure, "_SAMPLE", 1e-9)
    monkeypatch.setattr(floors, "ROOT", tmp_path)
    monkeypatch.setattr(floors, "PEERS", [Case((3, 4, 5, 5)), Case((2, 2))])
    monkeypatch.setattr(
        sys, "argv", ["floors.py", "--shapes", "5x5", "--only", "train", "--samples", "1"]
    )
    floors.main()
    printed = capsys.readouterr().out
    assert printed.count("3x4x5x5 first float32") == 1
    assert not list(tmp_path.iterdir())
