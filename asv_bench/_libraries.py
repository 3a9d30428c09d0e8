"""What each library does with a case, called as its user would call it.

A library is a function from a case to calls by name: an operation, which allocates its result, or
an operation and " out=", which is given one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from benchmarks.cases import SCALED, SMALL, Case
from benchmarks.workloads import OPERATIONS, Array, Call, applies, values, work_of

EPS = 1e-5
ONE_THREAD = "one thread"
NUMBA_BN = "numba_bn"
COMPARED = ("inference", "train", "backward")
"""The operations that other libraries do too, so that ours allocate like theirs."""

Calls = dict[str, Call]


def numba_bn(case: Case) -> Calls:
    """Every operation, and the loops that are their limits."""
    from benchmarks.loops import LIMITS, limit

    work = work_of(case)
    calls: Calls = {name: limit(work, name) for name in LIMITS}
    for operation in OPERATIONS:
        if applies(operation, case):
            calls[f"{operation} out="] = work.call(operation)
            if operation in COMPARED:
                calls[operation] = work.call(operation, out=False)
    return calls


def _tensors(case: Case) -> tuple[Any, Any, Any]:
    """Return x and dy, channels on axis 1 in memory of either order, and a parameter."""
    import torch

    floats = case._replace(dtype="float32") if case.dtype.startswith("uint") else case
    x, dy = (
        _tensor(values(c, seed)).movedim(case.axis, 1) for seed, c in enumerate((case, floats))
    )
    return x, dy, torch.ones(case.channels)


def _tensor(array: Array) -> Any:
    import torch

    if array.dtype.name == "bfloat16":
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def _torch_forward(case: Case, wrap: Callable[[Any], Any]) -> Calls:
    from torch.nn.functional import batch_norm

    x, _, w = _tensors(case)
    cast = not x.is_floating_point()  # batch_norm takes no integers

    def norm(x: Any, mean: Any, var: Any, training: bool) -> Any:
        return batch_norm(x.float() if cast else x, mean, var, w, w, training, 0.1, EPS)

    norm = wrap(norm)
    return {
        "inference": lambda: norm(x, w, w, False),
        "train": lambda: norm(x, None, None, True),
    }


def torch_eager(case: Case) -> Calls:
    """PyTorch: gradients as autograd gives them, forwards that keep no books, as ours do not."""
    import torch

    x, dy, w = _tensors(case)
    x = x if x.is_floating_point() else x.float()
    leaves = [t.detach().requires_grad_() for t in (x, w, torch.zeros_like(w))]
    image, gamma, beta = leaves
    y = torch.nn.functional.batch_norm(image, None, None, gamma, beta, True, 0.1, EPS)
    return {
        **_torch_forward(case, lambda norm: norm),
        "backward": lambda: torch.autograd.grad(y, leaves, dy, retain_graph=True),
    }


def torch_compile(case: Case) -> Calls:
    """torch.compile, for the very shape."""
    import torch

    torch._dynamo.reset()  # or it gives up compiling after eight shapes
    return _torch_forward(case, lambda norm: torch.compile(norm, dynamic=False))


def jax(case: Case) -> Calls:
    """JAX, by the formula of Flax: the variance from the mean of the squares."""
    import jax
    import jax.numpy as jnp

    x = jnp.asarray(values(case))
    axis = case.axis % x.ndim
    others = tuple(i for i in range(x.ndim) if i != axis)
    shape = [case.channels if i == axis else 1 for i in range(x.ndim)]
    w = jnp.ones(case.channels)
    dtype = x.dtype if jnp.issubdtype(x.dtype, jnp.floating) else jnp.float32

    @jax.jit
    def inference(x: Any, mean: Any, var: Any) -> Any:
        scale = w * jax.lax.rsqrt(var + EPS)
        y = (x.astype(jnp.float32) - mean.reshape(shape)) * scale.reshape(shape)
        return (y + w.reshape(shape)).astype(dtype)

    @jax.jit
    def train(x: Any) -> Any:
        wide = x.astype(jnp.float32)
        mean = wide.mean(others)
        var = (wide * wide).mean(others) - mean * mean
        return inference(x, mean, var), mean, var

    return {
        "inference": lambda: inference(x, w, w).block_until_ready(),
        "train": lambda: jax.block_until_ready(train(x)),
    }


def scikit_learn(case: Case) -> Calls:
    """StandardScaler, which is a batch norm of a table."""
    from sklearn.preprocessing import StandardScaler

    x = values(case)
    return {"train": lambda: StandardScaler().fit_transform(x)}


def numpy(case: Case) -> Calls:
    """Mean, variance, and their application."""
    x = values(case)

    def train() -> Array:
        y = x - x.mean(0)
        y /= np.sqrt(x.var(0) + np.float32(EPS))
        return y

    return {"train": train}


def is_table(case: Case) -> bool:
    """Tell whether it is data for those that standardize tables."""
    return len(case.shape) == 2 and case.dtype == "float32" and case not in SMALL


LIBRARIES: dict[str, tuple[str, Callable[[Case], Calls], Callable[[Case], bool]]] = {
    NUMBA_BN: ("numba_bn", numba_bn, lambda case: True),
    ONE_THREAD: ("numba_bn", numba_bn, SCALED.__contains__),
    "PyTorch": ("torch", torch_eager, lambda case: True),
    "torch.compile": ("torch", torch_compile, lambda case: True),
    "JAX": ("jax", jax, lambda case: True),
    "scikit-learn": ("sklearn", scikit_learn, is_table),
    "NumPy": ("numpy", numpy, is_table),
}
"""Name → module that must be installed, function, cases it is asked for."""
