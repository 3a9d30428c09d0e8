"""The benchmarks measure what they say: each runs once, on a tiny shape."""

import importlib
import inspect
import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "asv_bench"
MODULES = ("forward", "backward", "statistics", "overhead", "memory", "ratio")
PREFIXES = ("time_", "timeraw_", "peakmem_", "track_")
TINY = {True: "40x6 first float32", False: "3x4x5x5 last float32"}


def load(name):
    """A module of the suite, whose place for compiled kernels is not the other tests'."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NUMBA_CACHE_DIR", os.environ.get("NUMBA_CACHE_DIR", ""))
        patch.syspath_prepend(FOLDER)
        return importlib.import_module(name)


cases, workloads, loops, measure = (
    load(f"benchmarks.{name}") for name in ("cases", "workloads", "loops", "measure")
)
SUITES = [
    suite
    for name in MODULES
    for suite in vars(load(f"benchmarks.{name}")).values()
    if inspect.isclass(suite) and any(n.startswith(PREFIXES) for n in dir(suite))
]


def methods(suite):
    """The names of a suite's benchmarks."""
    return [name for name in dir(suite) if name.startswith(PREFIXES)]


RUNS = [
    pytest.param(suite, name, operation, id=f"{suite.__name__}-{name}-{operation}")
    for suite in SUITES
    if suite.__name__ != "FirstCall"
    for name in methods(suite)
    for operation in suite.params[0]
]


@pytest.fixture(autouse=True)
def small_samples(monkeypatch):
    """No time is judged here."""
    monkeypatch.setattr(measure, "_SAMPLE", 1e-9)


@pytest.mark.parametrize(("suite", "name", "operation"), RUNS)
def test_each_benchmark_runs(suite, name, operation):
    case = TINY[operation.startswith(("layer", "rms"))]
    benchmark = suite()
    benchmark.setup(operation, case)
    result = getattr(benchmark, name)(operation, case)
    if name.startswith("track_"):
        assert math.isfinite(result)
        assert result > 0 or name == "track_extra"
    else:
        assert result is None


@pytest.mark.parametrize("suite", SUITES)
def test_each_suite_is_complete(suite):
    assert re.fullmatch(r"\d+", suite.version)
    assert len(suite.params) == len(suite.param_names) == 2
    assert all(suite.params)
    for name in methods(suite):
        if name.startswith("track_"):
            assert getattr(getattr(suite, name), "unit", "") or suite.unit


def test_all_benchmarks_are_seen_here():
    names = {f"{s.__name__}.{name}" for s in SUITES for name in methods(s)}
    assert {"Forward.time_out_given", "Backward.time_out_given", "Memory.peakmem_baseline"} <= names
    assert {"Ratio.track_times_limit", "Ratio.track_times_reference"} <= names
    others = {"__init__", "cases", "workloads", "loops", "measure", "suite"}
    assert {p.stem for p in (FOLDER / "benchmarks").glob("*.py")} == others | set(MODULES)


def test_what_means_nothing_is_skipped():
    suite = load("benchmarks.forward").Forward()
    with pytest.raises(NotImplementedError, match="layer means nothing"):
        suite.setup("layer", TINY[False])
    with pytest.raises(NotImplementedError, match="group means nothing"):
        suite.setup("group", TINY[True])


@pytest.mark.slow
@pytest.mark.parametrize("kernels", ["cold", "cached"])
def test_the_first_call_of_a_process(kernels):
    suite = load("benchmarks.overhead").FirstCall()
    statement, setup = suite.timeraw_first(kernels, suite.params[1][0])
    code = f"from timeit import timeit\nprint(timeit({statement!r}, {setup!r}, number=1))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(done.stdout) > 0


def test_importing_is_all_that_its_benchmark_does():
    assert load("benchmarks.overhead").timeraw_import() == "import numba_bn"


def test_a_case_is_read_as_it_is_written():
    for case in (*cases.PEERS, *cases.CURVES, *cases.RATIOS):
        assert cases.Case.parse(str(case)) == case
        assert math.prod(case.stored) == math.prod(case.shape)
        assert case.stored[case.axis] == case.channels


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "uint8", "uint16"])
def test_the_arrays_of_a_case(dtype):
    work = workloads.Work(cases.Case((2, 3, 4, 5), "last", dtype))
    assert work.x.shape == work.out.shape == work.dy.shape == (2, 4, 5, 3)
    assert work.x.dtype.name == dtype
    y = work.call("train", out=False)()[0]
    assert y.dtype == work.out.dtype
    assert work.call("train")()[0] is work.out
    np.testing.assert_array_equal(y, work.out)


def test_the_loops_are_a_pass_and_a_triad():
    work = workloads.Work(cases.Case((2, 3, 4, 5)))
    loops.limit(work, "pass")()
    np.testing.assert_allclose(work.out, 3 * work.x + 1, rtol=1e-6)
    loops.limit(work, "triad")()
    np.testing.assert_allclose(work.out, 3 * work.x + work.dy, rtol=1e-6)
    assert loops.bytes_moved(work, "pass") == 2 * work.x.nbytes
    assert loops.bytes_moved(work, "triad") == 3 * work.x.nbytes


def test_halves_go_through_the_loops_as_integers():
    work = workloads.Work(cases.Case((2, 3), dtype="bfloat16"))
    loops.limit(work, "pass")()
    np.testing.assert_array_equal(work.out.view(np.uint16), 3 * work.x.view(np.uint16) + 1)


def test_the_reference_is_left_again():
    from numba_bn import _dispatch

    ratio = load("benchmarks.ratio")
    with ratio._reference():
        assert _dispatch.backend().__name__.endswith("reference")
    assert _dispatch.backend().__name__.endswith("cpu")


def test_medians_are_of_calls_in_turn(monkeypatch):
    made = []
    calls = {name: lambda name=name: made.append(name) for name in "ab"}
    assert set(measure.medians(calls, 3)) == {"a", "b"}
    monkeypatch.setattr(measure, "_seconds", lambda call, number: call() or 2e-3)
    made.clear()
    assert measure.medians(calls, 3) == {"a": 2.0, "b": 2.0}
    assert "".join(made) == "aabb" + 3 * "ab"


@pytest.mark.skipif(sys.platform != "linux", reason="Linux only")
def test_extra_memory_is_seen():
    size = 1 << 24
    assert measure.extra_bytes(lambda: np.ones(size, np.uint8)) > 0.9 * size
    assert measure.extra_bytes(lambda: None) < 0.1 * size


def test_kernels_are_kept_by_content(tmp_path):
    key = load("benchmarks").content_key
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "a.py").write_text("one")
    first = key(tmp_path)
    (tmp_path / "inner" / "a.txt").write_text("not a source")
    assert key(tmp_path) == first
    (tmp_path / "inner" / "a.py").write_text("two")
    assert key(tmp_path) != first


def test_asv_finds_what_is_here():
    text = (FOLDER / "asv.conf.json").read_text(encoding="utf-8")
    settings = json.loads(re.sub(r"(^|,) *//.*", r"\1", text, flags=re.MULTILINE))
    assert (FOLDER / settings["benchmark_dir"]).is_dir()
    assert (FOLDER / settings["results_dir"]).is_dir()
    made = [settings["env_dir"], settings["html_dir"]]
    assert all(folder.startswith(".asv/") for folder in made)
    assert ".asv/" in (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
