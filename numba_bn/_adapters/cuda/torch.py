"""PyTorch's tensors on a device."""

from __future__ import annotations

import sys
from functools import cache, lru_cache
from typing import Any

import numpy as np

from numba_bn._adapters.tensors import require_no_grad
from numba_bn._device import DeviceArray
from numba_bn._library import Glance
from numba_bn._view import Axes

CONVERTS = True
FOREIGN = False

_SELF = sys.modules[__name__]
_NAMES = (
    *("float16", "float32", "float64", "bool"),
    *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)),
)


def owns(value: Any) -> bool:
    """Tell whether ``value`` is a CUDA tensor."""
    return isinstance(value, sys.modules["torch"].Tensor) and value.is_cuda


@cache
def _dtypes() -> tuple[dict[Any, np.dtype[Any]], dict[np.dtype[Any], Any]]:
    """Return PyTorch's dtypes → NumPy's, and the reverse."""
    torch = sys.modules["torch"]
    known = {getattr(torch, n): np.dtype(n) for n in _NAMES if hasattr(torch, n)}
    try:
        import ml_dtypes
    except ImportError:  # bfloat16 is then refused as an unknown dtype is
        pass
    else:
        known[torch.bfloat16] = np.dtype(ml_dtypes.bfloat16)
    return known, {ours: theirs for theirs, ours in known.items()}


def seen(call: str, name: str, value: Any) -> DeviceArray:
    """Return a tensor as the calls see it."""
    require_no_grad(call, name, value)
    try:
        facts = _facts(value.dtype, value.layout, value.shape, value.stride())
    except RuntimeError:  # a sparse one has no strides
        facts = None
    if facts is None or value.is_neg():
        raise TypeError(
            f"{call}: {name} must be a dense tensor of real numbers, got one of dtype "
            f"{value.dtype} and layout {value.layout}"
        )
    owner = value.detach() if value.requires_grad else value
    return DeviceArray(owner, _SELF, value.data_ptr(), value.get_device(), *facts)


@lru_cache(maxsize=4096)
def _facts(
    dtype: Any, layout: Any, shape: Axes, steps: Axes
) -> tuple[Axes, Axes, np.dtype[Any]] | None:
    """Return shape, strides in bytes and dtype as NumPy has them, None if it has no such."""
    ours = _dtypes()[0].get(dtype)
    if ours is None or layout is not sys.modules["torch"].strided:
        return None
    return tuple(shape), tuple([ours.itemsize * n for n in steps]), ours


def glance(value: Any) -> Glance | None:
    """Return what `seen` looks at, None of what it might refuse."""
    if not value.is_cuda or value.is_neg():
        return None
    if value.requires_grad and sys.modules["torch"].is_grad_enabled():
        return None
    facts = value.get_device(), value.dtype, value.layout, value.shape, value.stride()
    return value, value.data_ptr(), facts, None


def address(owner: Any) -> int:
    """Return where a tensor begins."""
    at: int = owner.data_ptr()
    return at


def stream(like: DeviceArray) -> int:
    """Return the handle of PyTorch's current stream on the device of a tensor."""
    return current(like.ordinal, None)


def current(ordinal: int, made_on: int | None) -> int:
    """Return the handle of PyTorch's current stream on a device."""
    # as the code does that torch.compile makes; torch.cuda.current_stream takes microseconds
    handle: int = sys.modules["torch"]._C._cuda_getCurrentRawStream(ordinal)
    return handle


def made_on(array: DeviceArray) -> None:
    """Return nothing: tensors do not say."""


def keeper(like: DeviceArray) -> None:
    """Return nothing: PyTorch's streams are never destroyed."""


@cache
def _device(ordinal: int) -> Any:
    return sys.modules["torch"].device("cuda", ordinal)


@lru_cache(maxsize=4096)
def _steps(shape: Axes) -> Axes:
    """Return the strides of a C-ordered tensor."""
    steps: Axes = sys.modules["torch"].empty(shape, device="meta").stride()
    return steps


def empty(shape: Axes, dtype: np.dtype[Any], ordinal: int, stream: int) -> Any:
    """Return a new C-ordered tensor on a device, for its current stream."""
    new = sys.modules["torch"].empty_strided  # torch.empty takes half as long again
    return new(shape, _steps(shape), dtype=_dtypes()[1][dtype], device=_device(ordinal))


def upload(array: np.ndarray[Any, Any], like: DeviceArray) -> Any:
    """Return a copy of a NumPy array where another is."""
    torch = sys.modules["torch"]
    return torch.from_numpy(array.copy()).to(_device(like.ordinal))


def download(owner: Any) -> np.ndarray[Any, Any]:
    """Return a copy as a NumPy array; waits for the device."""
    array: np.ndarray[Any, Any] = owner.cpu().numpy()
    return array


def transpose(owner: Any, axes: Axes) -> Any:
    """Return a view with the axes in another order."""
    return owner.permute(axes)


def reshape(owner: Any, shape: Axes) -> Any:
    """Return a view of a C-ordered tensor."""
    return owner.reshape(shape)


def broadcast(owner: Any, shape: Axes) -> Any:
    """Return a view of a larger shape."""
    return owner.expand(shape)


def packed(owner: Any, axes: Axes) -> Any:
    """Return a C-ordered copy with the axes in another order."""
    return owner.permute(axes).contiguous()


def cast(owner: Any, dtype: np.dtype[Any]) -> Any:
    """Return a copy of another dtype."""
    return owner.to(_dtypes()[1][dtype], copy=True)


def assign(owner: Any, value: Any) -> None:
    """Copy ``value`` into a tensor."""
    owner.copy_(value)


def not_nan(owner: Any) -> Any:
    """Return where a tensor is not NaN."""
    return owner == owner


def both(owner: Any, other: Any) -> Any:
    """Return where two masks are both true."""
    return owner & other
