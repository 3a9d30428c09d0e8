"""The script that measures a GPU, tried on the CPU: every part runs, and says what it found."""

import importlib
import json
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")
FOLDER = Path(__file__).resolve().parent.parent / "asv_bench"
PARTS = ["versions", "correct", "repeats", "streams", "launch", "bandwidth", "shapes", "sanitizer"]


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(FOLDER), *sys.path])
    return importlib.import_module("gpu")


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # PyTorch's own
def test_every_part_leaves_its_result(gpu, tmp_path, monkeypatch):
    monkeypatch.setattr(gpu.shutil, "which", lambda _: None)
    parts = ["--quick", "--device", "cpu", "--parts", *PARTS]
    assert gpu.main([str(tmp_path), *parts]) == 0
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert list(found) == PARTS
    assert found["versions"]["packages"]["torch"]
    assert set(found["repeats"].values()) == {"10 of 10"}
    assert all(us > 0 for us in found["launch"].values())
    assert found["sanitizer"] == {"skipped": "compute-sanitizer is not installed"}
    ratios = found["shapes"].pop("summary")
    assert set(ratios) == {f"x best of PyTorch, channels {layout}" for layout in ("first", "last")}
    rows = [row for row in found["shapes"].values() if isinstance(row, dict)]
    assert len(rows) == 6
    for row in rows:
        assert set(row) == {"statistics", "inference", "forward", "backward"}
        assert all(entry["us"] > 0 for entry in row.values())
        assert row["forward"]["us of PyTorch's own"] > 0


def test_a_part_that_fails_is_written_down_and_the_others_run(gpu, tmp_path, monkeypatch):
    def fails(clock, chosen):
        raise RuntimeError("no such thing")

    monkeypatch.setitem(gpu.PARTS, "launch", fails)
    arguments = [str(tmp_path), "--quick", "--device", "cpu", "--parts", "launch", "versions"]
    assert gpu.main(arguments) == 1
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert found["launch"]["failed"] == "RuntimeError('no such thing')"
    assert found["versions"]["device"] == "cpu"


def test_a_command_leaves_its_output_and_its_exit_code(gpu, tmp_path):
    command = [sys.executable, "-c", "print('one'); print('two'); raise SystemExit(3)"]
    result = gpu._run(command, tmp_path / "out.txt", 60, tmp_path)
    ended = {"exit": 3, "last line": "two", "output": "out.txt"}
    assert result == {**ended, "failed": "see its output"}
    assert gpu._failed({"sanitizer": {"memcheck": result}})
    assert not gpu._failed({"sanitizer": {"memcheck": ended}})
    late = gpu._run(
        [sys.executable, "-c", "import time; time.sleep(60)"], tmp_path / "o", 0.2, FOLDER
    )
    assert late["exit"] == "not done after 0.2 s"


def test_a_summary_has_the_worst_of_large_arrays_beside_what_is_wanted(gpu):
    shapes = gpu.shapes

    def row(fraction, ratio):
        entry = {"us": 21.0, "fraction of copy": fraction, "x best of PyTorch": ratio}
        return dict.fromkeys(shapes.PASSES, entry)

    rows = {
        shapes.Shape((8, 8), "float32", True): row(0.1, 8.0),
        shapes.MIDDLE: row(0.5, 3.0),
        shapes.Shape((4, 64, 1024, 1024), "float32", False): row(0.95, 2.0),
        shapes.Shape((2, 64, 1024, 1024), "bfloat16", False): row(0.85, 4.5),
    }
    found = shapes.summary(rows)
    assert found["dx alone, lowest fraction of copy"] == {"is": 0.85, "wanted": 0.92}
    assert found["backward, lowest fraction of copy"] == {"is": 0.85, "wanted": 0.9}
    assert found["forward, us of 25.7 MB"] == {"is": 21.0, "wanted": 22.0}
    first = found["x best of PyTorch, channels first"]
    assert first["lowest"] == 2.0
    assert first["geometric mean"] == pytest.approx(3.0)
    assert found["x best of PyTorch, channels last"]["lowest"] == 8.0


def test_wrong_results_are_said_to_be_wrong(gpu, monkeypatch):
    checks = gpu.checks
    clock = gpu.Clock("cpu", quick=True)
    monkeypatch.setattr(checks, "SHAPES", [(4, 5, 7, 9)])
    monkeypatch.setattr(checks, "DTYPES", {"float32": 1e-5})
    assert max(checks.correct(clock).values()) < 1e-5
    monkeypatch.setattr(checks.nbn, "layer_norm", lambda x: x)
    with pytest.raises(AssertionError, match=r"errors too large: .*layer float32"):
        checks.correct(clock)
