"""The script that measures a GPU, tried on the CPU: every part runs, and says what it found."""

import importlib
import json
import sys
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from numba_bn._kernels import _launch

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
    monkeypatch.setattr(_launch, "_PARALLEL_BYTES", 1 << 60)  # twins nobody else compiles
    parts = ["--quick", "--device", "cpu", "--parts", *PARTS]
    assert gpu.main([str(tmp_path), *parts]) == 0
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert list(found) == PARTS
    assert found["versions"]["packages"]["torch"]
    assert set(found["repeats"].values()) == {"10 of 10"}
    assert all(us > 0 for us in found["launch"].values())
    assert found["sanitizer"] == {"skipped": "compute-sanitizer is not installed"}
    ratios = found["shapes"].pop("summary")
    names = {f"x best of PyTorch, channels {layout}" for layout in ("first", "last")}
    assert set(ratios) == {*names, "forward, x inference, channels first: highest"}
    assert found["shapes"].pop("device") == "cpu"
    rows = [row for row in found["shapes"].values() if isinstance(row, dict)]
    assert len(rows) == 6
    assert all(max(errors.values()) < 0.02 for errors in found["correct"].values())
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


def test_a_later_run_adds_its_parts_and_skips_what_it_has_no_time_for(gpu, tmp_path):
    options = [str(tmp_path), "--quick", "--device", "cpu", "--parts"]
    assert gpu.main([*options, "streams"]) == 0
    assert gpu.main([*options, "versions"]) == 0
    assert gpu.main([*options, "versions", "bandwidth", "--seconds", "0"]) == 0
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert found["streams"] == {"skipped": "streams are a device's"}
    assert found["bandwidth"] == {"skipped": "no time left"}
    assert found["versions"]["device"] == "cpu"


def test_without_ml_dtypes_bfloat16_alone_is_skipped(gpu, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    monkeypatch.setattr(gpu.checks, "SHAPES", [(4, 5, 7, 9)])
    monkeypatch.setattr(
        gpu.shapes, "_compared", lambda *_: {"forward": {"us": 1.0}, "backward": {"us": 1.0}}
    )
    parts = ["--quick", "--device", "cpu", "--parts", "correct", "shapes"]
    assert gpu.main([str(tmp_path), *parts]) == 0
    found = json.loads((tmp_path / "gpu.json").read_text())
    reason = {"skipped": "bfloat16 needs ml_dtypes, which is not installed"}
    assert found["correct"].pop("bfloat16") == reason
    assert all(max(errors.values()) < 2e-3 for errors in found["correct"].values())
    assert found["shapes"]["64x32 bfloat16 channels last"] == reason
    assert found["shapes"]["64x32 float32 channels last"]["forward"] == {"us": 1.0}


def test_without_pytest_its_part_is_skipped(gpu, tmp_path, monkeypatch):
    monkeypatch.setattr(gpu.importlib.util, "find_spec", lambda name: None)
    assert gpu.main([str(tmp_path), "--device", "cpu", "--parts", "pytest"]) == 0
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert found["pytest"] == {"skipped": "pytest is not installed"}


def test_each_shape_is_kept_and_one_that_fails_leaves_the_others(gpu, monkeypatch):
    def compared(clock, shape, copy):
        if shape.shape == (2, 8, 8, 8) and shape.channels_last:
            raise RuntimeError("out of memory")
        return {"forward": {"us": 1.0}, "backward": {"us": 1.0}}

    kept = []
    monkeypatch.setattr(gpu.shapes, "_compared", compared)
    monkeypatch.setattr(gpu.shapes, "lacking", lambda dtype: None)
    clock = gpu.Clock("cpu", quick=True)
    found = gpu.shapes.measured(clock, lambda so_far: kept.append(list(so_far)), {})
    assert [len(names) - 4 for names in kept] == [1, 2, 3, 4, 5, 6]
    failed = found["2x8x8x8 float32 channels last"]
    assert failed["failed"] == "RuntimeError('out of memory')"
    assert found["2x8x8x8 float32 channels first"]["backward"] == {"us": 1.0}
    assert gpu._failed(found)


def test_a_pytorch_that_cannot_compile_leaves_the_other_ways(gpu, monkeypatch):
    clock, shape = gpu.Clock("cpu", quick=False), gpu.shapes.Shape((2, 3), "float32", True)
    monkeypatch.setattr(clock.torch._dynamo, "reset", lambda: {}["an option that it lacks"])
    monkeypatch.setattr(gpu.shapes, "_pytorch", lambda *_: {})
    assert list(gpu.shapes._pytorchs(clock, shape)) == ["cuDNN", "PyTorch's own"]


def test_shapes_that_are_there_are_not_measured_again(gpu, monkeypatch):
    measured, clock = [], gpu.Clock("cpu", quick=True)

    def compared(clock, shape, copy):
        measured.append(shape.label)
        return {"forward": {"us": 1.0}, "backward": {"us": 1.0}}

    monkeypatch.setattr(gpu.shapes, "_compared", compared)
    monkeypatch.setattr(gpu.shapes, "lacking", lambda dtype: None)
    first = gpu.shapes.measured(clock, lambda so_far: None, {})
    labels = measured.copy()
    assert len(labels) == 6
    first[labels[0]], first[labels[3]] = {"skipped": "no time left"}, {"failed": "for once"}
    measured.clear()
    kept = []
    again = gpu.shapes.measured(clock, lambda so_far: kept.append(set(so_far)), first)
    assert measured == [labels[0], labels[3]]
    assert kept[0] >= set(labels) - {labels[3]}  # a run that is cut short loses nothing
    assert set(again) == set(first)
    assert again[labels[1]] == {"forward": {"us": 1.0}, "backward": {"us": 1.0}}
    measured.clear()
    gpu.shapes.measured(clock, lambda so_far: None, again | {"sources": "others"})
    assert measured == labels


def test_what_is_not_recorded_is_named_and_ours_is_a_failure(gpu):
    shape = gpu.shapes.Shape((8, 8), "float32", True)
    row = {
        "forward": {"us": 1.0, "recorded": True, "cuDNN recorded": False},
        "backward": {"us": 1.0, "recorded": False, "cuDNN recorded": True},
    }
    found = gpu.shapes.summary({shape: row})
    assert found["not recorded: ours"] == {"failed": ["8x8 float32 channels last, backward"]}
    assert found["not recorded: PyTorch's"] == ["8x8 float32 channels last, forward, cuDNN"]
    assert gpu._failed(found)
    row["backward"]["recorded"] = row["forward"]["cuDNN recorded"] = True
    assert gpu.shapes.summary({shape: row}) == {}


def test_a_graph_is_not_compared_with_calls(gpu, monkeypatch):
    class Clock:
        on_gpu, recorded = False, False

        def seconds(self, calls):
            seconds, self.recorded = calls
            return seconds

    ours = dict.fromkeys(("forward", "backward"), (1.0, True))
    cudnn, own = {"forward": (3.0, True), "backward": (5.0, False)}, {"forward": (2.0, False)}
    monkeypatch.setattr(gpu.shapes, "_ours", lambda *_: ours)
    monkeypatch.setattr(gpu.shapes, "_pytorchs", lambda *_: {"cuDNN": cudnn, "own": own})
    shape = gpu.shapes.Shape((8, 8), "float32", True)
    row = gpu.shapes._compared(Clock(), shape, 1e9)
    assert row["forward"]["x best of PyTorch"] == 3.0
    assert row["forward"]["us of own"] == 2e6
    assert row["backward"]["cuDNN recorded"] is False
    assert "x best of PyTorch" not in row["backward"]
    ratio = gpu.shapes.summary({shape: row})["x best of PyTorch, channels last"]
    wanted = {"lowest": 1.0}
    assert ratio == {"lowest": 3.0, "geometric mean": pytest.approx(3.0), "wanted": wanted}


def test_what_is_recorded_was_made_on_the_stream_that_records(gpu, monkeypatch):
    torch, entered = gpu.Clock("cpu", quick=True).torch, []

    @contextmanager
    def inside(stream):
        entered.append(stream)
        yield
        entered.pop()

    stand_ins = {
        "Stream": lambda: "side",
        "stream": inside,
        "CUDAGraph": lambda: SimpleNamespace(replay=lambda: None),
        "graph": lambda graph, stream: inside(stream),
        "synchronize": lambda: None,
    }
    for name, stand_in in stand_ins.items():
        monkeypatch.setattr(torch.cuda, name, stand_in)
    clock, seen = gpu.Clock("cuda", quick=True), []
    assert clock._graph([lambda: seen.append(list(entered))]) is not None
    assert seen == [["side"], ["side"]]
    monkeypatch.setattr(gpu.shapes, "bandwidth", lambda _: {"all": 1.0})
    monkeypatch.setattr(gpu.shapes, "summary", dict)
    monkeypatch.setattr(clock, "device_facts", lambda: {"device": "none"})
    monkeypatch.setattr(gpu.shapes, "_compared", lambda *_: {"on": list(entered)})
    found = gpu.shapes.measured(clock, lambda so_far: None, {})
    assert found["64x32 float32 channels last"] == {"on": ["side"]}


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # PyTorch's own
def test_every_shape_is_compiled_anew(gpu, monkeypatch):
    torch = gpu.Clock("cpu", quick=True).torch
    clock, resets = gpu.Clock("cpu", quick=True), []
    clock.quick = False
    monkeypatch.setattr(clock, "sets", lambda nbytes: 1)
    monkeypatch.setattr(torch, "compile", lambda norm, dynamic: norm)
    monkeypatch.setattr(torch._dynamo, "reset", lambda: resets.append(1))
    for channels in (4, 8):
        ways = gpu.shapes._pytorchs(clock, gpu.shapes.Shape((16, channels), "float32", True))
        assert set(ways) == {"cuDNN", "PyTorch's own", "torch.compile"}
    assert len(resets) == 2


def test_the_driver_is_asked_for_by_nvidias_program(gpu, tmp_path, monkeypatch):
    program = tmp_path / "nvidia-smi"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpu._driver() is None
    program.write_text("#!/bin/sh\necho 580.1\n")
    program.chmod(0o755)
    assert gpu._driver() == "580.1"
    program.write_text("#!/bin/sh\nexit 9\n")
    assert gpu._driver().startswith("CalledProcessError(9")


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
    assert first["wanted"] == {"lowest": 1.0, "geometric mean": 1.5}
    assert first["geometric mean"] == pytest.approx(3.0)
    assert found["x best of PyTorch, channels last"]["lowest"] == 8.0


def test_wrong_results_are_said_to_be_wrong(gpu, monkeypatch):
    checks = gpu.checks
    clock = gpu.Clock("cpu", quick=True)
    monkeypatch.setattr(checks, "SHAPES", [(4, 5, 7, 9)])
    monkeypatch.setattr(checks, "DTYPES", {"float32": 1e-5})
    assert max(checks.correct(clock)["float32"].values()) < 1e-5
    for wrong in (lambda x: x, lambda x: x * float("nan")):
        monkeypatch.setattr(checks.nbn, "layer_norm", wrong)
        found = checks.correct(clock)["float32"]
        assert found["failed"].startswith("errors too large: {'layer': ")
        assert found["forward"] < 1e-5
