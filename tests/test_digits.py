"""The command `examples/digits.py`, as a user runs it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from digits_example import EXAMPLES, save_blobs

sys.path.insert(0, str(EXAMPLES))

import digits

PNG_MAGIC = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def npz(tmp_path: Path) -> Path:
    return save_blobs(tmp_path, np.random.default_rng(7))


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command as a user does."""
    command = [sys.executable, str(EXAMPLES / "digits.py"), *arguments]
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, encoding="utf-8", check=False
    )


@pytest.mark.parametrize("module", ["sklearn.datasets", "matplotlib", "tqdm"])
def test_missing_library_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], npz: Path, module: str
) -> None:
    library = module.partition(".")[0]
    monkeypatch.setitem(sys.modules, library, None)
    monkeypatch.setitem(sys.modules, module, None)
    arguments = {"sklearn": [], "matplotlib": ["--compare", "--data", str(npz)]}
    assert digits.main(arguments.get(library, ["--data", str(npz)])) == 2
    package = {"sklearn": "scikit-learn"}.get(library, library)
    expected = f'digits.py: {package} is missing: pip install "numba-bn[examples]"\n'
    assert capsys.readouterr().err == expected


def test_missing_file_is_one_line_and_status_2(tmp_path: Path) -> None:
    done = run(tmp_path, "--data", "foo.npz")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "digits.py: --data foo.npz: no such file\n"


def test_missing_folder_for_the_plot_is_found_before_training(
    capsys: pytest.CaptureFixture[str], npz: Path
) -> None:
    pytest.importorskip("matplotlib")
    output = npz.parent / "none" / "curves.png"
    assert digits.main(["--data", str(npz), "--compare", "--output", str(output)]) == 2
    captured = capsys.readouterr()
    assert captured.err == f"digits.py: --output {output}: no such folder\n"
    assert "Learning rate" not in captured.out


@pytest.mark.parametrize("bad", [("--epochs", "0"), ("--seed", "-1"), ("--model", "rnn")])
def test_bad_option_is_status_2(capsys: pytest.CaptureFixture[str], bad: tuple[str, str]) -> None:
    with pytest.raises(SystemExit) as stop:
        digits.main(list(bad))
    assert stop.value.code == 2
    assert f"argument {bad[0]}" in capsys.readouterr().err


def test_help_has_examples(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        digits.main(["--help"])
    assert stop.value.code == 0
    assert "digits.py --model cnn" in capsys.readouterr().out


def accuracies(output: str) -> list[float]:
    return [float(percent) for percent in re.findall(r"(\d+\.\d+)%$", output, re.MULTILINE)]


def check_run(done: subprocess.CompletedProcess[str], least: float) -> None:
    """Check what a run prints, and its three accuracies."""
    assert done.returncode == 0, done.stderr
    assert done.stderr == "", "no progress bar where there is no terminal"
    lines = done.stdout.splitlines()
    assert lines[0] == "1149 training, 288 validation, 360 test images of 8×8 pixels"
    assert re.fullmatch(r"Epoch 1, Train Loss: \d+\.\d{4}, Val Loss: \d+\.\d{4}", lines[1])
    running, exact, folded = accuracies(done.stdout)
    assert running == folded
    assert min(running, exact) >= least
    assert "Folded, same predictions: 360 of 360" in lines[-1]


def test_mlp_on_the_digits(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    pytest.importorskip("tqdm")
    check_run(run(tmp_path, "--model", "mlp"), least=97)


def test_cnn_on_the_digits_briefly(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    pytest.importorskip("tqdm")
    check_run(run(tmp_path, "--model", "cnn", "--epochs", "5"), least=90)


@pytest.mark.slow
def test_cnn_on_the_digits(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    pytest.importorskip("tqdm")
    check_run(run(tmp_path, "--model", "cnn"), least=97)


def test_a_seed_gives_the_same_run(capsys: pytest.CaptureFixture[str], npz: Path) -> None:
    pytest.importorskip("tqdm")
    outputs = []
    for seed in ("3", "3", "4"):
        assert digits.main(["--data", str(npz), "--epochs", "2", "--seed", seed]) == 0
        outputs.append(capsys.readouterr().out)
    assert outputs[0] == outputs[1] != outputs[2]


@pytest.mark.parametrize("model", ["mlp", "cnn"])
def test_compare_saves_the_curves(tmp_path: Path, npz: Path, model: str) -> None:
    pytest.importorskip("matplotlib")
    pytest.importorskip("tqdm")
    done = run(
        tmp_path,
        *("--compare", "--model", model, "--data", npz.name, "--epochs", "2"),
        *("--output", "curves.png"),
    )
    assert done.returncode == 0, done.stderr
    assert len(accuracies(done.stdout)) == 6
    assert (tmp_path / "curves.png").read_bytes().startswith(PNG_MAGIC)
