"""The side-by-side: every library computes the same, and what is written is what was measured."""

import importlib
import importlib.util
import json
import os
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent

with pytest.MonkeyPatch.context() as patch:
    patch.setenv("NUMBA_CACHE_DIR", os.environ.get("NUMBA_CACHE_DIR", ""))
    patch.syspath_prepend(ROOT / "asv_bench")
    peers, libraries, report, results, targets, workers, cases, workloads = (
        importlib.import_module(name)
        for name in (
            "peers",
            "_libraries",
            "_report",
            "_results",
            "_targets",
            "_workers",
            "benchmarks.cases",
            "benchmarks.workloads",
        )
    )

Case = cases.Case
IMAGE = Case((32, 64, 56, 56))


def times(**more):
    """Milliseconds as a run finds them."""
    ours = {"train": 12.0, "train out=": 9.0, "train pass": 10.0}
    return {"numba_bn": {**ours, "statistics out=": 4.0, "statistics pass": 10.0}, **more}


def found(rows):
    """A result as it is written."""
    header = {"machine": "A machine", "date": "2026-01-02", "versions": {"numpy": "2"}}
    header |= {"threads": 2, "rounds": 3, "samples": 7}
    return {**header, "summary": results.summary(rows), "rows": rows}


@pytest.fixture
def rows():
    """A training forward and statistics, beside two peers."""
    peers_times = {"PyTorch": {"train": 30.0}, "JAX": {"train": 24.0}}
    one = {"train out=": 18.0, "train pass": 15.0, "statistics out=": 4.0, "statistics pass": 15.0}
    found = times(**peers_times, **{"one thread": one})
    return results.rows_of(IMAGE, found, {"train": 500_000}, 2)


def array(result):
    """The normalized array of whatever a library returns, as float64."""
    y = result[0] if isinstance(result, tuple) else result
    y = y.float() if hasattr(y, "movedim") else y
    return np.asarray(y, np.float64)


def same_calls(library, case):
    """The calls of a library, and of ours, that must agree."""
    module, function, takes = libraries.LIBRARIES[library]
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not installed")
    assert library in ("scikit-learn", "NumPy") or takes(case)
    work = workloads.Work(case)
    work.gamma[:] = work.beta[:] = work.mean[:] = work.var[:] = 1
    if library in ("scikit-learn", "NumPy"):
        work.beta[:] = 0
    ours = {name: work.call(name, out=False) for name in libraries.COMPARED}
    return function(case), ours


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "uint8", "uint16"])
@pytest.mark.parametrize("layout", ["first", "last"])
@pytest.mark.parametrize("library", ["PyTorch", "JAX"])
def test_a_framework_computes_what_we_do(library, layout, dtype):
    case = Case((6, 5, 4, 3), layout, dtype)
    theirs, ours = same_calls(library, case)
    assert set(theirs) <= set(libraries.COMPARED)
    tolerance = {"bfloat16": 3e-2, "float16": 3e-3}.get(dtype, 1e-4)
    for name, call in theirs.items():
        y = array(call())
        if library == "PyTorch" and layout == "last":
            y = np.moveaxis(y, 1, -1)
        np.testing.assert_allclose(y, array(ours[name]()), rtol=tolerance, atol=tolerance)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")  # about its own parts
def test_what_torch_compiles_computes_what_we_do():
    theirs, ours = same_calls("torch.compile", Case((6, 5, 4, 3)))
    for name, call in theirs.items():
        np.testing.assert_allclose(array(call()), array(ours[name]()), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("library", ["scikit-learn", "NumPy"])
def test_tables_are_standardized_as_we_do(library):
    theirs, ours = same_calls(library, Case((50, 6)))
    np.testing.assert_allclose(
        array(theirs["train"]()), array(ours["train"]()), rtol=1e-4, atol=1e-4
    )
    takes = libraries.LIBRARIES[library][2]
    assert takes(Case(cases.SCIKIT_SHAPE))
    assert not takes(IMAGE)


def test_ours_are_measured_into_a_given_array_and_as_a_user_calls_them():
    calls = libraries.numba_bn(Case((6, 5, 4, 3)))
    assert {"pass", "triad", "train", "train out=", "group backward out="} <= set(calls)
    assert not any(name.startswith("layer") for name in calls)
    first, second = calls["train"]()[0], calls["train"]()[0]
    assert first is not second
    assert calls["train out="]()[0] is calls["train out="]()[0]


def test_a_worker_measures_what_it_is_asked():
    worker = workers.Worker("NumPy", 1)
    try:
        answer = worker.ask(Case((6, 5)), "train", 2, False)
        nothing = worker.ask(Case((6, 5)), "backward", 2, False)
        failed = worker.ask(Case((6, 5), dtype="nothing"), "train", 2, False)
    finally:
        worker.close()
    assert set(answer["ms"]) == {"train"}
    assert answer["ms"]["train"] > 0
    assert nothing["ms"] == {}
    assert "TypeError" in failed["error"]


def test_each_call_into_a_given_array_is_beside_its_limit():
    worker = workers.Worker("numba_bn", 1)
    try:
        answer = worker.ask(Case((6, 5)), "^(train|layer backward)$", 2, False)
    finally:
        worker.close()
    given = {"train out=", "train pass", "layer backward out=", "layer backward triad"}
    assert set(answer["ms"]) == {"train", *given}


def test_what_fails_of_ours_is_an_error():
    worker = workers.Worker("numba_bn", 1)
    try:
        with pytest.raises(RuntimeError, match="nothing"):
            worker.ask(Case((6, 5), dtype="nothing"), "train", 2, False)
    finally:
        worker.close()


def test_rounds_are_in_turn_and_their_medians_count(monkeypatch, capsys):
    class Told:
        def __init__(self, library, answers):
            self.library, self.answers = library, iter(answers)

        def ask(self, case, only, samples, memory):
            asked.append((self.library, memory))
            return next(self.answers)

    asked = []
    ours = [{"ms": times()["numba_bn"] | {"train": ms}, "extra": {}} for ms in (3.0, 1.0, 2.0)]
    theirs = [{"ms": {"train": ms}, "extra": {}} for ms in (6.0, 4.0)] + [{"error": "gone"}]
    told = [Told("numba_bn", ours), Told("JAX", theirs), Told("NumPy", [])]
    row = peers.measure(IMAGE, told, peers.options(["--rounds", "3", "--threads", "2"]))[0]
    assert [name for name, _ in asked] == ["numba_bn", "JAX"] * 3
    assert [memory for _, memory in asked] == [True, False, False, False, False, False]
    assert row["ms"]["numba_bn"] == 2.0
    assert row["ms"]["JAX"] == 5.0
    assert "JAX: gone" in capsys.readouterr().err


def test_a_row_has_its_ratio_and_its_target(rows):
    train, statistics = rows
    assert train["ms"] == {"numba_bn": 12, "numba_bn out=": 9, "pass": 10, "PyTorch": 30, "JAX": 24}
    assert (train["ratio"], train["target"], train["met"]) == (0.9, 2.0, True)
    assert (train["where"], train["limit"]) == ("inside", "pass")
    assert (train["speedup"], train["limit_speedup"]) == (2.0, 1.5)
    assert train["extra_bytes"] == 500_000
    assert results.faster(train) == 2.0
    assert results.faster(train, ["PyTorch"]) == 2.5
    assert results.case_of(train) == IMAGE
    assert (statistics["ratio"], statistics["extra_bytes"]) == (0.4, None)


def test_the_summary_says_what_holds(rows):
    lines = {line["what"]: line for line in results.summary(rows)}
    assert lines["training forward, × faster than the fastest framework"]["value"] == 2.0
    assert not lines["speed-up by threads, × the loop's, least"]["met"]
    assert lines["memory promised / taken, least"]["value"] == pytest.approx(2.0, abs=0.01)
    assert lines["time promised / taken, least"]["met"]
    assert not any("scikit" in what for what in lines)


def test_short_dtypes_are_held_against_float32(rows):
    half = results.rows_of(IMAGE._replace(dtype="float16"), times(), {}, 2)
    half[0]["ms"]["numba_bn out="] = 18.0
    lines = {line["what"]: line for line in results.summary(rows + half)}
    assert lines["short dtypes, × float32, least"]["value"] == 0.5


@pytest.mark.parametrize(
    ("operation", "case", "most"),
    [
        ("inference", "64x64x112x112 last float32", 0.75),
        ("inference", "32x64x56x56 first float32", 1.2),
        ("train", "128x512x28x28 first float32", 0.9),
        ("train", "8x4x1024x1024 first float32", 1.2),
        ("train", "64x64x112x112 last float32", 1.2),
        ("train", "32x64x56x56 first float32", 2.0),
        ("train", "32x64x56x56 last float32", 2.2),
        ("backward", "65536x64 first float32", 2.4),
        ("backward", "2000000x30 first float32", 1.35),
        ("statistics", "2000000x30 first float32", 0.45),
        ("layer", "65536x1024 first float32", 0.85),
        ("layer backward", "65536x1024 first float32", 0.9),
        ("group backward", "32x64x56x56 last float32", 1.8),
        ("train", "32x64 first float32", None),
        ("instance backward", "64x64x112x112 last float32", 0.9),
        ("instance", "8x4x1024x1024 first float32", 0.85),
        ("instance", "8x4x1024x1024 last float32", None),
        ("group", "1x8x4096x4096 first uint16", None),
        ("group", "2x32x64x64x64 last float32", 1.6),
    ],
)
def test_targets_are_those_of_the_table(monkeypatch, operation, case, most):
    monkeypatch.setattr(targets, "l2_bytes", lambda: 1 << 21)
    monkeypatch.setattr(targets, "held_bytes", lambda: 1 << 23)
    assert targets.target(operation, Case.parse(case)) == most


def test_every_kind_of_target_is_measured(monkeypatch):
    monkeypatch.setattr(targets, "l2_bytes", lambda: 1 << 21)
    seen = {
        (targets.kind(operation, case), targets.where(case))
        for case in cases.PEERS
        for operation in workloads.OPERATIONS
        if workloads.applies(operation, case)
    }
    assert seen == {(kind, where) for kind in targets.TARGETS for where in ("inside", "beyond")}
    assert len(set(cases.PEERS)) == len(cases.PEERS)
    assert {*cases.SMALL, *cases.SCALED, Case(cases.SCIKIT_SHAPE)} <= set(cases.PEERS)
    assert all(case.nbytes >= 10e6 for case in cases.SCALED)


def test_the_table_holds_every_row(rows):
    text = report.table(found(rows))
    assert "A machine, 2 threads, 2026-01-02; numpy 2." in text
    assert text.count("32x64x56x56 first float32") == len(rows) == 2
    assert "of 7 calls a round, of 3 rounds" in text
    assert "| 0.90 pass | 2 |  | 9 | 12 | 30 |  | 24 |" in text
    wide = [line.count("|") for line in text.split("\n\n")[-1].splitlines()]
    assert wide == [len(libraries.LIBRARIES) + 8] * (2 + len(rows))


def test_the_lines_of_the_readme_are_replaced(tmp_path, rows):
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{report.BEGIN}\nold \\1\n{report.END}\nafter\n", encoding="utf-8")
    for _ in range(2):
        report.write_readme(readme, found(rows))
        text = readme.read_text(encoding="utf-8")
        assert text == f"before\n{report.readme_block(found(rows))}\nafter\n"
    readme.write_text("nothing to replace", encoding="utf-8")
    with pytest.raises(ValueError, match="no lines between"):
        report.write_readme(readme, found(rows))


def test_everything_is_written(tmp_path, rows):
    pytest.importorskip("matplotlib")
    result = found(rows)
    peers.write(result, tmp_path / "new")
    written = {path.name for path in (tmp_path / "new").iterdir()}
    assert written == {"peers.json", "peers.md", "peers.png"}
    assert json.loads((tmp_path / "new" / "peers.json").read_text()) == result
    assert (tmp_path / "new" / "peers.png").read_bytes().startswith(b"\x89PNG")


def test_what_was_measured_is_what_the_readme_says():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    kept = ROOT / "docs" / "peers.json"
    if not kept.is_file():
        assert f"{report.BEGIN}\nNot measured yet.\n{report.END}" in readme
        return
    result = json.loads(kept.read_text(encoding="utf-8"))
    assert report.readme_block(result) in readme
    assert report.table(result) == (ROOT / "docs" / "peers.md").read_text(encoding="utf-8")
    assert (ROOT / "docs" / "peers.png").is_file()


def test_the_command_line_chooses(capsys, monkeypatch):
    asked = peers.options(["--quick", "--shapes", "7x7 last", "--libraries", "^(JAX|NumPy)$"])
    assert (asked.rounds, asked.samples) == (1, 3)
    assert set(map(str, peers.cases(asked))) == {
        "32x512x7x7 last float32",
        "256x3x7x7 last float32",
        "256x63x7x7 last float32",
    }
    monkeypatch.setattr(peers, "find_spec", lambda module: module != "jax" or None)
    assert peers.libraries(asked) == ["numba_bn", "NumPy"]
    assert "JAX: jax is not installed" in capsys.readouterr().err
    assert peers.cases(peers.options([])) == cases.PEERS
