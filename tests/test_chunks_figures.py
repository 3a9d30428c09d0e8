"""The figures of data larger than memory: what is written is what was measured."""

import importlib
import json
import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

with pytest.MonkeyPatch.context() as patch:
    patch.setenv("NUMBA_CACHE_DIR", os.environ.get("NUMBA_CACHE_DIR", ""))
    patch.syspath_prepend(ROOT / "asv_bench")
    chunks = importlib.import_module("chunks")

SIDES = {
    "bare sum": {"seconds": 0.7, "cpu": 0.5, "kernels": 0.0, "MB": 4000.0},
    "channel_stats": {"seconds": 1.0, "cpu": 0.5, "kernels": 0.9, "MB": 301.0},
    "dask.array": {"seconds": 6.0, "cpu": 0.5, "kernels": 0.0, "MB": 8000.0},
    "reproducible": {"seconds": 2.0, "cpu": 0.5, "kernels": 0.9, "MB": 250.0},
    "zarr, compressed": {"seconds": 10.0, "cpu": 0.5, "kernels": 0.25, "MB": 250.0},
    "zarr, compressed, read alone": {"seconds": 9.0, "cpu": 0.5, "kernels": 0.0, "MB": 250.0},
    "cold file": {"seconds": 4.0, "cpu": 0.5, "kernels": 0.1, "MB": 250.0},
    "cold file, read alone": {"seconds": 3.0, "cpu": 0.5, "kernels": 0.0, "MB": 250.0},
    "Dask, 256 blocks of 1 MiB": {"seconds": 0.384, "cpu": 0.5, "kernels": 0.0, "MB": 500.0},
    "the same blocks, one by one": {"seconds": 0.064, "cpu": 0.5, "kernels": 0.0, "MB": 500.0},
}


def test_every_side_is_in_the_table_and_judged():
    assert set(chunks.SIDES) == set(SIDES)
    found = {line["what"].partition(",")[0]: line for line in chunks.summary(SIDES)}
    values = [round(line["value"], 6) for line in chunks.summary(SIDES)]
    assert values == [0.7, 6.0, 301.0, 0.025, 0.25, 0.1, 0.25, 0.1, 0.25, 2.0, 1.25]
    missed = [round(line["value"], 6) for line in chunks.summary(SIDES) if not line["met"]]
    assert missed == [301.0, 0.25, 0.25, 0.25, 1.25]
    assert found["memory"]["bound"] == "≤ 300"
    header = {"machine": "A machine", "date": "2026-01-02", "versions": {}, "threads": 2}
    text = chunks.table(
        {**header, "rounds": 3, "bytes": 4e9, "sides": SIDES, "summary": chunks.summary(SIDES)}
    )
    assert "| zarr, compressed | 10 | 0.5 | 0.1 | 25% | 250 |" in text
    assert "| Dask, 256 blocks of 1 MiB | 0.384 | 0.5 | 0.699 |  | 500 |" in text
    assert "| memory, MB | 301 | ≤ 300 | missed |" in text


def test_the_published_figures_are_of_this_table():
    found = json.loads((ROOT / "docs" / "chunks.json").read_text(encoding="utf-8"))
    assert (ROOT / "docs" / "chunks.md").read_text(encoding="utf-8") == chunks.table(found)
    assert chunks.summary(found["sides"]) == found["summary"]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads memory and drops caches as Linux does")
def test_a_small_run(tmp_path, capsys):
    pytest.importorskip("dask.array")
    pytest.importorskip("zarr")
    chunks.main(["--gb", "0.2", "--rounds", "1", "--into", str(tmp_path)])
    found = json.loads((tmp_path / "chunks.json").read_text(encoding="utf-8"))
    assert set(found["sides"]) == set(SIDES)
    assert capsys.readouterr().out.startswith("# Data larger than memory")
