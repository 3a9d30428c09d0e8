"""Calls of all sorts: a right result, or an error that says what is wrong and changes nothing."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from fuzz.run import CORPUS, replay
from fuzz_calls import call
from fuzz_property import judge
from fuzz_strategies import drawn
from hypothesis import HealthCheck, given, settings
from table import DTYPES, RARE

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy's, where values overflow


def soundly(examples):
    checks = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example]
    return settings(max_examples=examples, suppress_health_check=checks)


@soundly(300)
@given(drawn([np.float32]))
def test_calls(choose):
    judge(call(choose))


@pytest.mark.slow
@soundly(60)
@given(drawn([*DTYPES, *RARE], mixed=True))
def test_calls_of_mixed_dtypes(choose):
    judge(call(choose))


# ---- bytes that Atheris came to ----

FOUND = sorted(CORPUS.iterdir())


def test_the_corpus():
    assert sum(replay(path.read_bytes()) for path in FOUND) > len(FOUND) / 4


@pytest.mark.slow
def test_atheris_finds_nothing(tmp_path):
    pytest.importorskip("atheris", reason="Atheris has no wheel for this Python")
    done = subprocess.run(
        [sys.executable, str(Path(CORPUS.parent, "run.py")), "--seconds=20", f"--found={tmp_path}"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "stat::number_of_executed_units" in done.stderr
