"""That results are right, and the same every time: quickly, and without pytest."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
from _gpu_clock import Clock, lacking

import numba_bn as nbn

SHAPES = [(4, 5, 7, 9), (2, 63, 7, 7), (3, 16, 64, 64), (2, 3, 5001), (1000, 37), (8, 64, 32, 32)]
DTYPES = {"float32": 1e-5, "float64": 1e-12, "float16": 2e-3, "bfloat16": 2e-2}


def correct(clock: Clock) -> dict[str, Any]:
    """Return the largest error of every norm, forward and backward, against NumPy in float64."""
    found: dict[str, Any] = {}
    for dtype, allowed in DTYPES.items():
        if reason := lacking(dtype):
            found[dtype] = {"skipped": reason}
            continue
        try:
            worst = _worst(clock, dtype)
        except Exception as error:  # each dtype stands for itself
            found[dtype] = {"failed": repr(error)}
            continue
        wrong = {name: error for name, error in worst.items() if not error <= allowed}
        found[dtype] = worst | ({"failed": f"errors too large: {wrong}"} if wrong else {})
    return found


def _worst(clock: Clock, dtype: str) -> dict[str, Any]:
    """Return the largest error of every norm over all shapes and layouts."""
    worst: dict[str, Any] = {}
    for shape in SHAPES:
        for last in (False, True):
            for name, error in _errors(clock, shape, dtype, last).items():
                worst[name] = float(np.maximum(worst.get(name, 0.0), error))  # NaN stays
    return worst


def _errors(clock: Clock, shape: tuple[int, ...], dtype: str, last: bool) -> dict[str, float]:
    x, dy = (clock.array(shape, dtype, last) for _ in range(2))
    channels = tuple(a for a in range(len(shape)) if a != 1)
    y, stats = nbn.batch_norm_train(x)
    dx = nbn.batch_norm_backward(dy, x, stats=stats).dx
    return {
        "forward": _apart(y, _normalized(x, channels)),
        "backward": _apart(dx, _gradient(dy, x, channels)),
        "instance": _apart(nbn.instance_norm(x), _normalized(x, channels[1:])),
        "layer": _apart(nbn.layer_norm(x), _normalized(x, (-1,))),
        "layer_backward": _apart(nbn.layer_norm_backward(dy, x).dx, _gradient(dy, x, (-1,))),
    }


def _wide(a: Any) -> np.ndarray:
    result: np.ndarray = a.double().cpu().numpy()
    return result


def _normalized(x: Any, axes: tuple[int, ...]) -> np.ndarray:
    wide = _wide(x)
    if not axes:
        return np.zeros_like(wide)
    around = wide - wide.mean(axes, keepdims=True)
    result: np.ndarray = around / np.sqrt((around**2).mean(axes, keepdims=True) + 1e-5)
    return result


def _gradient(dy: Any, x: Any, axes: tuple[int, ...]) -> np.ndarray:
    xhat, d, wide = _normalized(x, axes), _wide(dy), _wide(x)
    rstd = 1 / np.sqrt(wide.var(axes, keepdims=True) + 1e-5)
    mean, along = (v.mean(axes, keepdims=True) for v in (d, d * xhat))
    result: np.ndarray = rstd * (d - mean - xhat * along)
    return result


def _apart(got: Any, want: np.ndarray) -> float:
    """Return the largest difference, relative to the largest value."""
    return float(np.abs(_wide(got) - want).max() / max(np.abs(want).max(), 1.0))


def repeats(clock: Clock) -> dict[str, Any]:
    """Return how many of many repeats had the bits of the first."""
    number = 10 if clock.quick else 1000
    same = {}
    for shape in ((8, 16, 16, 16), (512, 64)) if clock.quick else ((32, 64, 56, 56), (65536, 256)):
        x, dy = clock.array(shape, "float32"), clock.array(shape, "float32")
        first, equal = _step(x, dy), 0
        for _ in range(number):
            pairs = zip(_step(x, dy), first, strict=True)
            equal += all(bool((a == b).all()) for a, b in pairs)
        same["x".join(map(str, shape))] = f"{equal} of {number}"
        if equal < number:
            raise AssertionError(f"not the same bits every time: {same}")
    return same


def _step(x: Any, dy: Any) -> tuple[Any, ...]:
    y, stats = nbn.batch_norm_train(x)
    dx, dgamma, dbeta, _ = nbn.batch_norm_backward(dy, x, stats=stats)
    return y, stats.mean, dx, dgamma, dbeta


def streams(clock: Clock) -> dict[str, Any]:
    """Return whether two streams at once, a thread each, give the bits of one alone."""
    if not clock.on_gpu:
        return {"skipped": "streams are a device's"}
    torch, number = clock.torch, 20 if clock.quick else 200
    arrays = [clock.array((16, 64, 56, 56), "float32") for _ in range(2)]
    wanted = [nbn.batch_norm(x) for x in arrays]
    clock.synchronize()
    found: list[list[Any]] = [[], []]

    def work(i: int) -> None:
        with torch.cuda.stream(torch.cuda.Stream()):
            for _ in range(number):
                found[i].append(bool((nbn.batch_norm(arrays[i]) == wanted[i]).all()))

    threads = [threading.Thread(target=work, args=(i,)) for i in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    equal = [sum(each) for each in found]
    if equal != [number, number]:
        raise AssertionError(f"two streams at once: {equal} of {number} the same")
    return {"same bits": equal, "of": number}


def small(device: str) -> None:
    """Run every norm on small arrays, for a tool that looks at each access."""
    clock = Clock(device, quick=True)
    for shape in SHAPES[:2]:
        for last in (False, True):
            _errors(clock, shape, "float32", last)
    clock.synchronize()
