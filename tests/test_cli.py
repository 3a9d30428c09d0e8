"""The command line: what it prints, where, and with which exit code."""

import json
import os
import subprocess
import sys
import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pytest

import numba_bn as nbn
from numba_bn import _cli, _info, _warmup
from numba_bn._kernels import _store

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def place(tmp_path, monkeypatch):
    """The only place for compiled kernels, with one in it."""
    monkeypatch.setattr(_store, "places", lambda: _store.Places("NUMBA_BN_CACHE", (tmp_path,)))
    _store.write(tmp_path, "stamp", "kernel.nbc", bytes(32), bytes(936))
    return tmp_path


@pytest.fixture
def did(monkeypatch):
    """Let `warmup` do nothing but note its arguments; give what it says it did."""
    calls = []

    def warmup(*args):
        calls.append(args)
        return _warmup.Warmup(3, 4, 5.0)

    monkeypatch.setattr(_warmup, "warmup", warmup)
    return calls


def test_info_for_programs(place, capsys):
    assert _cli.main(["info", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found) == ["versions", "cpu", "cuda driver", "threads", "cache"]
    assert found["versions"]["numba_bn"] == nbn.__version__
    assert found["versions"]["numpy"] == np.__version__
    assert {"numba", "llvmlite", "python"} <= set(found["versions"])
    assert 1 <= found["cpu"]["usable"] <= found["cpu"]["cores"] == os.cpu_count()
    assert found["threads"]["layer"] in ("omp", "tbb", "workqueue")
    assert found["cache"] == {
        "from": "NUMBA_BN_CACHE",
        "folders": {str(place): {"files": 1, "bytes": 1000}},
    }


@pytest.mark.usefixtures("place")
def test_info_for_people(capsys):
    assert _cli.main(["info"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "versions"
    assert f"  numba_bn        {nbn.__version__}" in lines
    assert "      files           1" in lines


def test_info_of_a_machine_with_a_driver(monkeypatch):
    class Driver:
        def cuDriverGetVersion(self, version):  # noqa: N802
            version._obj.value = 13010

    monkeypatch.setattr(_info.ctypes, "CDLL", lambda name: Driver())
    assert _info._cuda_driver() == "CUDA 13.1"


def test_info_of_a_machine_without_a_driver(monkeypatch):
    def missing(name):
        raise OSError(name)

    monkeypatch.setattr(_info.ctypes, "CDLL", missing)
    assert _info._cuda_driver() is None


def test_warmup_passes_on_what_it_is_told(place, did, capsys):
    arguments = ["warmup", "--dtype", "float32", "float16", "--no-progress"]
    assert _cli.main(arguments) == 0
    assert did == [(["float32", "float16"], "cpu", False)]
    assert capsys.readouterr().out.splitlines() == [
        "compiled 3, loaded 4, in 5.0 s",
        f"{place}: 1 files, 0.0 MB",
    ]
    assert _cli.main(["warmup"]) == 0
    assert did[1] == (["float32"], "cpu", None)


def test_warmup_that_nobody_will_find_has_failed(did, monkeypatch, capsys):
    monkeypatch.setattr(_store, "places", lambda: _store.Places("NUMBA_BN_CACHE", ()))
    assert _cli.main(["warmup"]) == 1
    assert did
    assert "could be kept nowhere" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--dtype", "complex64"], "warmup: dtypes must be of real numbers, got complex64"),
        (["--dtype", "float31"], "warmup: dtypes must be dtypes or their names, got 'float31'"),
        (
            ["--device", "tpu"],
            "warmup: device must be 'cpu', 'cuda', or an architecture as 'sm_90' is, got 'tpu'",
        ),
    ],
)
def test_errors_are_one_line_on_stderr(arguments, text, capsys):
    assert _cli.main(["warmup", *arguments]) == 1
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", f"numba-bn: {text}\n")


@pytest.mark.parametrize("arguments", [[], ["unknown"], ["info", "--unknown"]])
def test_what_is_not_understood_exits_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        _cli.main(arguments)
    assert caught.value.code == 2
    assert "usage: numba-bn" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["info", "warmup"])
def test_help_has_examples(command, capsys):
    with pytest.raises(SystemExit) as caught:
        _cli.main([command, "--help"])
    assert caught.value.code == 0
    assert f"\nexamples:\n  numba-bn {command}\n" in capsys.readouterr().out


def test_it_is_a_module_and_a_script():
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "numba_bn", "warmup", "--device", "tpu"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr.startswith("numba-bn: warmup: device")) == (1, True)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert EntryPoint("", project["scripts"]["numba-bn"], "").load() is _cli.main
