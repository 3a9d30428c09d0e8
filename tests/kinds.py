"""Arrays of other libraries in the CPU's memory, made of NumPy's. No tests."""

from collections.abc import Callable
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
import pytest


class Kind(NamedTuple):
    """How to make an array that shares, or copies, a NumPy array's memory, and to look at one."""

    name: str
    make: Callable[[np.ndarray], Any]
    look: Callable[[Any], np.ndarray]
    type: type
    shares: bool = True
    """Whether ``make`` copies nothing and the arrays can be written to."""


def tensors() -> Kind:
    """PyTorch's."""
    torch = pytest.importorskip("torch")
    bfloat16 = np.dtype(ml_dtypes.bfloat16)

    def make(a: np.ndarray) -> Any:
        if a.dtype == bfloat16:
            return torch.from_numpy(a.view(np.int16)).view(torch.bfloat16)
        return torch.from_numpy(a)

    def look(t: Any) -> np.ndarray:
        if t.dtype == torch.bfloat16:
            return t.view(torch.int16).numpy().view(bfloat16)
        return t.numpy()

    return Kind("torch", make, look, torch.Tensor)


def strict() -> Kind:
    """Those of the array API's own strict implementation."""
    space = pytest.importorskip("array_api_strict")
    return Kind("array_api_strict", space.from_dlpack, np.from_dlpack, type(space.zeros(1)))


def jaxs() -> Kind:
    """JAX's, which copies where it must and lets nobody write."""
    jax = pytest.importorskip("jax")
    return Kind("jax", jax.numpy.asarray, np.asarray, jax.Array, shares=False)


KINDS = {"torch": tensors, "array_api_strict": strict, "jax": jaxs}
