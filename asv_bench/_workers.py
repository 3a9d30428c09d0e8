"""Processes that measure, one a library; only one of them is at work at a time."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from _libraries import LIBRARIES, NUMBA_BN, ONE_THREAD
from benchmarks.cases import Case
from benchmarks.loops import LIMITS, beside, limit_name
from benchmarks.measure import extra_bytes, medians
from benchmarks.workloads import Call

_SPIN = 0.05
"""Seconds in which the threads of the library before stop spinning for more work."""

THREAD_LIMITS = ("NUMBA_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def cores() -> int:
    """Return how many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def serve(library: str) -> None:
    """Answer requests, one a line; what the library prints goes elsewhere."""
    if hasattr(os, "sched_setaffinity"):  # the limit that JAX knows
        count = int(os.environ[THREAD_LIMITS[0]])
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:count])
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        try:
            answer = _measure(library, **json.loads(line))
        except Exception as error:  # one case a peer cannot do must not end the table
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)


def _measure(library: str, case: str, only: str, samples: int, memory: bool) -> dict[str, Any]:
    calls = LIBRARIES[library][1](Case.parse(case))
    wanted = {
        name: call
        for name, call in calls.items()
        if name in LIMITS or re.search(only, name.removesuffix(" out="))
    }
    extra = {}
    if memory and sys.platform == "linux":
        given = {name: call for name, call in wanted.items() if name.endswith(" out=")}
        extra = {name.removesuffix(" out="): extra_bytes(call) for name, call in given.items()}
    return {"ms": _times(wanted, samples), "extra": extra}


def _times(calls: dict[str, Call], samples: int) -> dict[str, float]:
    """Return milliseconds: of a call into a given array beside its limit's, of the others in turn.

    Each such call is in turn with its limit alone, A B A B: what ran before decides what is in the
    caches, and a new output of 32 MB drives out what the next call would find (1.3 to 1.8 x).
    """
    ms, rest = {}, {name: call for name, call in calls.items() if name not in LIMITS}
    for name in [name for name in rest if name.endswith(" out=")]:
        operation = name.removesuffix(" out=")
        loop = limit_name(operation)
        found = medians({name: rest.pop(name), loop: calls[loop]}, samples)
        ms |= {name: found[name], beside(operation): found[loop]}
    return ms | medians(rest, samples)


class Worker:
    """A process with one library, on so many threads."""

    def __init__(self, library: str, threads: int) -> None:
        self.library = library
        count = 1 if library == ONE_THREAD else threads
        limits = dict.fromkeys(THREAD_LIMITS, str(count))
        main = str(Path(__file__).with_name("peers.py"))
        self._process = subprocess.Popen(
            [sys.executable, main, "--serve", library],
            env={**os.environ, **limits},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, case: Case, only: str, samples: int, memory: bool) -> dict[str, Any]:
        """Return what the process measured."""
        request = {"case": str(case), "only": only, "samples": samples, "memory": memory}
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        time.sleep(_SPIN)
        print(json.dumps(request), file=self._process.stdin, flush=True)
        line = self._process.stdout.readline()
        answer = json.loads(line) if line else {"error": "the process ended"}
        if "error" in answer and self.library in (NUMBA_BN, ONE_THREAD):
            raise RuntimeError(f"{case}: {answer['error']}")
        return dict(answer)

    def close(self) -> None:
        """End the process."""
        self._process.communicate()
