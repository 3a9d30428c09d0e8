"""float16 on CPUs that convert it themselves, and on those where its bits are taken apart."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

JOB = """
import hashlib
import numpy as np
import numba_bn as nbn
every = np.arange(65536, dtype=np.uint16).view(np.float16)
every = np.resize(every[np.isfinite(every)], (1000, 64))
assert np.array_equal(nbn.batch_norm(every, mean=np.zeros(64), var=np.ones(64), eps=0.0), every)
x = np.random.default_rng(0).normal(3.0, 20.0, (1000, 64)).astype(np.float16)
stats = [nbn.channel_stats(a, channel_axis=axis) for a in (every, x) for axis in (0, 1)]
results = nbn.batch_norm(x), *(v for s in stats for v in (s.mean, s.m2))
print(hashlib.sha256(b"".join(v.tobytes() for v in results)).hexdigest())
"""


@pytest.mark.slow
def test_the_bits_are_those_of_a_cpu_without_conversions():
    found = set()
    for cpu in ({}, {"NUMBA_CPU_NAME": "generic"}):
        done = subprocess.run(
            [sys.executable, "-c", JOB],
            env={**os.environ, **cpu},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        found.add(done.stdout)
    assert len(found) == 1
