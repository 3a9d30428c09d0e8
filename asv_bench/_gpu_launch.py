"""What launches and calls cost the host."""

from __future__ import annotations

from typing import Any

from _gpu_clock import Clock

import numba_bn as nbn

EMPTY = """extern "C" __global__ void empty(
    float *a, float *b, float *c, float *d,
    long long i, long long j, long long k, long long l, long long m, long long n, long long o) {}"""

WANTED = {
    "one launch": 3.0,
    "one launch, x CuPy's RawKernel": 1.2,
    "batch_norm, allocating": 12.0,
    "batch_norm of CuPy's, allocating": 12.0,
}
"""Microseconds, and a ratio, that should be reached at most."""


def costs(clock: Clock) -> dict[str, Any]:
    """Return microseconds of the host: per launch, and per call with and without allocation."""
    x, out = (clock.array((4, 64, 8, 8), "float32") for _ in range(2))
    gamma, beta, mean = (clock.array((64,), "float32") for _ in range(3))
    var, host = mean.abs(), clock.host_microseconds
    given: dict[str, Any] = {"mean": mean, "var": var}
    norm = clock.torch.nn.functional.batch_norm
    result = {
        "batch_norm, allocating": host(lambda: nbn.batch_norm(x, gamma, beta, **given)),
        "batch_norm, out given": host(lambda: nbn.batch_norm(x, gamma, beta, out=out, **given)),
        "batch_norm_train": host(lambda: nbn.batch_norm_train(x, gamma, beta)),
        "PyTorch's batch_norm": host(lambda: norm(x, mean, var, gamma, beta)),
        "PyTorch's training": host(lambda: norm(x, mean, var, gamma, beta, training=True)),
        "PyTorch's x.add_(1)": host(lambda: out.add_(1.0)),
        "allocation by PyTorch": host(lambda: clock.torch.empty_like(x)),
    }
    if clock.on_gpu:
        result.update(launches(clock, x, out, gamma, mean, var))
        result["wanted"] = WANTED
    return result


def launches(clock: Clock, x: Any, out: Any, gamma: Any, mean: Any, var: Any) -> dict[str, Any]:
    """Return what one launch alone costs, ours and CuPy's, and a call on CuPy's arrays."""
    from numba_bn._kernels.cuda import backend, launch
    from numba_bn._kernels.cuda.plan import Call

    call = Call((1, 4, 64, 1, 64), "float32", beta=False, given="float32")
    prepared = backend.prepared("normalize", x.get_device(), (call, 1e-5), ())
    named = {"x": x, "y": out, "gamma": gamma, "mean": mean, "var": var}
    at = {name: array.data_ptr() for name, array in named.items()}
    stream = clock.torch.cuda.current_stream().cuda_stream
    ours = clock.host_microseconds(lambda: launch.run(prepared, at, stream))
    try:
        return {"one launch": ours, **_beside_cupy(clock, ours)}
    except ImportError as error:
        return {"one launch": ours, "CuPy": f"not there: {error}"}
    except Exception as error:  # a CuPy that has no compiler, say
        return {"one launch": ours, "CuPy": {"failed": repr(error)}}


def _beside_cupy(clock: Clock, ours: float) -> dict[str, float]:
    """Return what CuPy's launch costs, how ours compares, and what calls on its arrays cost."""
    import cupy

    kernel = cupy.RawKernel(EMPTY, "empty")
    arguments = (*(cupy.zeros(64, cupy.float32) for _ in range(4)), *range(7))
    theirs = clock.host_microseconds(lambda: kernel((4,), (128,), arguments))
    return {
        "one launch of CuPy's RawKernel": theirs,
        "one launch, x CuPy's RawKernel": ours / theirs,
        **_of_cupy(clock, cupy),
    }


def _of_cupy(clock: Clock, cupy: Any) -> dict[str, float]:
    """Return what whole calls on CuPy's arrays cost."""
    x = cupy.zeros((4, 64, 8, 8), cupy.float32)
    gamma, beta, mean, var = (cupy.zeros(64, cupy.float32) for _ in range(4))
    given: dict[str, Any] = {"mean": mean, "var": var}
    host = clock.host_microseconds
    return {
        "batch_norm of CuPy's, allocating": host(lambda: nbn.batch_norm(x, gamma, beta, **given)),
        "batch_norm_train of CuPy's": host(lambda: nbn.batch_norm_train(x, gamma, beta)),
        "allocation by CuPy": host(lambda: cupy.empty(x.shape, x.dtype)),
    }
