"""The README is true: its Python runs as printed, its commands are the ones that are checked."""

import contextlib
import io
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

import numba_bn as nbn
from numba_bn import _cli

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
PYTHON = [text for language, text in BLOCKS if language == "python"]
SHELL = [text for language, text in BLOCKS if language == "sh"]


def test_every_block_is_checked_here():
    assert README.count("```") == 2 * len(BLOCKS)
    assert len(PYTHON) + len(SHELL) == len(BLOCKS)


def test_python_prints_what_its_comments_say(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names, printed = {}, io.StringIO()
    with contextlib.redirect_stdout(printed):
        for block in PYTHON:
            exec(compile(block, "README.md", "exec"), names)
    expected = [comment for block in PYTHON for comment in re.findall(r"  # (.*)", block)]
    assert len(expected) == len(PYTHON)
    assert printed.getvalue().splitlines() == expected
    written = ["images.npy", "normalized.npy", "state.npz", "statistics.npz", "stats-job.npz"]
    assert sorted(os.listdir()) == written


def test_the_first_example_is_ten_lines():
    assert len([line for line in PYTHON[0].splitlines() if line]) <= 10


def test_one_command_runs_the_example_and_one_the_tests():
    setup = (
        r"python3 -m venv \.venv && \.venv/bin/python -m pip install -e '\.\[{}\]' "
        r"&& \.venv/bin/python {}\n"
    )
    assert re.fullmatch(setup.format("examples", r"(examples/\w+\.py)"), SHELL[0])
    assert re.fullmatch(setup.format("test,examples", "-m pytest"), SHELL[1])
    assert (ROOT / SHELL[0].split()[-1]).is_file()


def test_the_benchmarks_are_run_where_and_how_it_says():
    setup, *lines = next(b for b in SHELL if "asv machine" in b).splitlines()
    assert setup.endswith("pip install -e '.[bench]' && cd asv_bench")
    assert (ROOT / "asv_bench" / "asv.conf.json").is_file()
    used = [re.match(r"asv (\w+)", line)[1] for line in lines]
    assert used == ["machine", "run", "continuous", "publish"]
    asv = pytest.importorskip("asv.commands")
    parser, _ = asv.make_argparser()
    for line in lines:
        for command in line.split("#")[0].split("&&"):
            parser.parse_args(shlex.split(command)[1:])


def test_the_commands_on_data_are_understood():
    lines = [line for block in SHELL for line in block.splitlines() if line.startswith("numba-bn ")]
    used = [_cli.parser().parse_args(shlex.split(line)[1:]).command for line in lines]
    assert used == ["stats", "normalize", "merge"]


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_the_commands_are_those_that_are_run_in_ci():
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    steps = re.findall(r"^run_readme .*", script, re.MULTILINE)
    assert steps == ["run_readme 1", "run_readme 2 ' --slow'"]
    extract = re.search(r"^readme\(\) \{\n.*?^\}\n", script, re.MULTILINE | re.DOTALL)[0]
    for number, expected in enumerate(SHELL, 1):
        done = subprocess.run(
            ["bash", "-c", f"{extract}\nreadme {number}"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            encoding="utf-8",
            check=True,
        )
        assert done.stdout == expected
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


def test_all_public_names_are_mentioned():
    spoken = set(re.findall(r"`(\w+)`|nbn\.(\w+)", README))
    spoken = {name for pair in spoken for name in pair}
    assert set(nbn.__all__) <= spoken
    assert set(re.findall(r"nbn\.(\w+)", README)) <= set(nbn.__all__)


def test_the_changelog_has_this_version():
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(rf"^## \[{re.escape(nbn.__version__)}\] - ", changelog, re.MULTILINE)
