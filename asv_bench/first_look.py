"""Training forward and backward against PyTorch eager and a plain pass over the same array.

Each library runs in a process of its own, in turn, on the same number of threads; the medians of
the rounds are printed, in milliseconds and as ratios::

    python asv_bench/first_look.py [--rounds 3] [--threads 2]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np

SHAPES = {
    "32x64x112x112": (32, 64, 112, 112),
    "32x64x56x56": (32, 64, 56, 56),
    "32x256x56x56": (32, 256, 56, 56),
    "32x512x28x28": (32, 512, 28, 28),
    "32x1024x14x14": (32, 1024, 14, 14),
    "32x2048x7x7": (32, 2048, 7, 7),
    "4x16x512x512": (4, 16, 512, 512),
    "65536x64": (65536, 64),
    "1000000x30": (1_000_000, 30),
}


def median(function: Callable[[], object], repeat: int = 9) -> float:
    """Return the median time of a call in milliseconds, after two that do not count."""
    function()
    function()
    times = []
    for _ in range(repeat):
        start = time.perf_counter()
        function()
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times)


def ours(shape: tuple[int, ...]) -> dict[str, float]:
    """Time numba_bn, and a plain parallel pass ``y = a*x + b`` beside it."""
    import numba

    import numba_bn as nbn

    @numba.njit(parallel=True)
    def plain(x, y):  # type: ignore[no-untyped-def]
        for i in numba.prange(x.size):
            y[i] = np.float32(2) * x[i] + np.float32(1)

    x = np.random.default_rng(0).standard_normal(shape, np.float32)
    y = np.empty_like(x)
    _, stats = nbn.batch_norm_train(x, out=y)
    return {
        "pass": median(lambda: plain(x.reshape(-1), y.reshape(-1))),
        "forward": median(lambda: nbn.batch_norm_train(x)),
        "forward out=": median(lambda: nbn.batch_norm_train(x, out=y)),
        "backward": median(lambda: nbn.batch_norm_backward(x, x, stats=stats)),
        "inference out=": median(lambda: nbn.batch_norm(x, mean=stats.mean, var=stats.m2, out=y)),
        "statistics": median(lambda: nbn.channel_stats(x)),
    }


def torch(shape: tuple[int, ...]) -> dict[str, float]:
    """Time PyTorch eager."""
    import torch
    import torch.nn.functional as functional

    torch.set_num_threads(int(os.environ["NUMBA_NUM_THREADS"]))
    x = torch.from_numpy(np.random.default_rng(0).standard_normal(shape, np.float32))
    gamma = torch.ones(shape[1])
    saved = torch.native_batch_norm(x, gamma, gamma, None, None, True, 0.1, 1e-5)[1:]
    mask = (True, True, True)
    backward = torch.ops.aten.native_batch_norm_backward
    with torch.no_grad():
        return {
            "forward": median(lambda: functional.batch_norm(x, None, None, gamma, gamma, True)),
            "backward": median(lambda: backward(x, x, gamma, None, None, *saved, True, 1e-5, mask)),
        }


def measure(library: str, name: str, threads: int) -> dict[str, float]:
    """Run one library on one shape in a process of its own."""
    limits = dict.fromkeys(("NUMBA_NUM_THREADS", "OMP_NUM_THREADS"), str(threads))
    command = [sys.executable, __file__, "--library", library, "--shape", name]
    done = subprocess.run(
        command, env={**os.environ, **limits}, capture_output=True, text=True, check=True
    )
    return dict(json.loads(done.stdout))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--library", choices=["ours", "torch"], help=argparse.SUPPRESS)
    parser.add_argument("--shape", choices=SHAPES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.library:
        run = {"ours": ours, "torch": torch}[options.library]
        print(json.dumps(run(SHAPES[options.shape])))
        return
    for name in SHAPES:
        found: dict[str, list[float]] = {}
        for _ in range(options.rounds):
            for library in ("ours", "torch"):
                for what, value in measure(library, name, options.threads).items():
                    found.setdefault(f"{library} {what}", []).append(value)
        ms = {what: statistics.median(values) for what, values in found.items()}
        plain = ms["ours pass"]
        row = " ".join(f"{what[5:]} {ms[what] / plain:.2f}" for what in ms if what[:5] == "ours ")
        times = " ".join(
            f"{what} {ms['torch ' + what] / ms['ours ' + what]:.2f}x"
            for what in ("forward", "backward")
        )
        print(f"{name:14s} pass {plain:8.3f} ms | x pass: {row} | faster than PyTorch: {times}")


if __name__ == "__main__":
    main()
