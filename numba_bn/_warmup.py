"""Compiling ahead what ordinary calls need."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from numba_bn._arrays import dtype_named, is_float, result_dtype
from numba_bn._dispatch import backend
from numba_bn._progress import bars
from numba_bn.functional import (
    batch_norm,
    batch_norm_backward,
    batch_norm_train,
    instance_norm,
    instance_norm_backward,
    layer_norm,
    layer_norm_backward,
)
from numba_bn.stats import ChannelStats, channel_stats

if TYPE_CHECKING:
    from numpy.typing import DTypeLike

    from numba_bn._kernels._launch import Kernel

_Step = Callable[[], object]


class Warmup(NamedTuple):
    """What `warmup` did."""

    compiled: int
    loaded: int
    seconds: float


def warmup(
    dtypes: DTypeLike | Sequence[DTypeLike] = ("float32",),
    device: str = "cpu",
    progress: bool | None = None,
) -> Warmup:
    """Compile ahead what ordinary calls need, or load it where it is kept from an earlier time.

    That is the serial and the parallel form of every kernel that batch, instance, group, layer and
    RMS norm and `channel_stats` run on arrays of these dtypes, forward and backward. What a mask or
    a residual needs is compiled when it is first used.

    Parameters
    ----------
    dtypes : dtype or sequence of dtype, default ("float32",)
        Of the arrays that calls will normalize.
    device : {"cpu", "cuda", "sm_90", ...}
        Where they will be: on the CPU, on the present GPU, or on GPUs of a compute capability,
        here 9.0, for which no GPU has to be there.
    progress : bool, optional
        Whether to show a bar, which needs tqdm; by default on a terminal, if tqdm is there.

    Returns
    -------
    Warmup
        ``compiled`` and ``loaded`` count functions compiled in this process and found on disk,
        ``seconds`` is how long it took.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit.
    ImportError
        If Numba, or for the bar tqdm, is not there.

    References
    ----------
    Numba's documentation, "Notes on caching".

    Examples
    --------
    >>> import numba_bn as nbn
    >>> nbn.warmup()  # doctest: +ELLIPSIS
    Warmup(compiled=..., loaded=..., seconds=...)
    """
    started = time.perf_counter()
    several = isinstance(dtypes, Sequence) and not isinstance(dtypes, str)
    names: Sequence[Any] = dtypes if several else [dtypes]  # type: ignore[assignment]
    chosen = [_dtype(name) for name in names]
    if device != "cpu":
        counts = _warm_device(chosen, device, progress)
        return Warmup(*counts, time.perf_counter() - started)
    kernels = _kernels()
    before = after = _complete(kernels)
    # there are no kernels under NUMBA_DISABLE_JIT
    steps = [step for dtype in chosen for step in _steps(dtype)] if kernels else []
    for step in _shown(steps, progress):
        step()
        after = _complete(kernels)
    return Warmup(after[0] - before[0], after[1] - before[1], time.perf_counter() - started)


def _warm_device(
    dtypes: Sequence[np.dtype[Any]], device: str, progress: bool | None
) -> tuple[int, int]:
    """Compile or load the kernels for a device; return how many it was of which."""
    from numba_bn._kernels.cuda import ahead, cubins

    traits = ahead.traits_of(device)
    steps: list[_Step] = [
        partial(cubins.cubin, kernel, variant, traits.capability)
        for dtype in dtypes
        for kernel, variant in ahead.variants(
            dtype.name, result_dtype("warmup", "dtypes", dtype).name, traits.device
        )
    ]
    made: list[Any] = [step() for step in _shown(steps, progress)]
    compiled = sum(cubin.compiled for cubin in made)
    return compiled, len(made) - compiled


def _dtype(name: Any) -> np.dtype[Any]:
    """Return a dtype that norms take, by its name too."""
    try:
        dtype = dtype_named(name)
    except TypeError:
        raise TypeError(f"warmup: dtypes must be dtypes or their names, got {name!r}") from None
    if not is_float(dtype) and dtype.kind not in "iu":
        raise TypeError(f"warmup: dtypes must be of real numbers, got {dtype}")
    return dtype


def _steps(dtype: np.dtype[Any]) -> Iterator[_Step]:
    """Yield calls that between them run every kernel, without masks and residuals."""
    shapes = ((2, 3, 1024), (2, 3, 90_000), 1), ((2, 50, 3), (2, 90_000, 3), -1)
    for shape, large, channel_axis in shapes:  # planes, channels-last
        x, many = np.ones(shape, dtype), np.ones(large, dtype)
        dy = x.astype(result_dtype("warmup", "dtypes", dtype))
        ones = np.ones(3)
        stats = ChannelStats(ones * (x.size // 3), ones, ones)
        axis: dict[str, Any] = {"channel_axis": channel_axis}
        yield partial(channel_stats, x, **axis)
        yield partial(batch_norm_backward, dy, x, mean=ones, var=ones, **axis)
        yield partial(batch_norm_backward, dy, x, stats=stats, activation="relu", y=dy, **axis)
        for p in (ones, ones.astype(np.float32)):  # parameters are taken as they are
            yield partial(batch_norm, x, p, p, mean=p, var=p, **axis)
            yield partial(batch_norm_train, x, p, p, **axis)
            yield partial(batch_norm_backward, dy, x, p, stats=stats, **axis)
            # in two sweeps: what is here is too much for one thread
            yield partial(batch_norm_train, many, p, p, **axis)
            yield partial(batch_norm_backward, many.astype(dy.dtype), many, p, stats=stats, **axis)
            yield partial(instance_norm, x, p, p, **axis)
            yield partial(instance_norm_backward, dy, x, p, **axis)
    yield partial(layer_norm, x)
    yield partial(layer_norm_backward, dy, x)
    yield partial(_long_row, dtype)
    for p in (np.ones(1), np.ones(1, np.float32)):
        if is_float(dtype):
            yield partial(_two_sweeps, dtype, p)
        yield partial(_long_plane, dtype, p)


def _two_sweeps(dtype: np.dtype[Any], gamma: np.ndarray[Any, Any]) -> None:
    """Take gradients of a plane too large for one go, between whose sweeps there is a kernel."""
    from numba_bn._kernels.cpu.plan import SMALL

    x, one = np.ones((1, 1, SMALL // dtype.itemsize), dtype), np.ones(1)
    batch_norm_backward(x, x, gamma, stats=ChannelStats(one * x.size, one, one))


def _long_row(dtype: np.dtype[Any]) -> None:
    """Normalize a row that no cache of a core holds, which another kernel does."""
    from numba_bn._kernels.cpu.caches import l2_bytes
    from numba_bn._kernels.cpu.plan import SMALL

    layer_norm(np.ones((1, max(l2_bytes(), SMALL) // dtype.itemsize + 16), dtype))


def _long_plane(dtype: np.dtype[Any], gamma: np.ndarray[Any, Any]) -> None:
    """Take the gradient of a plane that is summed in several blocks, which another kernel does."""
    from numba_bn._kernels.cpu.moments import BLOCK

    x = np.ones((1, 1, BLOCK + 16), dtype)
    instance_norm_backward(x.astype(result_dtype("warmup", "dtypes", dtype)), x, gamma)


def _kernels() -> list[Kernel]:
    """Return all kernels."""
    backend()  # which loads them, or says what is missing
    from numba_bn._kernels import _launch

    return _launch.kernels


def _complete(kernels: list[Kernel]) -> tuple[int, int]:
    """Let every kernel have both forms of what it has run on; return counts of compiled, loaded."""
    counts = [kernel.complete() for kernel in kernels]
    return sum(c for c, _ in counts), sum(n for _, n in counts)


def _shown(steps: Sequence[_Step], progress: bool | None) -> Iterable[_Step]:
    """Return the steps, behind a bar if that is wanted."""
    tqdm = bars("warmup", progress)
    shown: Iterable[_Step] = tqdm(steps, desc="numba_bn: kernels", unit="call") if tqdm else steps
    return shown
