"""The tests of a device, by the README's command, where there is little else installed."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
COMMAND = "python -m pytest -o addopts= -W default -m gpu tests/cuda/test_device.py"
BARE = """
import sys
sys.modules.update(dict.fromkeys(["hypothesis", "ml_dtypes", "xdist", "cuda", "torch"]))
import pytest
sys.exit(pytest.main(sys.argv[1:]))
"""


def test_pytest_alone_is_needed():
    options = COMMAND.partition("pytest ")[2].split()
    ours = "PYTEST_ADDOPTS", "NUMBA_BN_REQUIRE"
    bare = {name: value for name, value in os.environ.items() if name not in ours}
    done = subprocess.run(
        [sys.executable, "-c", BARE, *options, "--collect-only", "-q", "-p", "no:cacheprovider"],
        env={**bare, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=100, cwd=ROOT, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    names = done.stdout.split("\n\n")[0].splitlines()
    assert len(names) > 300
    assert not [name for name in names if "bfloat16" in name]


def test_the_readme_says_so():
    assert f"`{COMMAND}`" in (ROOT / "README.md").read_text()
