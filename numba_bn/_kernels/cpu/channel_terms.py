"""What is done once per channel between the sums of gradients and dx, where NumPy does it.

It is in the order of the kernels', which gives the same bits.
"""

from __future__ import annotations

import numpy as np

from numba_bn._kernels.cpu.arrays import Array, rstd_of


@np.errstate(all="ignore")  # what overflows or is not a number is so in dgamma
def scale(sums: Array, rstd: Array) -> None:
    """Σdy, Σdy·(x - mean) (2, channels) → Σdy, Σdy·x̂, in their place."""
    sums[1] *= rstd


@np.errstate(all="ignore")
def about_mean(sums: Array, low: Array) -> None:
    """Σdy, Σdy·(x - m) (2, channels) → Σdy, Σdy·(x - mean), in their place."""
    lost = low * sums[0]
    np.subtract(sums[1], lost, out=sums[1], where=np.isfinite(lost))


@np.errstate(all="ignore")
def coefficients(
    gamma: Array, rstd: Array, dbeta: Array, dgamma: Array, count: Array
) -> tuple[Array, Array, Array]:
    """Per (channels,) sums → a, b, c of dx = dy·a + (x - mean)·b + c."""
    a = gamma * rstd
    return a, -a * dgamma * rstd / count, -a * dbeta / count


@np.errstate(all="ignore")  # what overflows or is not a number is so in dx
def own_coefficients(
    gamma: Array, count: Array, m2: Array, eps: float, s: Array, t: Array
) -> tuple[Array, Array, Array, Array]:
    """Σdy, Σdy·(x - mean) (batch, groups, size) → a, b, c of dx, and Σdy·x̂.

    b and c are (batch, groups, 1).
    """
    r = rstd_of(m2 / count, eps).reshape(*count.shape, 1)
    n, common_s, common_t = (
        count[..., None],
        (gamma * s).sum(-1, keepdims=True),
        (gamma * t).sum(-1, keepdims=True),
    )
    b, c = -r * (r * common_t) * r / n, -r * common_s / n
    return gamma * r, b, c, t * r
