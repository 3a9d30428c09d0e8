"""PyTorch's tensors: those of the CPU are read and written where they lie, others go to CUDA."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from numba_bn._adapters import CUDA, _convert, adapter
from numba_bn._arrays import Array, is_bfloat16


def call(function: Callable[..., Any], args: tuple[Any, ...], options: Mapping[str, Any]) -> Any:
    """Run a public function on tensors; return tensors."""
    torch = sys.modules["torch"]
    for value in (*args, *options.values()):
        if isinstance(value, torch.Tensor) and value.is_cuda:
            return adapter(CUDA, function, args, options).call(function, args, options)
    return _convert.call(sys.modules[__name__], function, args, options)


def owns(value: Any, lead: Any) -> bool:
    """Tell whether ``value`` is a tensor."""
    return isinstance(value, sys.modules["torch"].Tensor)


def seen(call: str, name: str, value: Any) -> Array:
    """Return a tensor's memory as an ndarray."""
    torch = sys.modules["torch"]
    require_no_grad(call, name, value)
    tensor = value.detach()
    half = tensor.dtype == torch.bfloat16
    try:
        array: Array = (tensor.view(torch.int16) if half else tensor).numpy()
    except (RuntimeError, TypeError) as error:
        about = str(error).partition("\n")[0]
        raise TypeError(
            f"{call}: {name} must be a dense tensor of real numbers on the CPU, got one on "
            f"{value.device} of dtype {value.dtype}: {about}"
        ) from None
    if half:
        import ml_dtypes

        return array.view(ml_dtypes.bfloat16)
    return array


def require_no_grad(call: str, name: str, tensor: Any) -> None:
    """Raise if PyTorch would have to record what happens to a tensor."""
    if tensor.requires_grad and sys.modules["torch"].is_grad_enabled():
        raise TypeError(
            f"{call}: {name} requires grad, which is not recorded here; pass {name}.detach(), "
            "or call under torch.no_grad()"
        )


def theirs(result: Array, lead: Any) -> Any:
    """Return a result as a tensor, in the same memory."""
    torch = sys.modules["torch"]
    if is_bfloat16(result.dtype):
        return torch.from_numpy(result.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(result)
