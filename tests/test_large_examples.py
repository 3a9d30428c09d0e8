"""The examples of data larger than memory, as a user runs them, on little of it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from digits_example import EXAMPLES

sys.path.insert(0, str(EXAMPLES))

import hyperspectral
import pipeline_dask

NEEDS = {"hyperspectral": "zarr", "pipeline_dask": "dask"}


def run(folder: Path, name: str, *arguments: str) -> str:
    """Run an example as a user does, and return what it prints."""
    command = [sys.executable, "-W", "error", str(EXAMPLES / f"{name}.py"), *arguments]
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, encoding="utf-8", check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.slow
def test_bands_are_normalized_and_a_second_run_has_nothing_to_do(tmp_path: Path) -> None:
    pytest.importorskip("zarr")
    for _ in range(2):
        output = run(tmp_path, "hyperspectral", "--megabytes", "2", "--folder", "cube")
        rows = re.findall(r"^ *\d+ +(\S+) +(\S+) +(\S+) +(\S+)$", output, re.MULTILINE)
        assert len(rows) == 4
        assert len({row[0] for row in rows}) == 4
        assert {row[2:] for row in rows} == {("0.000000", "1.000000")}
    assert (
        sorted(path.suffix for path in (tmp_path / "cube").iterdir())
        == [".npz"] * 2 + [".zarr"] * 2
    )


@pytest.mark.slow
def test_the_cube_is_temporary_by_default(tmp_path: Path) -> None:
    pytest.importorskip("zarr")
    assert "Normalized" in run(tmp_path, "hyperspectral", "--megabytes", "1")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_the_odd_one_is_found(tmp_path: Path) -> None:
    pytest.importorskip("distributed")
    output = run(tmp_path, "pipeline_dask", "--images", "300", "--seed", "1")
    found, was = re.search(r"is image (\d+); it was (\d+)", output).groups()
    assert found == was


@pytest.mark.parametrize("example", [hyperspectral, pipeline_dask])
def test_what_is_missing_or_wrong_is_one_line(monkeypatch, capsys, example) -> None:
    name, needs = example.__name__, NEEDS[example.__name__]
    option = "--megabytes" if name == "hyperspectral" else "--images"
    assert example.main([option, "0"]) == 2
    assert re.fullmatch(rf"{name}\.py: {option}.* must be at least 1.*\n", capsys.readouterr().err)
    for module in (needs, f"{needs}.array"):
        monkeypatch.setitem(sys.modules, module, None)
    assert example.main([]) == 2
    expected = f'{name}.py: {needs} is missing: pip install "numba-bn[{needs}]"\n'
    assert capsys.readouterr().err == expected
