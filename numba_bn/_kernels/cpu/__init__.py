"""The backend functions on the CPU; those of ``reference``, in the same order."""

from numba_bn._kernels.cpu.gradients import backward, gradient_sums, input_gradient, relu_gradient
from numba_bn._kernels.cpu.norms import forward, moments, normalize
from numba_bn._kernels.cpu.plain import launches, own_launches
from numba_bn._kernels.cpu.sums import exact_sums

__all__ = [
    "backward",
    "exact_sums",
    "forward",
    "gradient_sums",
    "input_gradient",
    "launches",
    "moments",
    "normalize",
    "own_launches",
    "relu_gradient",
]
